"""Watching a video once: sample its frames, encode those that matter, keep features and saliency of all."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.frame_sampling import EvenChooser, FrameChooser, spread, thumbnail_features
from vtsum.errors import VTSumError
from vtsum.summary.progress import ProgressCallback

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from vtsum.model import Summarizer
    from vtsum.video import VideoInfo

BATCH = 32  # frames encoded at once
AHEAD_BYTES = 48 << 20  # of pictures that wait for the encoder
SHARE = 0.25  # of the sampled frames that are encoded
AT_LEAST = 40  # frames are encoded where the video has so many: a short one is encoded whole
Sampler = Literal["coverage", "uniform", "all"]
SAMPLERS: tuple[Sampler, ...] = ("coverage", "uniform", "all")
EMBEDDED_SIZE = 128  # pixels; the embedded frame encoder's pictures, known here without its imports


@dataclass(frozen=True)
class Watched:
    """What is kept of a video after it was watched once. T counts sampled frames."""

    features: np.ndarray  # [T, C] float32; of frames that were not encoded, spread from those that were
    event_features: np.ndarray  # [T, C'] float32: those columns of it that tell events apart
    saliency: np.ndarray  # [T] float32, 0..1
    duration: float
    broken_at: float | None
    warnings: list[str]
    changes: PictureChanges
    encoded: np.ndarray  # [T] bool: the frames that the encoder saw
    damaged: list[tuple[float, float]] = field(default_factory=list)  # where the file is; seconds

    @property
    def encoded_share(self) -> float:
        """The share of the sampled frames that the encoder saw, above 0 and at most 1."""
        return float(self.encoded.mean())


def watch(
    source: Path,
    info: VideoInfo,
    model: str | os.PathLike[str] | Summarizer,
    fps: float,
    tell: ProgressCallback,
    *,
    sampler: Sampler = "coverage",
) -> tuple[Summarizer, Watched]:
    """Sample a video and encode the frames that matter, in one pass.

    A quarter of the sampled frames is encoded, or 40 frames where that is more; the others take their features from
    the encoded ones next to them. A picture waits for this choice in memory no longer than a window of frames.

    Frames come from a thread of their own, which starts before the model is loaded where its picture size is known:
    importing what a model needs takes seconds, and one core would wait.

    Args:
        source: the file. info: what `probe` found. model, fps: as for `summarize`.
        tell: told ("read", fraction).
        sampler (str): "coverage" (frames that stand for the others, by colours and edges), "uniform" (evenly spaced
            ones), or "all" (every sampled frame is encoded).
    Raises:
        VTSumError: the file or the model cannot be read, or no picture can be decoded.
        ValueError: for another sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"watch: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    tell("read", 0.0)
    whole = max(info.duration, 1e-3)
    size = EMBEDDED_SIZE if isinstance(model, str) and model == "embedded" else None
    frames = (
        None if size is None else FramesAhead(source, fps, size, lambda done: tell("read", min(done / whole, 0.99)))
    )
    try:
        with _quick_switches():
            loaded = load_model(model)
        if frames is None or loaded.image_size != size:
            if frames is not None:
                frames.close()
            frames = FramesAhead(source, fps, loaded.image_size, lambda done: tell("read", min(done / whole, 0.99)))
        choice = _Choice(sampler)
        features = []
        for batch in choice.chosen(frames.batches(BATCH)):
            # One core is left to the decoder as long as it works.
            with torch_threads(spare=int(not frames.finished)):
                # A copy: the encoder's own small arrays lie between its large ones and would keep their memory taken,
                # some 2 MiB a batch.
                features.append(np.array(loaded.encode(batch)))
    finally:
        if frames is not None:
            frames.close()
    read = frames.sampler
    if not choice.picks:
        raise VTSumError(f"summarize: {source.name} must hold at least one picture that can be decoded, got none")
    spread_features = choice.spread(np.concatenate(features))
    saliency = np.clip(np.nan_to_num(loaded.saliency(spread_features)), 0.0, 1.0)
    tell("read", 1.0)
    return loaded, Watched(
        features=spread_features,
        event_features=loaded.event_features(spread_features),
        saliency=saliency,
        duration=read.duration,
        broken_at=read.broken_at,
        warnings=list(read.warnings),
        changes=frames.changes,
        encoded=choice.encoded,
        damaged=list(read.damaged),
    )


