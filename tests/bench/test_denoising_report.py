"""The denoiser's tables, tallies and picture, from records made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.kit.tables import NOTHING
from bench.summary.denoising import Heard, Tally, level_of, measure, without_error
from bench.summary.tables.denoising import TABLES, clean, denoising, draw
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word

TEXT = "A man is in a room. He plays the guitar."


def record(noise: float | str | None, **changed: Any) -> dict[str, Any]:
    side = {"wer": 50.0, "reading_ease": 20.0, "words_a_sentence": 30.0, "sentence_break_f": 40.0}
    return {"topic": "captions", "noise": noise, "words": 9, "before": side, "after": side | changed}


def test_tables_show_the_newest_record_of_each_noise() -> None:
    lines = [
        record(10.0, wer=45.0),
        record(None, wer=30.0),
        record(10.0, wer=44.0),
        record("no error, confidence 0.7", wer=0.25),
    ]
    rows = denoising(lines).splitlines()[2:]
    assert [row.split("|")[2].strip() for row in rows] == ["none", "10 dB"]
    assert "50.0 → 30.0" in rows[0]
    assert "50.0 → 44.0" in rows[1]
    assert clean(lines).splitlines()[2:] == ["| captions, 9 words | 0.7 | 0.25 |"]
    assert denoising([]) == clean([]) == NOTHING
    assert set(TABLES) == {"denoising", "denoising_clean"}


def test_a_measurement_counts_errors_before_and_after() -> None:
    line = measure(without_error([TEXT], 0.9), "captions", "no error, confidence 0.9")
    assert line["words"] == 10
    assert line["before"]["wer"] == line["after"]["wer"] == 0
    assert line["after"]["sentence_break_f"] == 100 > line["before"]["sentence_break_f"]
    tally = Tally()
    tally.add(TEXT, "a man is in room he plays the guitar car")
    assert tally.line()["wer"] == pytest.approx(20)


def test_what_was_heard_is_kept(tmp_path: Path) -> None:
    given = Transcript((Utterance((Word("hi", 0.5, 1.0, 0.25),), (("high",),)),), "pocketsphinx", "en")
    first = Heard(tmp_path / "heard.jsonl", tmp_path, 1)
    assert first._heard(("captions", 10.0, 0), lambda: given) == given

    def never() -> Transcript:
        raise AssertionError("was heard before")

    assert Heard(tmp_path / "heard.jsonl", tmp_path, 1)._heard(("captions", 10.0, 0), never) == given
    assert (level_of("none"), level_of("5")) == (None, 5.0)


def test_the_picture_is_small(tmp_path: Path) -> None:
    lines = [record(None), record(10.0, wer=45.0), record(5.0, wer=48.0)]
    draw(tmp_path / "a.png", lines)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").stat().st_size < 200_000
