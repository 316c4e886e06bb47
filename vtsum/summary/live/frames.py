"""The sampled frames of a stream, decoded in a thread of their own, and what goes with each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import VideoFrame

from vtsum.errors import Stopped, VTSumError
from vtsum.summary.watching import small_picture
from vtsum.video.live import LiveInfo, LivePictures
from vtsum.video.picture import Pictures, display_size, jpeg, turn_of
from vtsum.video.reader import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Generator

_WAITING = 32  # frames that wait to be taken
_LONGEST = 320  # pixels of a kept picture's longer side


@dataclass(frozen=True)
class Frame:
    """A sampled frame: uint8 [S, S, 3] for the model, a JPEG, and time and `PictureChanges.small` of each picture that
    was decoded since the frame before. `end`: seconds up to which the stream has come."""

    image: np.ndarray
    picture: bytes
    seen: list[tuple[float, np.ndarray]]
    end: float


class ArrayPictures:
    """Pictures at hand, as `LivePictures` gives those of a source.

    Args:
        pictures: (seconds, uint8 [H, W, 3] RGB), times rising from 0; or pictures alone, `rate` a second.
    """

    def __init__(self, pictures: Iterable[np.ndarray | tuple[float, np.ndarray]], rate: float) -> None:
        self._pictures, self._rate = pictures, rate
        self.info: LiveInfo | None = None
        self.until = 0.0
        self.ended = False
        self.errors = self.jumps = 0

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        before = -1.0
        for number, item in enumerate(self._pictures):
            time, picture = item if isinstance(item, tuple) else (number / self._rate, item)
            array = np.asarray(picture)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
                raise VTSumError(f"stream: pictures must be uint8 [H, W, 3], got {array.dtype} {list(array.shape)}")
            if not before < time < float("inf"):
                raise VTSumError(f"stream: times of pictures must rise, and be 0 or more, got {time} after {before}")
            if self.info is None:
                self.info = LiveInfo(self._rate, array.shape[1], array.shape[0], "rgb24", "pictures", None)
            before, self.until = time, time + 1.0 / self._rate
            yield time, VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
        self.ended = True


class StreamFrames:
    """Frames at k / fps as they come; at most _WAITING of them wait, then the source does.

    Args:
        pictures: of the source. fps: frames a second. size: of a frame's side, for the model.
        known: frames that are known already: of them nothing is handed out. repeats: they come again; else the source
            goes on behind them.
        stop: set to end the thread.
    Attributes:
        tail: as `Frame.seen`, of pictures behind the last frame; final once `take` has given None.
    """

    def __init__(
        self,
        pictures: LivePictures | ArrayPictures,
        *,
        fps: float,
        size: int,
        stop: threading.Event,
        known: int = 0,
        repeats: bool = False,
    ) -> None:
        self.pictures = pictures
        self._fps, self._size, self._stop = fps, size, stop
        self._known, self._skip = known, known if repeats else 0
        self._shift = 0.0 if repeats else known / fps
        self.tail: list[tuple[float, np.ndarray]] = []
        self._ready: queue.Queue[Frame | BaseException | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="vtsum-stream", daemon=True)
        self._thread.start()

    @property
    def end(self) -> float:
        """Seconds up to which the stream has come; all of it once `take` has given None."""
        return self.pictures.until + self._shift

    def take(self, timeout: float) -> Frame | None:
        """The next frame; None where the source has ended.

        Raises:
            queue.Empty: none came in `timeout` seconds. VTSumError: what the source raised.
        """
        item = self._ready.get(timeout=max(timeout, 0.0)) if timeout > 0 else self._ready.get_nowait()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Let the thread end; one that waits for a pipe is left to the end of the process."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _put(self, item: Frame | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise Stopped

    def _work(self) -> None:
        try:
            try:
                with closing(self._sampled()) as frames:
                    for frame in frames:
                        self._put(frame)
                self._put(None)
            except Stopped:
                raise
            except BaseException as error:  # handed to whoever takes the frames
                self._put(error)
        except Stopped:
            pass

    def _sampled(self) -> Generator[Frame]:
        shown: VideoFrame | None = None
        made: _Made | None = None
        taken: Frame | None = None
        seen: list[tuple[float, np.ndarray]] = []
        index = 0

        def frame() -> Frame:
            nonlocal seen, taken
            assert made is not None
            assert shown is not None
            images = (taken.image, taken.picture) if taken is not None else made(shown)
            taken = Frame(*images, seen, (index + 1) / self._fps + self._shift)
            seen = []
            return taken

        for time, picture in self.pictures:
            if self._stop.is_set():
                raise Stopped
            while shown is not None and index / self._fps < time - ROUNDING:
                if index >= self._skip:
                    yield frame()
                index += 1
                if index <= self._skip:
                    seen = []
            if made is None or made.form != (picture.width, picture.height):
                made = _Made(picture, self._size, self.pictures.info.aspect if self.pictures.info else None)
            if (small := small_picture(picture)) is not None:
                seen.append((time + self._shift, small.copy()))
            shown, taken = picture, None
        while shown is not None and (index == 0 or index / self._fps < self.pictures.until - ROUNDING):
            if index >= self._skip:
                yield frame()
            index += 1
        self.tail = seen


class _Made:
    """What is made of decoded pictures of one form."""

    def __init__(self, frame: VideoFrame, size: int, aspect: Fraction | None) -> None:
        self.form = frame.width, frame.height
        turn = turn_of(frame)
        width, height = display_size(frame.width, frame.height, aspect, turn)
        share = min(_LONGEST / max(width, height), 1.0)
        self._height = max(round(height * share), 1)
        self._image = Pictures((size, size), turn)
        self._picture = Pictures((max(round(width * share), 1), self._height), turn)

    def __call__(self, frame: VideoFrame) -> tuple[np.ndarray, bytes]:
        small = VideoFrame.from_ndarray(self._picture.rgb(frame), format="rgb24")
        return self._image.rgb(frame), jpeg(small, self._height)
