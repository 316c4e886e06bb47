"""What a video was found to be, kept beside its summary: enough to choose and write another one without watching again.

`analysis.npz` holds plain arrays and one JSON text as bytes; nothing in it is run. Features of 256 numbers a second and
a small picture four times a second take some 250 kB a minute, about half of that after compression.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from vtsum.data.feature_files import array_header, read_array
from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.screen_text import ScreenLine
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.errors import VTSumError
from vtsum.files import plain, written
from vtsum.reading import LIMIT, misfit, parse_json, said_of
from vtsum.summary.schema import Settings, filled_lines, filled_settings
from vtsum.summary.typed import check_type
from vtsum.summary.watching import FPS, Watched
from vtsum.video.source import MAX_PIXELS
from vtsum.zips import opened

if TYPE_CHECKING:
    from vtsum.enhance.screen_text import RapidReader
    from vtsum.model import Summarizer

Ask = Callable[[Sequence[tuple[float, float]]], list[list[Word]]]
FORMAT = "vtsum-analysis/1"
FILE = "analysis.npz"
_EXACT = ("times", "changes", "lasting", "kept_times")  # float64, kept as the integers of the same bits
_OPTIONAL = ("event_features", "boundaries")
_ARRAYS = {
    **dict.fromkeys(("features", "event_features"), (np.dtype(np.float32), 2)),
    **dict.fromkeys(("saliency", "boundaries"), (np.dtype(np.float32), 1)),
    "encoded": (np.dtype(bool), 1),
    **dict.fromkeys(_EXACT, (np.dtype(np.int64), 1)),
    "kept_runs": (np.dtype(np.int64), 2),
    "kept": (np.dtype(np.uint8), 1),
}


@dataclass(frozen=True)
class ModelFacts:
    """What a summary says of the model that gave its saliency."""

    name: str
    weights_sha256: str
    embedded: bool
    text_is_guess: bool
    reads_pictures: bool
    reads_words: bool
    device: str | None

    @classmethod
    def of(cls, model: Summarizer) -> ModelFacts:
        device = getattr(model, "device", None)
        return cls(
            model.name,
            model.weights_sha256,
            bool(model.embedded),
            bool(model.text_is_guess),
            bool(model.reads_pictures),
            bool(getattr(model, "reads_words", False)),
            None if device is None else str(device),
        )


@dataclass(frozen=True)
class ReaderFacts:
    """What a summary says of who read the words on the screen."""

    name: str
    sha256: dict[str, str]

    @classmethod
    def of(cls, reader: RapidReader) -> ReaderFacts:
        return cls(reader.name, dict(reader.sha256))


class _Uttered(TypedDict):
    words: list[Word]


class _Heard(TypedDict):
    """A transcript, as JSON has it."""

    source: str
    language: str | None
    warnings: list[str]
    unheard: list[tuple[float, float]]
    models: list[tuple[str, str, dict[str, str], str | None]]
    utterances: list[_Uttered]
    again: list[tuple[float, float, list[Word]]] | None


class _Seen(TypedDict):
    """What was watched, but for arrays."""

    duration: float
    broken_at: float | None
    warnings: list[str]
    damaged: list[tuple[float, float]]
    screen: list[ScreenLine]
    largest: tuple[int, int] | None


class _Facts(TypedDict):
    """The JSON of the file."""

    format: str
    name: str
    size_bytes: int
    settings: Settings
    model: ModelFacts
    reader: ReaderFacts | None
    said: _Heard | None
    watched: _Seen


@dataclass(frozen=True)
class Analysis:
    """A video after it was watched and listened to.

    Attributes:
        name (str), size_bytes (int): of the file. settings: with which it was analysed; what of them concerns the
            choice alone (budget, formats and their like) is another summary's to choose.
        watched, said: what was seen and heard; None: nobody listened. boundaries: [T] of the model's boundary head.
    """

    name: str
    size_bytes: int
    settings: Settings
    watched: Watched
    said: Transcript | None
    boundaries: np.ndarray | None
    model: ModelFacts
    reader: ReaderFacts | None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        watched = self.watched
        arrays = {"features": watched.features, "saliency": watched.saliency, "encoded": watched.encoded}
        if watched.event_features is not watched.features:
            arrays["event_features"] = watched.event_features
        if self.boundaries is not None:
            arrays["boundaries"] = self.boundaries
        state = watched.changes.state()
        arrays |= {name: state[name].view(np.int64) if name in _EXACT else state[name] for name in state}
        facts: dict[str, Any] = {
            "format": FORMAT,
            "name": stored_name(self.name),
            "size_bytes": self.size_bytes,
            "settings": self.settings,
            "model": dataclasses.asdict(self.model),
            "reader": None if self.reader is None else dataclasses.asdict(self.reader),
            "said": None if self.said is None else _said(self.said),
            "watched": {
                "duration": watched.duration,
                "broken_at": watched.broken_at,
                "warnings": watched.warnings,
                "damaged": watched.damaged,
                "screen": [dataclasses.asdict(line) for line in watched.screen],
                "largest": watched.largest,
            },
        }
        text = json.dumps(facts, allow_nan=False).encode()
        with written(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, facts=np.frombuffer(text, np.uint8), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Analysis:
        """Read the file.

        Raises:
            VTSumError: it is missing, damaged, or not what `save` writes.
        """
        where = plain(path)
        size = array_header(path, "facts")[0]
        if max(size, default=0) > LIMIT:
            raise VTSumError(f"{where}: facts must have at most {LIMIT:,} bytes, got {max(size):,}")
        facts = parse_json(read_array(path, "facts").tobytes(), dict, f"{where}: facts")
        if facts.get("format") != FORMAT:
            raise VTSumError(f"{where}: format must be {FORMAT!r}, got {said_of(facts, 'format')}")
        facts["settings"] = filled_settings(facts.get("settings"))
        if isinstance(model := facts.get("model"), dict):
            model.setdefault("reads_words", False)  # of a version before
        if isinstance(seen := facts.get("watched"), dict):
            seen["screen"] = filled_lines(seen.get("screen"))
        check_type(facts, _Facts, f"{where}: facts")
        try:
            return _checked(cls(**_read(Path(path), facts)))
        except VTSumError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = f"{misfit(error):.200}"
            raise VTSumError(f"{where} must be whole, as vtsum summarize writes it, got: {said}") from None


def stored_name(name: str) -> str:
    """A video's name as an analysis has it: JSON is text, a name may be any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def _read(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {}
    for name in sorted({*_ARRAYS} - {*_OPTIONAL} | {*_ARRAYS} & _names(path)):
        arrays[name] = read_array(path, name)
        if (arrays[name].dtype, arrays[name].ndim) != _ARRAYS[name]:
            raise ValueError(f"{name} of {arrays[name].ndim} dimensions of {arrays[name].dtype}")
    arrays |= {name: arrays[name].view(np.float64) for name in _EXACT}
    seen = facts["watched"]
    watched = Watched(
        features=arrays["features"],
        event_features=arrays.get("event_features", arrays["features"]),
        saliency=arrays["saliency"],
        duration=float(seen["duration"]),
        broken_at=seen["broken_at"],
        warnings=[str(line) for line in seen["warnings"]],
        changes=PictureChanges.of_state(arrays),
        encoded=arrays["encoded"],
        damaged=[(float(start), float(end)) for start, end in seen["damaged"]],
        screen=[ScreenLine(**{**line, "box": tuple(line["box"])}) for line in seen["screen"]],
        largest=None if seen["largest"] is None else (int(seen["largest"][0]), int(seen["largest"][1])),
        start=float(facts["settings"]["start"]),
    )
    return {
        "name": str(facts["name"]),
        "size_bytes": int(facts["size_bytes"]),
        "settings": facts["settings"],
        "watched": watched,
        "said": None if facts["said"] is None else _transcript(facts["said"]),
        "boundaries": arrays.get("boundaries"),
        "model": ModelFacts(**facts["model"]),
        "reader": None if facts["reader"] is None else ReaderFacts(**facts["reader"]),
    }


