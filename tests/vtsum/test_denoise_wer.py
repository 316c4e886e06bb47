"""Word error rates against a plain Levenshtein table, normalisation, the guard, and times of new words."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.enhance.speech.denoise_times import retime, spread
from vtsum.enhance.speech.guard import judge, names_in
from vtsum.enhance.speech.transcript import Word
from vtsum.enhance.speech.wer import WordErrors, align, distance, normalise, number_words, word_error_rate, word_errors

few_letters = st.text("abc", max_size=9)


def levenshtein(one: str, other: str) -> int:
    """The textbook table, a cell at a time."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


@given(few_letters, few_letters)
def test_alignment_is_a_cheapest_one(one, other):
    pairs = align(one, other)
    assert [i for i, _ in pairs if i is not None] == list(range(len(one)))
    assert [j for _, j in pairs if j is not None] == list(range(len(other)))
    assert distance(one, other) == levenshtein(one, other)


@given(few_letters, few_letters)
def test_error_counts_add_up(one, other):
    found = word_errors(" ".join(one), " ".join(other))
    assert found.words == len(one)
    assert found.substitutions + found.deletions + found.insertions == levenshtein(one, other)
    assert found.insertions - found.deletions == len(other) - len(one)


def test_rates_of_known_texts():
    assert word_error_rate("the cat sat on the mat", "the cat sat on the mat") == 0
    assert word_error_rate("the cat sat on the mat", "the cat sat mat") == pytest.approx(2 / 6)
    assert word_error_rate("one", "one two three") == 2
    assert word_error_rate("", "") == 0
    assert word_error_rate("", "something") == float("inf")
    total = word_errors("a b", "a c") + word_errors("d", "")
    assert total == WordErrors(1, 1, 0, 3)
    assert total.rate == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well, I CAN'T go.", "well i can not go"),
        ("It\u2019s um [music] 25% uh <sil> fine", "it's twenty five percent fine"),
        ("in 1961 and 2005, the 1960s", "in nineteen sixty one and two thousand five the nineteen sixties"),
        ("$1,250.50 & 21st", "one thousand two hundred fifty point five zero dollars and twenty first"),
        ("a well-known café", "a well known café"),
        ("we won't, they've, I'm, you'll", "we will not they have i am you will"),
        ("call 0012345678901", "call zero zero one two three four five six seven eight nine zero one"),
        ("[NOISE] ... !", ""),
    ],
)  # fmt: skip
def test_normalisation(text, words):
    assert " ".join(normalise(text)) == words


def test_fillers_are_kept_when_asked_for():
    assert normalise("um, so", fillers=True) == ["um", "so"]


@given(st.integers(0, 999_999_999))
def test_number_words_read_back(value):
    ones = {number_words(n)[0]: n for n in range(20)} | {number_words(10 * t)[0]: 10 * t for t in range(2, 10)}
    units = {"million": 10**6, "thousand": 1000}
    total = part = 0
    for word in number_words(value):
        if word in units:
            total, part = total + part * units[word], 0
        else:
            part = part * 100 if word == "hundred" else part + ones[word]
    assert total + part == value


def test_years_are_read_in_pairs():
    assert " ".join(number_words(1905, year=True)) == "nineteen oh five"
    assert " ".join(number_words(1900, year=True)) == "nineteen hundred"
    assert " ".join(number_words(2024, year=True)) == "twenty twenty four"
    assert " ".join(number_words(2005, year=True)) == "two thousand five"


@pytest.mark.parametrize(
    ("heard", "rewritten", "reason"),
    [
        ("the the man uh goes to the shop", "The man goes to the shop.", ""),
        ("he has twenty five dogs and cats", "He has 25 dogs and cats.", ""),
        ("their are two dogs in the yard", "There are two dogs in the yard.", ""),
        ("we recieve a letter every day", "We receive a letter every day.", ""),
        ("", "", ""),
        ("he has five dogs at his home", "He has nine dogs at his home.", "numbers changed"),
        ("he is not at home today", "He is at home today.", "negations changed"),
        ("you can't park the car here", "You can park the car here.", "negations changed"),
        ("then he met Obama in the street", "Then he met Osama in the street.", "the name 'obama' changed"),
        ("then we met zelkova in the street", "Then we met him in the street.", "the name 'zelkova' changed"),
        ("Then we met a zelkova in the street.", "Then we met a man in the street.", ""),  # no name: it has no capital
        ("Zelkova is met in the street.", "He is met in the street.", "the name 'zelkova' changed"),
        ("they recieve it. Walk to the shop", "They receive it. Walks to the shop.", ""),
        ("then we met him in the street", "Then we met Peter in the street.", "the name 'peter' changed"),
        ("we go to the shop", "An entirely different sentence about whales appears.", "% of the words changed"),
        ("we go to the shop", "", "no words are left"),
    ],
)
def test_the_guard(heard, rewritten, reason):
    verdict = judge(heard, rewritten)
    assert verdict.accepted == (not reason)
    assert reason in verdict.reason


def test_a_stricter_guard_and_its_range():
    assert judge("a b c d", "a b c e", max_change=0.3).accepted
    assert not judge("a b c d", "a b c e", max_change=0.1).accepted
    with pytest.raises(ValueError, match=r"judge: max_change must be in 0\.\.1, got 2"):
        judge("a", "a", max_change=2)


def test_names_are_capitals_inside_sentences():
    text = "Then I met Anna at the station. She and (Bob) were late, and I'm sure that O'Neil left."
    assert names_in(text) == ["anna", "bob", "o'neil"]
    assert names_in("EVERYTHING IS WRITTEN LARGE HERE") == []


@st.composite
def heard_words(draw: st.DrawFn) -> list[Word]:
    at, words = 0.0, []
    for text in draw(st.lists(st.sampled_from(["a", "bb", "ccc", "d,"]), min_size=1, max_size=7)):
        start = at + draw(st.floats(0, 2))
        at = start + draw(st.floats(0, 1))
        words.append(Word(text, start, at, draw(st.floats(0, 1))))
    return words


@given(heard_words(), st.lists(st.sampled_from(["a", "bb", "ccc", "D", "eee"]), max_size=9))
def test_rewritten_words_keep_the_clock(heard, texts):
    words = retime(heard, texts)
    assert [w.text for w in words] == texts
    assert all(a.start <= b.start for a, b in itertools.pairwise(words))
    assert all(heard[0].start <= w.start <= w.end <= heard[-1].end + 1e-9 for w in words)


def test_times_of_words_that_stay_are_exact():
    heard = [Word("the", 1, 1.2, 0.9), Word("whole", 1.5, 2, 0.3), Word("is", 2.5, 2.6, 0.8), Word("deep", 3, 3.5, 0.7)]
    words = retime(heard, ["The", "hole", "is", "very", "deep."])
    assert words[0] == Word("The", 1, 1.2, 0.9)
    assert words[1] == Word("hole", 1.5, 2, 0.3)
    assert words[4] == Word("deep.", 3, 3.5, 0.7)
    assert (words[2].start, words[3].end) == (2.5, 2.6)  # "very" shares the time of "is"
    assert spread([], heard) == []
    with pytest.raises(ValueError, match="retime: heard must be at least one word"):
        retime([], ["a"])
