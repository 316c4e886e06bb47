"""Voice activity: where in a sound somebody speaks, by Silero VAD.

The network (Silero VAD 6, MIT) and the code that makes stretches of its probabilities come in faster-whisper, and
onnxruntime, which faster-whisper brings too, runs it. The settings are Silero's own: stretches begin at a probability
of .5 and end below .35, pauses of a tenth of a second part them, and those under a quarter of a second are dropped.
What a recogniser is given is parted at longer pauses, and has some sound around it: cut off hard, short words are not
understood.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtsum.enhance.speech.sound import RATE
from vtsum.errors import VTSumError

OWN = {
    "threshold": 0.5,
    "neg_threshold": 0.35,
    "min_speech_duration_ms": 250,
    "min_silence_duration_ms": 100,
    "speech_pad_ms": 30,
}
FOR_RECOGNISER = {**OWN, "min_silence_duration_ms": 500, "speech_pad_ms": 200}
LONGEST = 30.0  # seconds of a stretch: Whisper's window
_PIECE = 60.0  # seconds looked at together, at least
_CONTEXT = 1.0  # seconds in which a stretch that has ended may still go on
_SLIP = 0.01  # seconds


@dataclass(frozen=True)
class Stretch:
    """Sound in which somebody may be speaking: its start in seconds, and float32 [n] at 16 kHz."""

    start: float
    samples: np.ndarray

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / RATE


def missing_package() -> str | None:
    """The first package without which no voice is found; None where all are there."""
    modules = {"faster_whisper": "faster-whisper", "onnxruntime": "onnxruntime"}
    return next((name for module, name in modules.items() if importlib.util.find_spec(module) is None), None)


MODEL = "Silero VAD 6"


def model_sha256() -> dict[str, str]:
    """The digest of Silero's file of weights, which faster-whisper carries."""
    from vtsum.model.pretrained import files_sha256

    found = importlib.util.find_spec("faster_whisper")
    return files_sha256(Path(found.origin).parent / "assets", "silero*.onnx") if found and found.origin else {}


def voice_activity(sound: np.ndarray | Iterable[tuple[float, np.ndarray]]) -> list[tuple[float, float]]:
    """Where somebody may be speaking (how: see this module).

    Args:
        sound: as for `voiced`.
    Returns:
        list[tuple[float, float]]: (start, end) in seconds, in order, at most `LONGEST` long, within the sound; none
        overlaps another.
    Raises:
        VTSumError, ValueError: as `voiced`.
    """
    return [(stretch.start, stretch.end) for stretch in _checked(sound, LONGEST, OWN)]


def voiced(sound: np.ndarray | Iterable[tuple[float, np.ndarray]], longest: float = LONGEST) -> Iterator[Stretch]:
    """The stretches in which somebody may be speaking, with their sound: what a recogniser is given, so only pauses of
    half a second part them, and they have a fifth of a second of sound around them.

    Args:
        sound: float samples [n] at 16 kHz, full scale 1.0; or blocks (start in seconds, samples) that follow each
            other, as `read_sound` yields them. What comes out does not depend on how long the blocks are.
        longest (float): seconds, at least 1; longer stretches are cut at a pause of a tenth of a second if they have
            one.
    Yields:
        Stretch: in order. No more of the sound is held than a minute, or twice `longest`.
    Raises:
        VTSumError: faster-whisper or onnxruntime is not installed.
        ValueError: samples that are not finite numbers in one dimension, blocks that leave a gap, a `longest` out of
            range.
    """
    return _checked(sound, longest, FOR_RECOGNISER)


def _checked(
    sound: np.ndarray | Iterable[tuple[float, np.ndarray]], longest: float, settings: Mapping[str, float]
) -> Iterator[Stretch]:
    if not longest >= 1.0:
        raise ValueError(f"voiced: longest must be at least 1 second, got {longest}")
    if (package := missing_package()) is not None:
        raise VTSumError(f"voice_activity: {package} must be installed: pip install 'vtsum[speech]'")
    return _voiced(sound, longest, settings)


def _voiced(
    sound: np.ndarray | Iterable[tuple[float, np.ndarray]], longest: float, settings: Mapping[str, float]
) -> Iterator[Stretch]:
    piece = round(max(_PIECE, 2 * longest) * RATE)
    origin, done, held = 0.0, 0, np.zeros(0, np.float32)  # the sound not decided yet, and samples before it
    for start, block in _as_blocks(sound):
        if not done and not len(held):
            origin = start
        held = np.concatenate([held, block])
        while len(held) >= piece:
            spans = _spans(held[:piece], longest, settings)
            undecided = piece - round(_CONTEXT * RATE)
            if spans and spans[-1][1] > undecided:
                undecided = max(spans.pop()[0] - round(_CONTEXT * RATE), 0)
            undecided = max(undecided, spans[-1][1] if spans else 0)
            for a, b in spans:
                yield Stretch(origin + (done + a) / RATE, held[a:b].copy())
            held, done = held[undecided:], done + undecided
    for a, b in _spans(held, longest, settings):
        yield Stretch(origin + (done + a) / RATE, held[a:b].copy())


def _spans(samples: np.ndarray, longest: float, settings: Mapping[str, float]) -> list[tuple[int, int]]:
    """(first, last + 1) of the samples of each stretch."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    if not len(samples):
        return []
    found = get_speech_timestamps(samples, VadOptions(**settings, max_speech_duration_s=longest))
    return [(span["start"], span["end"]) for span in found]


def _as_blocks(sound: np.ndarray | Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
    if isinstance(sound, np.ndarray):
        sound = [(0.0, sound)]
    expected: float | None = None
    for start, samples in sound:
        block = np.asarray(samples)
        if block.ndim != 1 or block.dtype.kind != "f":
            raise ValueError(f"voice_activity: sound must be floating-point [n], got {block.dtype} {list(block.shape)}")
        if not np.isfinite(block).all():
            raise ValueError("voice_activity: sound must be finite, got NaN or infinity")
        if expected is not None and abs(start - expected) > _SLIP:
            raise ValueError(f"voice_activity: blocks must follow each other, got one at {start} s, not {expected} s")
        expected = start + len(block) / RATE
        yield start, block.astype(np.float32, copy=False)