class _Choice:
    """The frames that are encoded, chosen from thumbnails as the pictures come.

    Attributes, final once all batches were taken:
        picks (list[int]): the chosen frames, rising. encoded: bool [T].
    """

    def __init__(self, sampler: Sampler) -> None:
        self.picks: list[int] = []
        self._chooser: FrameChooser | EvenChooser | None = None
        if sampler != "all":
            self._chooser = (FrameChooser if sampler == "coverage" else EvenChooser)(SHARE, at_least=AT_LEAST)
        self._thumbnails: list[np.ndarray] = []
        self._count = 0

    def chosen(self, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Batches of BATCH chosen pictures, uint8 [n, H, W, 3], in order; the last may be smaller."""
        waiting: dict[int, np.ndarray] = {}  # pictures that may still be chosen
        ready: list[np.ndarray] = []
        for batch in batches:
            first, self._count = self._count, self._count + len(batch)
            if self._chooser is None:
                self.picks.extend(range(first, self._count))
                yield batch
                continue
            cheap = thumbnail_features(batch)
            self._thumbnails.append(cheap)
            waiting.update((first + i, picture.copy()) for i, picture in enumerate(batch))
            ready += self._take(waiting, self._chooser.see(cheap))
            waiting = {i: picture for i, picture in waiting.items() if i >= self._chooser.settled}
            while len(ready) >= BATCH:
                yield np.stack(ready[:BATCH])
                del ready[:BATCH]
        if self._chooser is not None:
            ready += self._take(waiting, self._chooser.finish())
        for at in range(0, len(ready), BATCH):
            yield np.stack(ready[at : at + BATCH])

    def _take(self, waiting: dict[int, np.ndarray], numbers: list[int]) -> list[np.ndarray]:
        self.picks += numbers
        return [waiting[i] for i in numbers]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values [P, C] of the chosen frames -> [T, C] of all."""
        if self._chooser is None:
            return values
        return spread(values, np.array(self.picks), self._count, like=np.concatenate(self._thumbnails))

    @property
    def encoded(self) -> np.ndarray:
        seen = np.zeros(self._count, bool)
        seen[self.picks] = True
        return seen


def load_model(model: str | os.PathLike[str] | Summarizer) -> Summarizer:
    """A model by name or path; a loaded one as it is."""
    if not isinstance(model, str | os.PathLike):
        return model
    from vtsum.model import load

    return load(os.fspath(model))


class FramesAhead:
    """Sampled frames, decoded in a thread of their own, which runs ahead by at most AHEAD_BYTES of pictures.

    Attributes:
        sampler (FrameSampler): its duration, warnings and so on are final once all batches were taken.
        changes (PictureChanges): of all pictures decoded.
        finished (bool): everything is decoded.
    """

    def __init__(self, source: Path, fps: float, size: int, on_progress: Callable[[float], None]) -> None:
        from vtsum.video import FrameSampler

        self.changes = PictureChanges()
        self.finished = False
        self.sampler = FrameSampler(source, fps=fps, size=(size, size), on_progress=on_progress, on_picture=self._note)
        self._ahead: queue.Queue[np.ndarray | BaseException | None] = queue.Queue(max(AHEAD_BYTES // (3 * size**2), 8))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._decode, name="vtsum-decode", daemon=True)
        self._thread.start()

    def _note(self, time: float, frame: VideoFrame) -> None:
        if self._stop.is_set():
            raise _Stopped
        if frame.planes and frame.format.components[0].bits == 8:
            plane = frame.planes[0]
            self.changes.see(time, memoryview(plane), plane.line_size, plane.width, plane.height)

    def _put(self, item: np.ndarray | BaseException | None) -> None:
        while True:
            if self._stop.is_set():
                raise _Stopped
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
            except _Stopped:
                raise
            except BaseException as error:  # handed to the thread that waits for frames
                self._put(error)
        except _Stopped:
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
        self._thread.join(timeout=10.0)


class _Stopped(Exception):
    """Nobody wants more frames."""


@contextmanager
def _quick_switches() -> Iterator[None]:
    """Let threads take turns ten times as often: an import holds the interpreter, and the decoder asks for it often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def torch_threads(*, spare: int | None = None, count: int | None = None) -> Iterator[None]:
    """Run PyTorch with fewer threads for a while: `spare` less than it has, or `count`.

    Threads that wait for a core that others use spin, and small calls then take ten times as long as on one thread.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - spare) if spare is not None else min(count or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
