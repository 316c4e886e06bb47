"""Lines of the screen from readings of it: what becomes one, what is left out, what is quoted."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from vtsum.enhance.screen_text import ScreenLine, lines_of, quotations
from vtsum.enhance.speech.merge import merge_text
from vtsum.summary.choosing import Span

BOX = (0.1, 0.1, 0.5, 0.2)


def line(text: str, start: float, end: float, score: float = 0.99, top: float = 0.1, height: float = 0.1) -> ScreenLine:
    return ScreenLine(text, start, end, score, (0.1, top, 0.5, top + height), confirmed=True)


def test_readings_of_one_line_become_one() -> None:
    read = [line("Harb", 0, 1), line("Harbour at dawn", 2, 4), line("Harbour at davvn", 5, 7, score=0.95)]
    assert [(one.text, one.start, one.end) for one in lines_of(read, 60.0)] == [("Harbour at dawn", 0, 7)]
    numbered = [line("Results of week 12", 0, 4), line("Results of week 13", 5, 9)]
    assert [(one.text, one.end) for one in lines_of(numbered, 60.0)] == [(one.text, one.end) for one in numbered]
    again = [line("Harbour at dawn", 0, 1), line("Harbour at dawn", 30, 32)]
    assert [(one.start, one.end) for one in lines_of(again, 60.0)] == [(0, 1), (30, 32)]
    assert [one.text for one in lines_of([line("Sales rose", 0, 1), line("Costs fell", 0, 1, top=0.4)], 60.0)] == [
        "Sales rose",
        "Costs fell",
    ]


def test_of_readings_of_one_line_a_confirmed_one_stays() -> None:
    sure = line("Harbour at dawn", 5, 7, score=0.95)
    doubtful = replace(line("Harbour at davvn", 2, 4, score=0.99), confirmed=False)
    later = replace(doubtful, start=8, end=9)
    (found,) = lines_of([doubtful, sure, later], 60.0)
    assert (found.text, found.confirmed) == ("Harbour at dawn", True)
    whole = replace(line("Harbour at dawn in davvn", 5, 7), confirmed=False)  # what is confirmed is a part of it alone
    (found,) = lines_of([line("Harbour", 2, 4), whole], 60.0)
    assert (found.text, found.confirmed) == (whole.text, False)


def test_what_a_pointer_makes_of_letters_is_no_line() -> None:
    read = [line("point 2 of slide 2", 0, 9), line("point 2 of slidel", 10, 10), line("point 2 of slide 2", 11, 20)]
    assert [(one.text, one.start, one.end) for one in lines_of(read, 600.0)] == [("point 2 of slide 2", 0, 20)]
    elsewhere = replace(read[1], box=(0.1, 0.6, 0.5, 0.7))
    assert elsewhere.text in [one.text for one in lines_of([read[0], elsewhere, read[2]], 600.0)]


@pytest.mark.parametrize(
    "read",
    [
        [line("A", 1, 4)],
        [line("IV", 1, 4)],
        [line("12:30", 1, 4)],
        [line("Hello there", 1, 4, score=0.85)],
        [line(f"TC 01:00:{i:02}", i, i + 1) for i in range(5)],
        [line("VTV", 0, 50)],
        [line("VTV", 0, 20), line("VTV", 45, 59)],
        [line("past the end", 61, 62)],
    ],
)
def test_what_tells_nothing_is_left_out(read: list[ScreenLine]) -> None:
    assert lines_of(read, 60.0) == []


@pytest.mark.parametrize("text", ["城市", "東京駅", "Week 12"])
def test_two_signs_of_chinese_and_numbers_with_letters_stay(text: str) -> None:
    assert [one.text for one in lines_of([line(text, 1, 4)], 60.0)] == [text]


@pytest.mark.parametrize("text", ["Öl", "Go!"])
def test_words_of_two_letters_are_left_out(text: str) -> None:
    assert lines_of([line(text, 1, 4)], 60.0) == []


def test_the_lines_of_hours_are_told_apart_in_seconds() -> None:
    words = ["".join(np.random.default_rng(i).choice(list("abcdefghijklmnop"), 6)) for i in range(3000)]
    pages = [
        (12.0 * page, " ".join(words[(7 * page + 131 * row + i) % 3000] for i in range(5)), row / 10)
        for page in range(600)
        for row in range(8)
    ]
    read = [line(text, start, start + 12.0, top=top) for start, text, top in pages]
    read += [line("Channel Nine", start, start + 12.0, top=0.95) for start in range(0, 7200, 12)]
    begun = time.perf_counter()
    found = lines_of(read, 7200.0)
    assert time.perf_counter() - begun < 20.0  # all against all took minutes
    assert len(found) > 4000
    assert "Channel Nine" not in {one.text for one in found}


def test_letters_of_the_screen_are_cleaned() -> None:
    assert lines_of([line("a\u202eb\x1b[31m text", 1, 4)], 60.0)[0].text == "ab [31m text"


def test_quotations_are_the_largest_letters_and_not_what_is_said() -> None:
    page = [line("Budget report", 5, 9, top=0.1, height=0.2), line("page 3 of 12", 5, 9, top=0.9, height=0.03)]
    page += [line("Second quarter", 5.5, 9, top=0.4, height=0.15)]
    subtitle = line("we sold more boats", 20, 23, top=0.8)
    said = [(word, 20.5) for word in ["We", "sold", "more", "boats,", "too"]]
    (one,) = quotations([*page, subtitle], said)
    assert one.text == "On screen: \u201cBudget report\u201d, \u201cSecond quarter\u201d."
    assert (one.start, one.end) == (5, 9)
    assert [q.text for q in quotations([subtitle])] == ["On screen: \u201cwe sold more boats\u201d."]
    later = [(word, 40.0) for word, _ in said]
    assert len(quotations([subtitle], later)) == 1


def test_quotations_and_sentences_share_the_text() -> None:
    heard = [Span(f"Sentence {i}.", 10 * i, 10 * i + 2, 0.9, "heard", 0.5 + i / 100) for i in range(9)]
    quoted = quotations([line(f"Slide number {'abcdefghi'[i]}{i}", 10 * i + 5, 10 * i + 7) for i in range(9)])
    text = merge_text([], heard, 5, quotations=quoted, clips=[(3, 0.0, 6.0)])
    assert [s.origin for s in text].count("heard") == 3
    assert [s.origin for s in text].count("read") == 2
    assert [s.times[0][0] for s in text] == sorted(s.times[0][0] for s in text)
    alone = merge_text([], [], 5, quotations=quoted, clips=[(3, 0.0, 6.0)])
    assert len(alone) == 5
    assert next(s for s in alone if s.times[0][0] == 5).shots == (3,)
