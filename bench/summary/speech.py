"""Voice activity and recognition of speech: what they find, get wrong and cost.

    python -m bench.summary.speech [--shared DIR] [--parts activity recognition again] [--recognisers auto ...]
        [--short]

activity: narrations by espeak-ng whose sentences' times are known, clean, clipped and under four noises at several
levels: recall and precision in seconds. recognition: real clips whose words are known, and the narrations, clean and
under noise and music: word error rate and the real-time factor (CPU seconds for a second of sound, voice activity
included; the wall clock means little on a shared machine). again: the same, and how many of the sentences that might
be quoted are true, heard once and heard again (vtsum.enhance.speech.again). One JSON line a measurement goes to
results/speech.jsonl, and docs/speech.png is drawn from them: also from those of recognisers and detectors that lost,
and are no more.
"""

from __future__ import annotations

import os
import tempfile
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, machine, read
from bench.summary.speech_corpus import JFK, NOISES, PASSAGES, RATE, VOICES, Narration, clipped, narrate, with_noise
from bench.summary.tables.speech import draw
from vtsum.enhance.speech import transcribe
from vtsum.enhance.speech.activity import voice_activity, voiced
from vtsum.enhance.speech.again import repeats
from vtsum.enhance.speech.recognisers import make_recogniser
from vtsum.enhance.speech.sound import read_sound
from vtsum.enhance.speech.subtitle_track import read_subtitle_track
from vtsum.enhance.speech.wer import WordErrors, word_errors
from vtsum.summary.choosing import heard_twice, spans_of

PARTS = ("activity", "recognition", "again")
PACKAGES = ("numpy", "av", "faster-whisper", "onnxruntime")
LEVELS = (20, 10, 5, 0)
SPOKEN_OVER: tuple[tuple[str, int | None], ...] = (("clean", None), ("white", 10), ("music", 10))
VAD = "silero, own settings"
Spans = list[tuple[float, float]]


def narrations(short: bool) -> Iterator[Narration]:
    """Each passage by one of the voices; or three sentences of two."""
    for name, (voice, speed) in list(zip(PASSAGES, VOICES, strict=True))[: 2 if short else None]:
        yield narrate(name, voice=voice, speed=speed, first=3 if short else None)


def conditions(samples: np.ndarray) -> Iterator[tuple[str, int | None, np.ndarray]]:
    """(name, decibels, samples): clean, clipped, and under each noise at each level."""
    yield "clean", None, samples
    yield "clipped", None, clipped(samples, 0.1)
    for kind in NOISES:
        for level in LEVELS:
            yield kind, level, with_noise(samples, level, kind)


def mask(spans: Spans, count: int) -> np.ndarray:
    """Which hundredths of a second lie in a span."""
    out = np.zeros(count, bool)
    for a, b in spans:
        out[round(a * 100) : round(b * 100)] = True
    return out


def measure_activity(short: bool) -> Iterator[dict[str, Any]]:
    """Recall and precision of speech, over all narrations, by condition."""
    counts: dict[tuple[str, int | None], np.ndarray] = {}
    cost = np.zeros(2)
    for narration in narrations(short):
        count = round(narration.duration * 100)
        truth = mask([(a, b) for a, b, _ in narration.sentences], count)
        for kind, level, samples in conditions(narration.samples):
            began = time.process_time()
            heard = mask(voice_activity(samples), count)
            cost += np.array([time.process_time() - began, narration.duration])
            hits = np.array([(heard & truth).sum(), heard.sum(), truth.sum()])
            counts[kind, level] = counts.get((kind, level), np.zeros(3, int)) + hits
    for (kind, level), (both, found, true) in counts.items():
        yield {
            "op": "voice_activity",
            "detector": VAD,
            "noise": kind,
            "snr_db": level,
            "recall": round(both / true, 4),
            "precision": round(both / max(found, 1), 4),
            "speech_s": true / 100,
            "cpu_s_per_s": round(cost[0] / cost[1], 5),
        }


def spoken(shared: Path | None, short: bool) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    """(name, (the words, samples) of each of its sounds) of what is recognised."""
    if shared is not None:
        media = shared / "media"
        yield "jfk", [(JFK, _samples(media / "jfk.flac"))]
        track, samples = read_subtitle_track(media / "nasa_13013.mp4"), _samples(media / "nasa_13013.mp4")
        if track is not None:
            words = [word.text for word in track.words if word.end < len(samples) / RATE]
            yield "nasa", [(" ".join(words), samples)]
        novel = sorted((media / "speech").glob("austen_*.wav"))
        yield "austen", [(path.with_suffix(".txt").read_text(), _samples(path)) for path in novel]
    for narration in narrations(short):
        yield f"espeak {narration.name}", [(narration.text, narration.samples)]


