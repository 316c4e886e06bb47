"""A second hearing: what is played again, and what becomes of a sentence that is heard otherwise."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.fakes import ColourModel
from vtsum.enhance.speech import Stretch, Transcript, Utterance, Word, transcribe
from vtsum.enhance.speech.again import heard_again, repeats
from vtsum.errors import VTSumError
from vtsum.summary.choosing import SECOND, Span, heard_twice

RATE = 16_000
TRUE = "The red boat leaves the harbour at noon."


class Pitch:
    """Says the pitch, to 10 Hz, and the length of each stretch."""

    name, longest, language = "pitch", 8.0, "en"
    doubtful, understood, telling = 0.0, 0.0, 0

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        for stretch in stretches:
            power = np.abs(np.fft.rfft(stretch.samples))
            pitch = np.argmax(power) * RATE / len(stretch.samples)
            said = (f"{10 * round(pitch / 10)}", f"{stretch.end - stretch.start:.2f}")
            yield Utterance(tuple(Word(text, stretch.start, stretch.end, 1.0) for text in said))


def test_each_stretch_is_played_a_tenth_faster(tmp_path: Path) -> None:
    time = np.arange(40 * RATE) / RATE
    pitch = 200.0 + 100 * (time // 5)  # another one every five seconds
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((8000 * np.sin(2 * np.pi * pitch * time)).astype(np.int16).tobytes())
    spans = [(0.1, 1.0), (5.5, 7.7), (6.0, 7.0), (20.0, 29.0), (31.0, 33.0), (39.0, 40.0)]
    heard = heard_again(tmp_path / "sound.wav", Pitch(), spans)
    assert [[word.text for word in words] for words in heard] == [
        ["220", "1.14"],  # from the very beginning
        ["330", "2.45"],
        ["330", "1.36"],
        [],  # longer than is listened to at once
        ["880", "2.27"],
        ["990", "1.14"],  # to the very end
    ]
    assert heard_again(tmp_path / "sound.wav", Pitch(), []) == []


@pytest.mark.parametrize(
    ("sentence", "again", "same"),
    [
        (TRUE, "the red boat leaves harbour, at noon", True),  # an article more or less
        (TRUE, "And: red boat leaves the harbour at noon. It", True),  # what is heard around it
        (TRUE, "the red goat leaves the harbour at noon", False),
        (TRUE, "the red boat leaves the harbour not at noon", False),
        (TRUE, "the red boat leaves the harbour after noon", False),
        (TRUE, "", False),
        ("It is 40 seconds.", "it is 14 seconds", False),
        ("Он уходит в полдень.", "он уходит в полдень", True),
        ("我们中午出发", "我们中午出发", True),
        ("我们中午出发", "我们早上出发", False),
    ],
)
def test_what_counts_as_the_same(sentence: str, again: str, same: bool) -> None:
    assert repeats(sentence, again) is same


def test_the_best_of_all_and_of_each_part_are_asked_for() -> None:
    asked: list[tuple[float, float]] = []

    def again(spans: Iterable[tuple[float, float]]) -> list[list[Word]]:
        asked.extend(spans)
        return [[Word("otherwise", 0, 1, 1.0)] if a % 2 else [Word("so", 0, 1, 1.0)] for a, _ in spans]

    spans = [Span("so", float(i), i + 1.0, 1.0, "heard", (i + 1) / 1000) for i in range(1000)]
    spans.append(Span("writing", 1000.0, 1001.0, 1.0, "read", 0.5))
    told = heard_twice(Transcript((), "x", "en", again=again), spans, 1001.0)
    assert len(asked) <= SECOND
    assert asked == sorted(asked)
    assert {int(a) for a, _ in asked} >= set(range(1000 - SECOND // 2, 1000)), "the best"
    assert len({int(a * (SECOND // 2) / 1001) for a, _ in asked}) == SECOND // 2, "and some everywhere"
    kept = {i for i, span in enumerate(told) if span.score > 0}
    assert kept == {1000} | {int(a) for a, _ in asked if a % 2 == 0}
    assert heard_twice(Transcript((), "talk.srt", "en"), spans, 1001.0) == spans, "a person wrote it"


def test_a_sentence_that_is_heard_otherwise_is_quoted_nowhere(tmp_path: Path) -> None:
    """In a video of two and a half minutes, with a title and chapters to be found."""

    class Says:
        name, longest, language = "says", 30.0, "en"
        doubtful, understood, telling = 0.0, 0.0, 0

        def __init__(self, text: str) -> None:
            self.text = text

        def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
            for stretch in stretches:
                if not self.text:
                    raise VTSumError("out of memory")
                yield utterance(self.text, stretch.start)

    def utterance(text: str, start: float) -> Utterance:
        return Utterance(
            tuple(Word(w, start + i * 0.4, start + i * 0.4 + 0.4, 0.9) for i, w in enumerate(text.split()))
        )

    clip = write_clip(
        tmp_path / "clip.mp4",
        list(range(150)),
        lambda number, time: np.full((32, 32, 3), 40 + 90 * (number // 75), np.uint8),
        rate=1,
        sound=tone(150, 48_000, 1, level=0.1),
    )
    for second, quoted in ((TRUE, True), (TRUE.replace("boat", "goat"), False), ("", False)):
        again = partial(heard_again, clip, Says(second))
        said = Transcript((utterance(TRUE, 10.0), utterance(TRUE, 100.0)), "says", "en", again=again)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vtsum.summary.listening.Listening._listen", lambda self, said=said: said)
            made = vtsum.summarize(clip, tmp_path / f"o{second[8:12]}", model=ColourModel(), budget="20s", ocr=False)
        text = made.files["txt"].read_text(encoding="utf-8")
        assert ("boat" in text) is quoted
        assert ("goat" in text) is False
        assert (made.data["title"]["origin"] == "heard") is quoted
        assert ("what was heard could not be heard again: out of memory" in text) is (not second)
        assert ("no sentence that was heard is sure enough to be quoted" in text) is not quoted
        assert made.data["speech"] is not None
        assert [u["words"][0]["text"] for u in made.data["speech"]["utterances"]] == ["The", "The"]


def test_a_transcript_is_heard_again_by_who_heard_it(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper")
    clip = write_clip(
        tmp_path / "clip.mp4",
        [0, 1],
        lambda number, time: np.zeros((32, 32, 3), np.uint8),
        rate=1,
        sound=tone(2, 48_000, 1, level=0.3),
    )
    said = transcribe(clip, recogniser=Pitch(), denoiser=lambda t: Transcript(t.utterances, t.source, t.language))
    assert said.again is not None
    assert [len(words) for words in said.again([(0.5, 1.5)])] == [2]
    assert transcribe(clip, transcript=said) is said
