"""Words, utterances and transcripts: what they refuse, and pauses against a count in milliseconds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.enhance.speech import Transcript, Utterance, Word


def transcript(*times: tuple[float, float]) -> Transcript:
    return Transcript(tuple(Utterance((Word("so", a, b, 0.5),)) for a, b in times), "test", "en")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("", 0.0, 1.0, 1.0), "text must be one word"),
        (("two words", 0.0, 1.0, 1.0), "text must be one word without white space, got 'two words'"),
        (("so", 1.0, 0.5, 1.0), "0 <= start <= end, got 1.0, 0.5"),
        (("so", -0.1, 0.5, 1.0), "0 <= start <= end"),
        (("so", float("nan"), 0.5, 1.0), "0 <= start <= end"),
        (("so", 0.0, float("inf"), 1.0), "0 <= start <= end"),
        (("so", 0.0, 0.5, 1.5), "confidence must be in 0..1, got 1.5"),
        (("so", 0.0, 0.5, float("nan")), "confidence must be in 0..1"),
    ],
)
def test_a_word_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Word(*values)


def test_words_and_utterances_out_of_order_are_refused():
    late, early = Word("late", 2.0, 3.0, 1.0), Word("early", 1.0, 1.5, 1.0)
    with pytest.raises(ValueError, match=r"got 'late' at 2.0 before 'early' at 1.0"):
        Utterance((late, early))
    with pytest.raises(ValueError, match="at least one, got none"):
        Utterance(())
    with pytest.raises(ValueError, match=r"got one at 2.0 before one at 1.0"):
        Transcript((Utterance((late,)), Utterance((early,))), "test", None)


def test_text_and_times_are_those_of_the_words():
    first = Utterance((Word("Well,", 1.0, 3.0, 0.5), Word("yes.", 1.5, 2.0, 0.5)))
    said = Transcript((first, Utterance((Word("No.", 4.0, 4.5, 1.0),))), "test", None)
    assert (first.text, first.start, first.end) == ("Well, yes.", 1.0, 3.0)  # the longer word ends later
    assert said.text == "Well, yes.\nNo."
    assert [word.text for word in said.words] == ["Well,", "yes.", "No."]


def test_pauses_include_both_ends_and_leave_short_gaps_out():
    said = transcript((0.1, 1.0), (1.1, 2.0), (3.0, 4.0))
    assert said.pauses(10.0) == [(2.0, 3.0), (4.0, 10.0)]
    assert said.pauses(10.0, 0.05) == [(0.0, 0.1), (1.0, 1.1), (2.0, 3.0), (4.0, 10.0)]
    assert said.pauses(2.5) == [(2.0, 2.5)]  # words after the end of the video count for nothing
    assert transcript().pauses(3.0) == [(0.0, 3.0)]
    assert transcript().pauses(0.0) == []
    with pytest.raises(ValueError, match="duration must be finite and not negative, got -1"):
        said.pauses(-1.0)
    with pytest.raises(ValueError, match="shortest must be finite"):
        said.pauses(1.0, float("nan"))


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=12), st.integers(0, 320), st.integers(0, 40)
)
def test_pauses_are_the_runs_of_milliseconds_in_no_word(spans, duration, shortest):
    said = transcript(*sorted((a / 1000, (a + n) / 1000) for a, n in spans))
    # A word of no length still parts two pauses, at its instant: the oracle works on half milliseconds.
    silent = np.ones(2 * duration, bool)
    for a, n in spans:
        silent[2 * a : 2 * (a + n)] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(int)))
    cuts = {2 * a for a, n in spans if n == 0}
    runs = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        marks = [first, *sorted(c for c in cuts if first < c < last), last]
        runs += [(a / 2000, b / 2000) for a, b in pairwise(marks)]
    expected = [(a, b) for a, b in runs if b - a >= shortest / 1000 - 1e-9]
    assert np.allclose(said.pauses(duration / 1000, max(shortest / 1000 - 1e-9, 0)), expected)
