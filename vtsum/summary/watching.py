"""Watching a video once: sample its frames, encode those that matter, keep features and saliency of all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.frame_sampling import EvenChooser, FrameChooser, spread, thumbnail_features
from vtsum.enhance.summary_refinement import smooth_scores
from vtsum.errors import VTSumError
from vtsum.memory import give_back
from vtsum.summary.progress import ProgressCallback
from vtsum.threads import torch_threads
from vtsum.video.ahead import FramesAhead
from vtsum.video.part import WHOLE, Part

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from vtsum.enhance.screen_text import ScreenLine
    from vtsum.enhance.screen_text.watching import Reader
    from vtsum.model import Summarizer
    from vtsum.video import VideoInfo

BATCH = 32  # frames encoded at once
SHARE = 0.25  # of the sampled frames that are encoded
AT_LEAST = 40  # frames are encoded where the video has so many: a short one is encoded whole
_GREY = 80  # pixels a side, of which changes compare 20
SMOOTHING = 1.0  # frames, of the Gaussian over saliency: nearer to raters (docs/summary_refinement.md)
FPS = (1e-4, 30.0)  # frames a second that may be looked at: least, most
Sampler = Literal["coverage", "uniform", "all"]
SAMPLERS: tuple[Sampler, ...] = ("coverage", "uniform", "all")


@dataclass(frozen=True)
class Watched:
    """What is kept of a video after it was watched once. T counts sampled frames."""

    features: np.ndarray  # [T, C] float32; of frames that were not encoded, spread from those that were
    event_features: np.ndarray  # [T, C'] float32: those columns of it that tell events apart
    saliency: np.ndarray  # [T] float32, 0..1; smoothed over time
    duration: float
    broken_at: float | None
    warnings: list[str]
    changes: PictureChanges
    encoded: np.ndarray  # [T] bool: the frames that the encoder saw, or that equal the one of them before
    damaged: list[tuple[float, float]] = field(default_factory=list)  # where the file is; seconds
    screen: list[ScreenLine] = field(default_factory=list)  # what is written on the screen
    largest: tuple[int, int] | None = None  # width and height of the largest picture as stored
    start: float = 0.0  # seconds from which the video was watched; up to `duration`

    @property
    def length(self) -> float:
        """Seconds that were watched."""
        return self.duration - self.start

    @property
    def encoded_share(self) -> float:
        """The share of the sampled frames that the encoder saw, above 0 and at most 1."""
        return float(self.encoded.mean())


class WatchedFrames(FramesAhead):
    """The frames of a video that `watch` takes; they are decoded from now on.

    Attributes:
        part (Part): of the video that is looked at. changes (PictureChanges): of all pictures decoded there.
        screen (ScreenText | None): what `reader` reads in some of them.
    """

    def __init__(
        self,
        source: Path,
        info: VideoInfo,
        fps: float,
        size: int,
        tell: ProgressCallback,
        reader: Reader | None = None,
        part: Part = WHOLE,
    ) -> None:
        self.part = part
        self.changes = PictureChanges()
        self.screen = None
        if reader is not None:
            from vtsum.enhance.screen_text import ScreenText

            self.screen = ScreenText(reader)
        start, end = part
        whole = max(min(info.duration, end or info.duration) - start, 1e-3)
        tell("read", 0.0)

        def told(seconds: float) -> None:
            tell("read", min((seconds - start) / whole, 0.99))

        super().__init__(source, fps, size, told, self._see, part)

    def _see(self, time: float, frame: VideoFrame) -> None:
        if self.screen is not None:
            self.screen.see(time, frame)
        if (small := small_picture(frame)) is not None:
            self.changes.note(time, small)


def small_picture(frame: VideoFrame) -> np.ndarray | None:
    """What `PictureChanges.note` takes of a decoded picture, a view into it; None where it has nothing to show."""
    form = frame.format
    first = form.components[0]
    if first.bits != 8 or not first.is_luma or form.has_palette:  # deeper, RGB, a palette: brought to 8-bit grey
        frame = frame.reformat(min(frame.width, _GREY), min(frame.height, _GREY), "gray")
    if not frame.planes:
        return None
    plane = frame.planes[0]
    return PictureChanges.small(memoryview(plane), plane.line_size, plane.width, plane.height)


def watch(
    source: Path,
    info: VideoInfo,
    model: Summarizer,
    fps: float,
    tell: ProgressCallback,
    *,
    sampler: Sampler = "coverage",
    ahead: WatchedFrames | None = None,
    reader: Reader | None = None,
    part: Part = WHOLE,
) -> Watched:
    """Sample a video and encode the frames that matter, in one pass.

    A quarter of the sampled frames is encoded, or 40 frames where that is more; the others take their features from
    the encoded ones next to them. One that stays is encoded once. A picture waits for this choice in memory no longer
    than a window of frames.

    Args:
        source: the file. info: what `probe` found. model, fps: as for `summarize`, the model loaded.
        tell: told ("read", fraction).
        sampler (str): "coverage" (frames that stand for the others, by colours and edges), "uniform" (evenly spaced
            ones), or "all" (every sampled frame is encoded).
        ahead: the frames, where their decoding was begun before; dropped where they are of another size than the
            model's.
        reader: who reads words on the screen; None: nobody. part: start and end in seconds of what is watched; None:
            the end of the video. Neither is for frames begun before, which have their own.
    Raises:
        VTSumError: the file cannot be read, or no picture can be decoded.
        ValueError: for another sampler.
    """
    from vtsum.model.frame_encoder import Encoding, check_finite

    if sampler not in SAMPLERS:
        raise ValueError(f"watch: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if ahead is not None and ahead.size != model.image_size:
        ahead.close()
        ahead = None
    with closing(ahead or WatchedFrames(source, info, fps, model.image_size, tell, reader, part)) as frames:
        choice = _Choice(sampler)
        encoding = Encoding(model, "summarize")
        features = []
        for batch in choice.chosen(frames.batches(BATCH)):
            # One core is left to the decoder as long as it works.
            with torch_threads(spare=int(not frames.finished)):
                features.append(encoding(batch))
    give_back()
    read = frames.sampler
    if not choice.picks:
        raise VTSumError(f"summarize: {source.name} must hold at least one picture that can be decoded, got none")
    spread_features = choice.spread(np.concatenate(features))
    saliency = model.saliency(spread_features)
    check_finite(saliency, "saliency", model.name, "summarize")
    saliency = smooth_scores(np.clip(saliency, 0.0, 1.0), "gaussian", SMOOTHING).astype(np.float32)
    tell("read", 1.0)
    return Watched(
        features=spread_features,
        event_features=model.event_features(spread_features),
        saliency=saliency,
        duration=read.duration,
        broken_at=read.broken_at,
        warnings=[*read.warnings, *(frames.screen.warnings if frames.screen else [])],
        changes=frames.changes,
        encoded=choice.encoded,
        damaged=list(read.damaged),
        screen=frames.screen.lines(read.duration) if frames.screen else [],
        largest=read.largest,
        start=frames.part[0],
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
