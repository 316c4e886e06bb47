"""What the denoiser is measured on: captions it never saw, read aloud; other topics; texts without an error.

Captions of ActivityNet's validation videos serve to choose settings, those of its test videos to measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.summary.speech_corpus import PASSAGES, VOICES, Narration, read_aloud
from vtsum.data.activitynet import load_activitynet_captions
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.enhance.speech.wer import normalise

# Written for this measurement, on topics far from the captions'.
TEXTS = [
    "The committee will meet on Thursday to discuss the budget for the coming year. Nobody expects an easy decision. "
    "Last spring the members voted against a similar plan, and two of them left the room before the end.",
    "Electrons do not move around the nucleus like planets. Where they are can only be told with some probability. "
    "This is strange, but it explains why atoms do not fall together, and why metals conduct electricity.",
    "We knew that the storm would come before night. My brother closed the windows while I looked for candles. The "
    "power failed at nine o'clock. For three hours we listened to the wind and told each other old stories.",
    "A program is a list of instructions for a machine. It does what is written, not what was meant. Most mistakes "
    "are found quickly, but some of them wait for years until somebody types the wrong letter.",
    "My grandfather came to this country with one suitcase and twelve dollars. He found work in a bakery and learned "
    "the language from the newspaper. When he was fifty years old, he bought the bakery.",
    "The patient complained of pain in the left knee. There was no fever, and the blood was normal. We advised rest "
    "for two weeks and a cold bandage in the evening. After a month the pain had gone.",
]


def paragraphs(shared: Path, name: str, count: int) -> list[str]:
    """Captions of `count` videos, spread evenly over the file: each video's sentences as one text."""
    found = []
    for video in load_activitynet_captions(shared / "activitynet" / name):
        text = " ".join(s if s.endswith((".", "!", "?")) else f"{s}." for s in video.sentences)
        if len(video.sentences) >= 3 and re.fullmatch(r"[A-Za-z0-9 ,.'!?-]+", text) and len(text) < 400:
            found.append(text)
    return found[:: max(len(found) // count, 1)][:count]


def narrations(shared: Path, topic: str, count: int) -> Iterator[Narration]:
    """Texts of a topic, read aloud: "captions" and "other topics" to measure, each with ", chosen on" for settings."""
    if topic.startswith("other topics"):
        texts = TEXTS if topic.endswith("chosen on") else list(PASSAGES.values())
    else:
        texts = paragraphs(shared, "val_1.json.gz" if topic.endswith("chosen on") else "test_1.json.gz", count)
    for i, text in enumerate(texts[:count]):
        voice, speed = VOICES[i % len(VOICES)]
        lines = re.split(r"(?<=[.!?]) +", text)
        yield read_aloud(f"text {i}", lines, voice, speed, np.random.default_rng(i), (0.4, 1.2), 0.5)


def heard_rightly(text: str, confidence: float) -> Transcript:
    """The text as a recogniser without a fault would give it: small letters, no stops, pauses after sentences."""
    at, utterances = 0.0, []
    for sentence in re.split(r"(?<=[.!?]) +", text):
        words = []
        for word in normalise(sentence):
            words.append(Word(word, at, at + 0.06 * len(word), confidence))
            at += 0.06 * len(word) + 0.05
        if words:
            utterances.append(Utterance(tuple(words)))
        at += 0.5
    return Transcript(tuple(utterances), "pocketsphinx", "en")
