"""Models for tests of batches, named on the command line: tests.vtsum.batch_models:Poisoned."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from tests.vtsum.fakes import ColourModel


class Poisoned(ColourModel):
    """Ends its process at a white picture; takes a minute over a black one."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        level = float(images.mean())
        if level > 240:
            os.kill(os.getpid(), signal.SIGKILL)
        if level < 10:
            time.sleep(60)
        return super().encode(images)
