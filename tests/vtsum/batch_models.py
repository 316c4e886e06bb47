"""Models for tests of batches, named on the command line: tests.vtsum.batch_models:Poisoned."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np

from tests.vtsum.fakes import ColourModel
from vtsum.summary.staging import StagedFolder


class Poisoned(ColourModel):
    """Ends its process at a white picture; takes a minute over a black one; holds a semaphore as tqdm does."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = multiprocessing.RLock()

    def encode(self, images: np.ndarray) -> np.ndarray:
        level = float(images.mean())
        if level > 240:
            os.kill(os.getpid(), signal.SIGKILL)
        if level < 10:
            time.sleep(60)
        return super().encode(images)


class KilledOnceDone(ColourModel):
    """Ends its process once a summary is in its place, before anybody is told."""

    def __init__(self) -> None:
        super().__init__()
        commit = StagedFolder.commit

        def last(folder: StagedFolder) -> None:
            commit(folder)
            os.kill(os.getpid(), signal.SIGKILL)

        StagedFolder.commit = last