def _samples(path: Path) -> np.ndarray:
    return np.concatenate([block for _, block in read_sound(path)])


def measure_recognition(shared: Path | None, recognisers: list[str], short: bool) -> Iterator[dict[str, Any]]:
    """Word errors and cost of each recogniser, by clip and noise: of all that it hears, believed or not."""
    for recogniser in map(make_recogniser, recognisers):
        for clip, sounds in spoken(shared, short):
            for noise, level in SPOKEN_OVER:
                heard, errors = [], WordErrors(0, 0, 0, 0)
                wall, cost, voice = 0.0, 0.0, 0.0
                for text, samples in sounds:
                    samples = samples if level is None else with_noise(samples, level, noise)
                    began = time.perf_counter(), _cpu_seconds()
                    stretches = list(voiced(samples, recogniser.longest))
                    found = [word for utterance in recogniser.recognise(stretches) for word in utterance.words]
                    wall, cost = wall + time.perf_counter() - began[0], cost + _cpu_seconds() - began[1]
                    voice += sum(len(stretch.samples) for stretch in stretches) / RATE
                    errors += word_errors(text, " ".join(word.text for word in found))
                    heard += found
                seconds = sum(len(samples) for _, samples in sounds) / RATE
                yield {
                    "op": "recognition",
                    "recogniser": recogniser.name,
                    "vad": VAD,
                    "clip": clip,
                    "noise": noise,
                    "snr_db": level,
                    "wer": round(errors.rate, 4),
                    "words": errors.words,
                    "confidence": round(float(np.mean([word.confidence for word in heard])), 4) if heard else None,
                    "heard": " ".join(word.text for word in heard),
                    "sound_s": round(seconds, 2),
                    "voiced_s": round(voice, 2),
                    "wall_s": round(wall, 2),
                    "cpu_s": round(cost, 2),
                    "real_time_factor": round(cost / seconds, 3),
                }


def measure_again(shared: Path | None, recognisers: list[str], short: bool) -> Iterator[dict[str, Any]]:
    """Sentences that might be quoted, heard once and heard again, and how many of them are what was said: all words
    but the articles, in order. By clip and noise."""
    for recogniser in map(make_recogniser, recognisers):
        for clip, sounds in spoken(shared, short):
            for noise, level in SPOKEN_OVER:
                once, again = [0, 0], [0, 0]  # sentences, and those of them that are true
                for text, samples in sounds:
                    samples = samples if level is None else with_noise(samples, level, noise)
                    with tempfile.TemporaryDirectory() as folder:
                        path = write_sound(Path(folder) / "speech.wav", samples)
                        said = transcribe(path, recogniser=recogniser)
                        spans, _ = spans_of(said, [], np.zeros(0), 1.0)
                        twice = heard_twice(said, spans, len(samples) / RATE)
                    for found, counts in ((spans, once), (twice, again)):
                        quoted = [span for span in found if span.score > 0]
                        counts[0] += len(quoted)
                        counts[1] += sum(repeats(span.text, text) for span in quoted)
                yield {
                    "op": "second_hearing",
                    "recogniser": recogniser.name,
                    "clip": clip,
                    "noise": noise,
                    "snr_db": level,
                    "once": once[0],
                    "once_true": once[1],
                    "again": again[0],
                    "again_true": again[1],
                }


def write_sound(path: Path, samples: np.ndarray) -> Path:
    """Samples at 16 kHz as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    given = parser(__doc__, "speech", shared=None)
    given.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    given.add_argument("--recognisers", nargs="+", default=["auto"], help="default: %(default)s")
    given.add_argument("--short", action="store_true", help="three sentences of two narrations")
    options: Any = given.parse_args()
    if "activity" in options.parts:
        keep(options.results, machine(PACKAGES), measure_activity(options.short))
    if "recognition" in options.parts:
        found = measure_recognition(options.shared, options.recognisers, options.short)
        keep(options.results, machine(PACKAGES), found)
    if "again" in options.parts:
        found = measure_again(options.shared, options.recognisers, options.short)
        keep(options.results, machine(PACKAGES), found)
    draw(DOCS / "speech.png", read(options.results))


if __name__ == "__main__":
    main()
