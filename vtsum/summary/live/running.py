"""A summary that runs beside a stream of pictures."""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import queue
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtsum.devices import device_of, memory_told
from vtsum.enhance.summary_refinement import Budget, parse_budget
from vtsum.errors import VTSumError
from vtsum.reading import misfit
from vtsum.shown import without_secrets
from vtsum.signals import undisturbed
from vtsum.summary.live.document import SCHEMA, LiveDocument, LiveMoment
from vtsum.summary.live.frames import ArrayPictures, StreamFrames
from vtsum.summary.live.output import KEYFRAMES, LiveFolder
from vtsum.summary.live.shots import Store
from vtsum.summary.live.state import FORMAT, Facts, shots_state, store_of
from vtsum.summary.live.window import MOST_FPS, Window
from vtsum.summary.planning import tick_rate
from vtsum.summary.values import known_segmenter
from vtsum.threads import torch_threads
from vtsum.version import __version__
from vtsum.video.live import LivePictures, is_file, scheme_of

if TYPE_CHECKING:
    from vtsum.model import Summarizer
    from vtsum.summary.live.frames import Frame

LONGEST = 600.0  # seconds of a budget
_EVERY = (0.1, 3600.0)  # seconds between two summaries
_HEAD = 1 << 16  # bytes by which a file is known again
_NOTES = (
    "sound is not listened to, and words on the screen are not read, while a stream is summarised",
    "summary.mp4 is not made of what cannot be read again: its key frames show the moments",
)


@dataclass(frozen=True)
class LiveSummary:
    """What `stream` gives: the summary up to now.

    Attributes:
        data (LiveDocument): the content of summary.json. pictures: a JPEG for each key frame, by its name there.
    """

    data: LiveDocument
    pictures: dict[str, bytes]

    @property
    def moments(self) -> list[LiveMoment]:
        """What it shows, in order of time."""
        return self.data["moments"]

    @property
    def final(self) -> bool:
        """Whether the source has ended: no other summary follows."""
        return self.data["state"] == "ended"


@memory_told("stream", "take smaller models")
def stream(
    source: str | os.PathLike[str] | Iterable[np.ndarray | tuple[float, np.ndarray]],
    *,
    output: str | os.PathLike[str] | None = None,
    budget: str | Budget = "30s",
    model: str | os.PathLike[str] | Summarizer = "embedded",
    fps: float = 1.0,
    segmenter: str = "joint",
    memory: str | None = None,
    every: float = 60.0,
    patience: float = 10.0,
    rate: float = 25.0,
    device: str = "auto",
    overwrite: bool = False,
) -> Generator[LiveSummary, None, None]:
    """Summarise what has no end yet: a running summary within a budget, given anew every few seconds.

        for summary in vtsum.stream("rtsp://camera/", budget="1min"):
            print(summary.moments)

    A picture a second is encoded as it comes. What is kept does not grow with the stream: some minutes of frames, and
    a bounded store of shots (`vtsum.summary.live`). Up to 512 frames the choice is that of `summarize` without sound
    and with `sampler="all"`.

    Args:
        source: a file, which may still grow; "-" (standard input), a pipe, or an address (http, https, rtsp, rtsps,
            udp, tcp); or pictures, uint8 [H, W, 3] RGB, or (seconds, picture) with times that rise from 0.
        output: a folder that holds the last summary (summary.json and key frames), and the state of the run: one that
            was stopped goes on when it is started again. None: nothing is written.
        budget: of the summary, a time or a count of frames, at most 10 min. A share of a stream grows without bound.
        model, segmenter, device: as for `vtsum.summarize`.
        fps (float): frames looked at a second, at most 2.
        memory (str | None): the rule by which frames are written to the model's memory bank, "fifo", "ema" or "merge"
            (`vtsum_kernels.nn.MemoryBank.write`), while the stream goes on. None: it stays as it was trained.
        every (float): seconds from one summary to the next, 0.1 to 3600.
        patience (float): seconds without anything new after which a file or an address has ended.
        rate (float): of pictures without times, a second.
        overwrite (bool): begin anew where `output` holds a summary or a run that was stopped.
    Yields:
        LiveSummary: every `every` seconds if frames have come, and at the end, which is `final`.
    Raises:
        VTSumError: one line that names what is wrong.
    """
    asked = _Asked(budget, fps, segmenter, memory, every, patience, rate)
    where = device_of(device, "stream")
    path = source if isinstance(source, str | os.PathLike) else None
    return _running(_Run(source, path, asked, None if output is None else Path(output), overwrite), model, where)


