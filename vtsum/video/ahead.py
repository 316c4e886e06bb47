"""Frames decoded ahead of whoever takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtsum.errors import Stopped
from vtsum.video.part import WHOLE, Part, PartSampler
from vtsum.video.reader import FrameSampler

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_PATIENCE = 2.0  # seconds that the thread is given to end: a packet may take longer to read
AHEAD_BYTES = 48 << 20  # of pictures that wait to be taken


class FramesAhead:
    """Sampled frames, decoded in a thread of their own, which runs ahead by at most AHEAD_BYTES of pictures.

    Args:
        source: the file. fps: frames a second. size: frames are stretched to size x size.
        on_progress: told the seconds decoded. on_picture: shown each decoded picture with its time.
        part: start and end in seconds of what is looked at; None: the end of the video.

    Attributes:
        sampler (FrameSampler | PartSampler): its duration, warnings and so on are final once all batches were taken.
        size (int): of a frame's side.
        finished (bool): everything is decoded.
    """

    def __init__(
        self,
        source: Path,
        fps: float,
        size: int,
        on_progress: Callable[[float], None] | None = None,
        on_picture: Callable[[float, VideoFrame], None] | None = None,
        part: Part = WHOLE,
    ) -> None:
        self.size = size
        self.finished = False
        self.sampler: FrameSampler | PartSampler
        if part == WHOLE:
            self.sampler = FrameSampler(
                source,
                fps=fps,
                size=(size, size),
                on_progress=on_progress,
                on_picture=on_picture,
                on_packet=self._go_on,
            )
        else:
            self.sampler = PartSampler(
                source,
                *part,
                fps=fps,
                size=(size, size),
                on_progress=on_progress,
                on_picture=on_picture,
                on_packet=self._go_on,
            )
        self._ahead: queue.Queue[np.ndarray | BaseException | None] = queue.Queue(max(AHEAD_BYTES // (3 * size**2), 8))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._decode, name="vtsum-decode", daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _put(self, item: np.ndarray | BaseException | None) -> None:
        while True:
            self._go_on()
            try:
                return self._ahead.put(item, timeout=0.1)
            except queue.Full:
                continue

    def _decode(self) -> None:
        try:
            try:
                for frame in self.sampler:
                    self._put(frame.image)
                self.finished = True
                self._put(None)
            except Stopped:
                raise
            except BaseException as error:  # handed to the thread that waits for frames
                self._put(error)
        except Stopped:
            pass

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Batches of up to `size` frames, uint8 [n, H, W, 3].

        Raises:
            VTSumError: what the sampler raised.
        """
        batch: list[np.ndarray] = []
        while True:
            item = self._ahead.get()
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                batch.append(item)
            if batch and (item is None or len(batch) == size):
                yield np.stack(batch)
                batch = []
            if item is None:
                return

    def close(self) -> None:
        """Let the thread end; what was not taken is dropped."""
        self._stop.set()
        self._thread.join(timeout=_PATIENCE)