def _names(path: Path) -> set[str]:
    with opened(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


class HeardAgain:
    """What was heard again (`Transcript.again`), each stretch once: it is kept for another summary."""

    def __init__(self, ask: Ask | None = None, known: Mapping[tuple[float, float], list[Word]] | None = None) -> None:
        self._ask = ask
        self.known = dict(known or {})

    def __call__(self, spans: Sequence[tuple[float, float]]) -> list[list[Word]]:
        new = [span for span in spans if span not in self.known]
        if new and self._ask is not None:
            self.known.update(zip(new, self._ask(new), strict=True))
        return [self.known.get(span, []) for span in spans]


def _said(said: Transcript) -> dict[str, Any]:
    known = said.again.known if isinstance(said.again, HeardAgain) else {}
    again = [[start, end, [dataclasses.asdict(word) for word in words]] for (start, end), words in known.items()]
    kept = {name: getattr(said, name) for name in ("source", "language", "warnings", "unheard", "models")}
    utterances = [dataclasses.asdict(utterance) for utterance in said.utterances]
    return {**kept, "utterances": utterances, "again": None if said.again is None else again}


def _transcript(facts: Mapping[str, Any]) -> Transcript:
    utterances = tuple(Utterance(tuple(Word(**word) for word in each["words"])) for each in facts["utterances"])
    return Transcript(
        utterances,
        facts["source"],
        facts["language"],
        tuple(facts["warnings"]),
        tuple((float(start), float(end)) for start, end in facts["unheard"]),
        tuple((part, name, dict(digests), device) for part, name, digests, device in facts["models"]),
        None if facts["again"] is None else HeardAgain(known=_again(facts["again"])),
    )


def _again(stored: Sequence[Any]) -> dict[tuple[float, float], list[Word]]:
    return {(float(start), float(end)): [Word(**word) for word in words] for start, end, words in stored}


def _checked(read: Analysis) -> Analysis:
    """Refuse arrays that do not belong together: what is chosen from them would be wrong in silence."""
    watched, boundaries, count = read.watched, read.boundaries, len(read.watched.saliency)
    for name, array in (
        ("features", watched.features),
        ("event_features", watched.event_features),
        ("saliency", watched.saliency),
        ("encoded", watched.encoded),
        ("boundaries", boundaries),
    ):
        if array is not None and (len(array) != count or not array.size):
            raise ValueError(f"{name} of shape {array.shape} for {count} frames")
        if array is not None and not np.isfinite(array).all():
            raise ValueError(f"{name} that is not finite")
    if not watched.encoded.any():
        raise ValueError("encoded must be true for a frame")
    if watched.saliency.min() < 0 or watched.saliency.max() > 1:
        raise ValueError("saliency must lie in 0..1")
    fps = read.settings["fps"]
    if not FPS[0] <= fps <= FPS[1]:
        raise ValueError(f"fps {fps:g}")
    if not (watched.start >= 0 and 0 < watched.length * fps <= count + 2):  # a frame was taken at each k / fps
        raise ValueError(f"{count} frames, {fps:g} a second, of {watched.start:g} to {watched.duration:g} s")
    if boundaries is not None and (boundaries.min() < 0 or boundaries.max() > 1):
        raise ValueError("boundaries must lie in 0..1")
    if Path(read.name).name != read.name or "\0" in read.name:
        raise ValueError(f"name must be a file's without its folder, got {read.name!r:.80}")
    if watched.largest is not None and (min(watched.largest) < 1 or math.prod(watched.largest) > MAX_PIXELS):
        raise ValueError(f"largest {watched.largest}")
    if watched.broken_at is not None and watched.broken_at < 0:
        raise ValueError(f"broken_at {watched.broken_at}")
    said = [] if read.said is None else read.said.unheard
    for start, end in (*watched.damaged, *((line.start, line.end) for line in watched.screen), *said):
        if not 0 <= start <= end:
            raise ValueError(f"a stretch of {start} to {end} s")
    for line in watched.screen:
        if not 0 <= line.score <= 1:
            raise ValueError(f"a score of {line.score}")
    return read