class _Asked:
    """The options, checked."""

    def __init__(
        self,
        budget: str | Budget,
        fps: float,
        segmenter: str,
        memory: str | None,
        every: float,
        patience: float,
        rate: float,
    ) -> None:
        self.budget = parse_budget(budget)
        if not (math.isfinite(fps) and 1e-4 <= fps <= MOST_FPS):
            raise VTSumError(f"stream: fps must be 0.0001 to {MOST_FPS:g}, got {fps}")
        if self.budget.kind == "share":
            raise VTSumError(f"stream: budget must be a time or a count of frames, got {self.budget.text!r}")
        self.seconds = self.budget.value if self.budget.kind == "seconds" else self.budget.value / fps
        if not 1.0 <= self.seconds <= LONGEST:
            raise VTSumError(f"stream: budget must be 1 s to {LONGEST:g} s, got {self.budget.text!r}")
        if not (math.isfinite(every) and _EVERY[0] <= every <= _EVERY[1]):
            raise VTSumError(f"stream: every must be {_EVERY[0]:g} to {_EVERY[1]:g} seconds, got {every}")
        if not (math.isfinite(patience) and 0 < patience <= 3600):
            raise VTSumError(f"stream: patience must be above 0 and at most 3600 seconds, got {patience}")
        if not (math.isfinite(rate) and 0 < rate <= 240):
            raise VTSumError(f"stream: rate must be above 0 and at most 240, got {rate}")
        self.fps, self.memory, self.every, self.patience, self.rate = fps, memory, every, patience, rate
        self.segmenter = known_segmenter(segmenter, "stream: segmenter")


@dataclass
class _Run:
    """A run: what it reads, and what it was asked for."""

    source: Any
    path: str | os.PathLike[str] | None
    asked: _Asked
    output: Path | None
    overwrite: bool
    warnings: tuple[str, ...] = ()
    restarts: int = 0

    @property
    def again(self) -> bool:
        """Whether the source can be read again from its start."""
        return self.path is not None and is_file(self.path)

    @property
    def kind(self) -> str:
        if self.path is None:
            return "pictures"
        return "address" if scheme_of(self.path) else "file" if self.again else "pipe"

    @property
    def name(self) -> str:
        if self.path is None:
            return "pictures"
        text = os.fsdecode(os.fspath(self.path))
        if scheme_of(self.path):
            return without_secrets(text)
        return "stdin" if text == "-" else Path(text).name

    def identity(self, model: Summarizer) -> dict[str, str]:
        """What must be the same for a run to go on."""
        asked, known = self.asked, ""
        if self.again and self.path is not None:
            with open(self.path, "rb") as file:
                known = hashlib.sha256(file.read(_HEAD)).hexdigest()
        return {
            "source": f"{self.kind} {self.name}",
            "begins": known,
            "budget": f"{asked.seconds:g} s",
            "fps": f"{asked.fps:g}",
            "segmenter": asked.segmenter,
            "memory": asked.memory or "none",
            "model": f"{model.name} {model.weights_sha256}",
        }


