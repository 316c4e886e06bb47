"""Word errors and readability of heard speech before and after the embedded denoiser.

    python -m bench.summary.denoising --shared ../shared [--videos 12] [--topics captions ...] [--heard heard.jsonl]

Texts are read by espeak-ng, mixed with noise, heard by PocketSphinx and denoised; and the texts themselves, without any
error, are denoised as if they had been heard at several confidences. One JSON line a topic and noise goes to
results/denoising.jsonl. Hearing takes nearly all of the time: what was heard is kept in the file of `--heard`, and not
heard again when it is there. docs/denoising.png is drawn from the newest records; `--topics` without one draws it
alone.
"""

from __future__ import annotations

import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, append, machine, read
from bench.summary.denoising_corpus import TEXTS, heard_rightly, narrations, paragraphs
from bench.summary.speech_corpus import JFK, PASSAGES, RATE, with_noise
from bench.summary.tables.denoising import draw
from vtsum.enhance.speech.denoise import denoise
from vtsum.enhance.speech.readability import readability, sentence_break_f
from vtsum.enhance.speech.recognisers.sphinx import PocketSphinx
from vtsum.enhance.speech.transcribe import transcribe
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.enhance.speech.wer import WordErrors, word_errors

NOISES: tuple[float | None, ...] = (None, 20.0, 10.0, 5.0)  # decibels of speech over white noise; None: no noise
TOPICS = ("captions", "other topics")
CONFIDENCES = (1.0, 0.9, 0.7, 0.5)


class Tally:
    """Errors and readability of several texts, before or after the denoiser."""

    def __init__(self) -> None:
        self.errors = WordErrors(0, 0, 0, 0)
        self.ease: list[float] = []
        self.length: list[float] = []
        self.breaks: list[float] = []

    def add(self, reference: str, heard: str) -> None:
        self.errors += word_errors(reference, heard)
        found = readability(heard)
        self.ease.append(found.ease)
        self.length.append(found.words_a_sentence)
        self.breaks.append(sentence_break_f(reference, heard))

    def line(self) -> dict[str, Any]:
        e = self.errors
        return {
            "wer": round(100 * e.rate, 2),
            "substitutions": e.substitutions,
            "deletions": e.deletions,
            "insertions": e.insertions,
            "reading_ease": round(float(np.mean(self.ease)), 1),
            "words_a_sentence": round(float(np.mean(self.length)), 1),
            "sentence_break_f": round(100 * float(np.mean(self.breaks)), 1),
        }


def hear(samples: np.ndarray) -> Transcript:
    """What PocketSphinx hears in samples at 16 kHz, not denoised; also words that `transcribe` would not believe."""
    recogniser = PocketSphinx()
    recogniser.doubtful, recogniser.understood, recogniser.telling = 0.0, 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        return transcribe(path, recogniser=recogniser, denoiser=None)


def measure(texts: Sequence[tuple[str, Transcript]], topic: str, noise: float | str | None) -> dict[str, Any]:
    """Denoise what was heard of each text, and count."""
    before, after = Tally(), Tally()
    began = time.perf_counter()
    cleaned = [denoise(heard) for _, heard in texts]
    seconds = time.perf_counter() - began
    for (reference, heard), clean in zip(texts, cleaned, strict=True):
        before.add(reference, heard.text)
        after.add(reference, clean.text)
    return {
        "op": "denoise",
        "topic": topic,
        "noise": noise,
        "texts": len(texts),
        "words": before.errors.words,
        "before": before.line(),
        "after": after.line(),
        "ms_a_word": round(1000 * seconds / max(before.errors.words, 1), 3),
    }


class Heard:
    """Transcripts of narrations, in a file of JSON lines so that an interrupted measurement goes on where it was."""

    def __init__(self, path: Path, shared: Path, videos: int) -> None:
        self.path, self.shared, self.videos = path, shared, videos
        self.known = {(r["topic"], r["noise"], r["index"]): r for r in read(path)}

    def topic(self, topic: str, noise: float | None) -> list[tuple[str, Transcript]]:
        """(text, transcript) of each narration of a topic with noise, heard now where it was not heard before."""
        found = []
        for i, narration in enumerate(narrations(self.shared, topic, self.videos)):
            samples = narration.samples if noise is None else with_noise(narration.samples, noise, "white", i)
            found.append((narration.text, self._heard((topic, noise, i), partial(hear, samples))))
        return found

    def jfk(self) -> list[tuple[str, Transcript]]:
        path = self.shared / "media" / "jfk.flac"
        listen = partial(transcribe, path, recogniser="pocketsphinx", denoiser=None)
        return [(JFK, self._heard(("jfk.flac", None, 0), listen))]

    def _heard(self, key: tuple[str, float | None, int], listen: Callable[[], Transcript]) -> Transcript:
        if key not in self.known:
            utterances = [
                {
                    "words": [(w.text, w.start, w.end, w.confidence) for w in u.words],
                    "alternatives": u.alternatives,
                }
                for u in listen().utterances
            ]
            line = {"topic": key[0], "noise": key[1], "index": key[2], "utterances": utterances}
            append(self.path, line)
            self.known[key] = line
        return Transcript(
            tuple(
                Utterance(tuple(Word(*w) for w in u["words"]), tuple(tuple(a) for a in u["alternatives"]))
                for u in self.known[key]["utterances"]
            ),
            "pocketsphinx",
            "en",
        )


def without_error(texts: Sequence[str], confidence: float) -> list[tuple[str, Transcript]]:
    return [(text, heard_rightly(text, confidence)) for text in texts]


def clean_topics(shared: Path, videos: int) -> dict[str, list[str]]:
    return {
        "captions": paragraphs(shared, "test_1.json.gz", 10 * videos),
        "other topics": [*TEXTS, *PASSAGES.values(), JFK],
    }


def level_of(text: str) -> float | None:
    return None if text == "none" else float(text)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser(__doc__, "denoising", shared=True)
    given.add_argument("--videos", type=int, default=12, help="texts of each topic")
    given.add_argument("--topics", nargs="*", default=[*TOPICS, "jfk", "clean"], choices=[*TOPICS, "jfk", "clean"])
    given.add_argument("--noises", nargs="+", default=list(NOISES), type=level_of, help="decibels, or none")
    given.add_argument("--heard", type=Path, default=Path("out/heard.jsonl"), help="what was heard is kept here")
    options = given.parse_args(arguments)
    jobs: list[tuple[str, float | str | None, Callable[[], list[tuple[str, Transcript]]]]] = []
    if "clean" in options.topics:
        for topic, texts in clean_topics(options.shared, options.videos).items():
            for sure in CONFIDENCES:
                jobs.append((topic, f"no error, confidence {sure:g}", partial(without_error, texts, sure)))
    heard = Heard(options.heard, options.shared, options.videos)
    if "jfk" in options.topics:
        jobs.append(("jfk.flac", None, heard.jfk))
    for topic in (t for t in TOPICS if t in options.topics):
        jobs += [(topic, level, partial(heard.topic, topic, level)) for level in options.noises]
    facts = machine(("numpy", "pocketsphinx"))
    keep(options.results, facts, (measure(make(), topic, noise) for topic, noise, make in jobs))
    draw(DOCS / "denoising.png", read(options.results))


if __name__ == "__main__":
    main()