class _Stream:
    """Frames in, moments out."""

    def __init__(self, model: Summarizer, asked: _Asked, rate: float) -> None:
        from vtsum.model.frame_encoder import Encoding

        self.asked, self.rate = asked, rate
        self._encoding = Encoding(model, "stream")
        self.window = Window(model, fps=asked.fps, rate=rate, segmenter=asked.segmenter, memory=asked.memory)
        self.store = Store(max(1, math.floor(asked.seconds * rate + 1e-6)), rate)

    def see(self, frame: Frame) -> None:
        with torch_threads(count=1):  # of one picture, two threads share too little to wait for each other
            features = self._encoding(frame.image[None])[0]
        if self.window.is_full:
            self.store.add(*self.window.settle())
        self.window.see(features, frame.picture, frame.seen)

    def moments(self, end: float) -> tuple[list[LiveMoment], dict[str, bytes]]:
        """What is shown of the stream up to `end` seconds, and its pictures."""
        shots, rows, squares = self.window.shots(end)
        room = max(1, math.floor(min(self.asked.seconds, end) * self.rate + 1e-6))
        moments: list[LiveMoment] = []
        pictures = {}
        for shot, clip, worth in self.store.choose(shots, rows, squares, room):
            time_ = shot.peak / self.rate
            name = f"{KEYFRAMES}/shot_{round(time_ * 1000):09d}.jpg"
            pictures[name] = shot.picture
            moments.append(
                {
                    "start": round(clip.start / self.rate, 3),
                    "end": round(clip.end / self.rate, 3),
                    "shot_start": round(shot.span[0] / self.rate, 3),
                    "shot_end": round(shot.span[1] / self.rate, 3),
                    "settled": shot.span[1] <= self.window.begin,
                    "saliency": round(shot.worth, 4),
                    "score": round(worth, 4),
                    "keyframe": name,
                    "keyframe_time": round(time_, 3),
                }
            )
        return moments, pictures

    def state(self) -> dict[str, np.ndarray]:
        return {
            **{f"shots_{name}": value for name, value in shots_state(self.store).items()},
            **{f"window_{name}": value for name, value in self.window.state().items()},
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        def part(begins: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(begins): value for name, value in arrays.items() if name.startswith(begins)}

        store = store_of(part("shots_"), self.store.budget, self.rate)
        self.window.restore(part("window_"))
        self.window.check_widths(store)
        self.store = store


def _running(run: _Run, model: str | os.PathLike[str] | Summarizer, device: str) -> Generator[LiveSummary, None, None]:
    from vtsum.model import load

    with ExitStack() as stack:
        folder = None
        if run.output is not None:
            inputs = [run.path if run.again else None, model if isinstance(model, str | os.PathLike) else None]
            folder = LiveFolder(run.output, run.overwrite, inputs)
            stack.callback(folder.close)
        loaded = load(os.fspath(model), text=False, device=device) if isinstance(model, str | os.PathLike) else model
        identity = run.identity(loaded)
        found = folder.found if folder is not None else None
        live = None
        if found is not None and folder is not None:
            live = _restored(run, loaded, identity, *found)
        stop = threading.Event()
        asked = run.asked
        known = 0 if live is None else live.window.count
        pictures = (
            ArrayPictures(run.source, asked.rate)
            if run.path is None
            else LivePictures(run.path, fps=asked.fps, patience=asked.patience, stop=stop)
        )
        frames = StreamFrames(
            pictures, fps=asked.fps, size=loaded.image_size, stop=stop, known=known, repeats=run.again
        )
        stack.callback(frames.close)
        yield from _Writing(run, loaded, identity, frames, folder, live).summaries()


def _restored(
    run: _Run, model: Summarizer, identity: dict[str, str], facts: Facts, arrays: dict[str, np.ndarray]
) -> _Stream:
    where = f"stream: output {run.output}"
    for name, value in identity.items():
        if facts["asked"].get(name) != value:
            raise VTSumError(
                f"{where} holds a run of another {name}: {facts['asked'].get(name)!r:.90}, got {value!r:.90}; "
                "overwrite begins anew"
            )
    if not (math.isfinite(facts["rate"]) and 0 < facts["rate"] <= 1000):
        raise VTSumError(f"{where}: rate must be above 0 and at most 1000, got {facts['rate']}")
    live = _Stream(model, run.asked, facts["rate"])
    try:
        live.restore(arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise VTSumError(f"{where}: live.npz must be whole, as vtsum writes it, got: {misfit(error):.200}") from None
    run.restarts = facts["restarts"] + 1
    at = live.window.count / run.asked.fps
    gap = "" if run.again else "; what came meanwhile is not in it"
    run.warnings = (*facts["warnings"], f"stopped, and taken up again at {at:.1f} s{gap}")[-20:]
    return live


class _Writing:
    """The loop: frames are taken as they come, and now and then a summary is given."""

    def __init__(
        self,
        run: _Run,
        model: Summarizer,
        identity: dict[str, str],
        frames: StreamFrames,
        folder: LiveFolder | None,
        live: _Stream | None,
    ) -> None:
        self._run, self._model, self._identity = run, model, identity
        self._frames, self._folder, self._live = frames, folder, live
        self._whole = True  # no frame is half taken
        self._file: str | None = None
        self._uncut: tuple[str, ...] = () if run.again else _NOTES[1:]

    def summaries(self) -> Generator[LiveSummary, None, None]:
        every, fresh = self._run.asked.every, False
        due = time.monotonic() + every
        try:
            while True:
                try:
                    frame = self._frames.take(min(max(due - time.monotonic(), 0.0), 1.0))
                except queue.Empty:
                    frame = None
                else:
                    if frame is None:
                        break
                    with undisturbed():
                        self._take(frame)
                    fresh = True
                if time.monotonic() >= due:
                    if fresh:
                        with undisturbed():
                            summary = self._summary("running")
                        yield summary
                    due, fresh = time.monotonic() + every, False
            if self._live is not None:
                self._live.window.note(self._frames.tail)
                self._cut(self._live)
        except BaseException:
            if self._whole and self._live is not None and self._folder is not None:
                with undisturbed():
                    self._summary("stopped")
            raise
        if self._live is None:
            raise VTSumError(f"stream: {self._run.name} must have had a picture before it was stopped, got none")
        with undisturbed():
            summary = self._summary("ended")
        yield summary

    def _take(self, frame: Frame) -> None:
        if self._live is None:
            info = self._frames.pictures.info
            assert info is not None
            self._live = _Stream(self._model, self._run.asked, tick_rate(info.rate, self._run.asked.fps))
        self._whole = False
        self._live.see(frame)
        self._whole = True

    def _end(self, live: _Stream) -> float:
        """Seconds that the stream has, now that it has ended."""
        end, step = live.window.count / self._run.asked.fps, 1.0 / self._run.asked.fps
        return self._frames.end if end - step < self._frames.end <= end else end

    def _cut(self, live: _Stream) -> None:
        """Make summary.mp4, where the source can be read again."""
        run, end = self._run, self._end(live)
        if self._folder is None or not run.again or run.path is None:
            return
        from vtsum.video import cut

        spans = [(moment["start"], moment["end"]) for moment in live.moments(end)[0]]
        try:
            cut(run.path, spans, self._folder.path / "summary.mp4", duration=end)
            self._file = "summary.mp4"
        except VTSumError as error:
            self._uncut = (f"summary.mp4 was not made: {error}",)

    def _summary(self, state: str) -> LiveSummary:
        live, run, frames = self._live, self._run, self._frames
        assert live is not None
        end = self._end(live) if state == "ended" else live.window.count / run.asked.fps
        moments, pictures = live.moments(end)
        store, info = live.store, frames.pictures.info
        document: LiveDocument = {
            "schema": SCHEMA,
            "vtsum_version": __version__,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "source": {
                "name": run.name,
                "kind": run.kind,
                "width": 0 if info is None else info.width,
                "height": 0 if info is None else info.height,
                "fps": round(live.rate, 6),
                "video_codec": "" if info is None else info.codec,
                "container": "" if info is None else info.container,
            },
            "settings": {
                "budget": run.asked.budget.text,
                "budget_seconds": run.asked.seconds,
                "fps": run.asked.fps,
                "segmenter": run.asked.segmenter,
                "memory": run.asked.memory,
                "every": run.asked.every,
                "patience": run.asked.patience,
            },
            "model": {"name": self._model.name, "weights_sha256": self._model.weights_sha256},
            "state": state,
            "frames": live.window.count,
            "duration": round(end, 3),
            "summary_duration": round(sum(moment["end"] - moment["start"] for moment in moments), 3),
            "file": self._file,
            "shots": {
                "settled": store.totals.shots,
                "kept": len(store.shots),
                "given_up": round(store.given_up, 6),
            },
            "moments": moments,
            "warnings": self._warnings(),
        }
        summary = LiveSummary(document, pictures)
        if self._folder is not None:
            facts: Facts = {
                "format": FORMAT,
                "asked": self._identity,
                "rate": live.rate,
                "restarts": run.restarts,
                "warnings": list(run.warnings),
            }
            self._folder.write(document, pictures, None if state == "ended" else facts, live.state)
        return summary

    def _warnings(self) -> list[str]:
        pictures, found = self._frames.pictures, [*self._run.warnings]
        if pictures.errors:
            found.append(f"{pictures.errors} damaged packets, or places that could not be read, were passed over")
        if pictures.jumps:
            found.append(f"timestamps jump in {pictures.jumps} places: what follows was put behind what came before")
        return [*found, _NOTES[0], *self._uncut]
