"""How far a transcript is from what was said, and how well it reads.

    WER = (S + D + I) / N

with the least number of words replaced (S), left out (D) and added (I) that turn the N words of the reference into
those heard. Both texts are normalised first: case, punctuation, fillers and notes in brackets do not count, "25" is
"twenty five" and "can't" is "can not".

Source: Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966; the normalisation
follows the habits of Radford et al., "Robust speech recognition via large-scale weak supervision", 2023, appendix C.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FILLERS = frozenset({"uh", "um", "uhm", "umm", "uhh", "er", "erm", "eh", "hm", "hmm", "hmmm", "mm", "mhm", "mmm", "ah"})

_NOTES = re.compile(r"\[[^\[\]\n]*\]|<[^<>\n]*>|\+\+\w+\+\+|\(\d+\)")
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_FIGURE = re.compile(r"(?<![\w.])[$£€]?\d+(?:,\d{3}){0,5}(?:\.\d+)?(?:st|nd|rd|th|s|%)?(?![\w])")
_ENDINGS = {"n't": "not", "'ll": "will", "'re": "are", "'ve": "have", "'m": "am"}
_IRREGULAR = {"won't": "will not", "can't": "can not", "cannot": "can not", "shan't": "shall not", "let's": "let us"}
_TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += _TEENS
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_MONEY = {"$": "dollars", "£": "pounds", "€": "euros"}
NUMBER_WORDS = frozenset(
    [*_ONES, *_TENS, "hundred", "thousand", "million", "billion", "half", "dozen"]
    + [*_ORDINALS.values(), "fourth", "sixth", "seventh", "tenth", "eleventh", "hundredth", "thousandth"]
    + [f"{teen}th" for teen in _TEENS]
    + [f"{ten[:-1]}ieth" for ten in _TENS]
)


def number_words(value: int, *, year: bool = False) -> list[str]:
    """A whole number in English words: 125 is one hundred twenty five. As a year, 1961 is nineteen sixty one."""
    if value < 20:
        return [_ONES[value]]
    if value < 100:
        return [_TENS[value // 10 - 2]] + ([_ONES[value % 10]] if value % 10 else [])
    if year and (1100 <= value < 2000 or 2010 <= value < 2100):
        rest = [] if value % 100 else ["hundred"]
        if value % 100:
            rest = (["oh"] if value % 100 < 10 else []) + number_words(value % 100)
        return number_words(value // 100) + rest
    for unit, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= unit:
            return number_words(value // unit) + [name] + (number_words(value % unit) if value % unit else [])
    raise AssertionError("unreachable")


def _spell(match: re.Match[str]) -> str:
    figure = match.group(0)
    money = _MONEY.get(figure[0], "")
    ending = re.search(r"(st|nd|rd|th|s|%)$", figure)
    whole, _, fraction = figure.strip("$£€%stndrh").replace(",", "").partition(".")
    # A telephone number or an id is read digit by digit.
    year = len(whole) == 4 and not (money or fraction or "," in figure)
    words = [_ONES[int(d)] for d in whole] if len(whole) > 12 else number_words(int(whole), year=year)
    if fraction:
        words += ["point", *(_ONES[int(d)] for d in fraction)]
    if ending and ending.group() in ("st", "nd", "rd", "th"):
        last = words[-1]
        words[-1] = _ORDINALS.get(last, f"{last[:-1]}ieth" if last.endswith("ty") else f"{last}th")
    elif ending and ending.group() == "s":
        words[-1] = f"{words[-1][:-1]}ies" if words[-1].endswith("y") else f"{words[-1]}s"
    elif ending:
        words.append("percent")
    return f" {' '.join(words)} {money} "


def normalise(text: str, *, fillers: bool = False) -> list[str]:
    """The words of a text as word error rates compare them.

    Args:
        text: anything.
        fillers (bool): keep um, uh and the like.
    Returns:
        list[str]: lowercase words without punctuation.
    """
    plain = _NOTES.sub(" ", text.replace("’", "'").replace("ʼ", "'").lower())
    plain = _FIGURE.sub(_spell, plain).replace("&", " and ").replace("%", " percent ")
    words: list[str] = []
    for word in _TOKEN.findall(plain):
        if word in _IRREGULAR:
            words += _IRREGULAR[word].split()
            continue
        for ending, full in _ENDINGS.items():
            if word.endswith(ending) and len(word) > len(ending):
                words += [word[: -len(ending)], full]
                break
        else:
            if fillers or word not in FILLERS:
                words.append(word)
    return words


def align(one: Sequence[str], other: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """A cheapest way to turn one sequence into another, replacing, leaving out and adding at a price of one each.

    Args:
        one, other: [N] and [M] words (or letters). Time N * M / 10^8 seconds or so, memory N * M bytes.
    Returns:
        list[tuple[int | None, int | None]]: in order; (i, j) where one[i] became other[j], (i, None) where it was left
            out, (None, j) where other[j] was added. Among equal prices replacing comes before the others.
    """
    n, m = len(one), len(other)
    first = 0
    while first < min(n, m) and one[first] == other[first]:
        first += 1
    last = 0
    while last < min(n, m) - first and one[n - 1 - last] == other[m - 1 - last]:
        last += 1
    a, b = one[first : n - last], other[first : m - last]
    ids = {word: i for i, word in enumerate(dict.fromkeys([*a, *b]))}
    target = np.array([ids[w] for w in b], np.int64)
    column = np.arange(len(b) + 1)
    row = column.copy()
    # How each cell was reached: 0 from the diagonal, 1 from above (left out), 2 from the left (added).
    how = np.full((len(a) + 1, len(b) + 1), 2, np.uint8)
    how[1:, 0] = 1
    for i, word in enumerate(a, 1):
        diagonal = row[:-1] + (target != ids[word])
        above = row[1:] + 1
        reached = np.concatenate(([i], np.minimum(diagonal, above)))
        # Adding words: the least over k <= j of reached[k] + (j - k), for all j at once.
        new = np.minimum.accumulate(reached - column) + column
        how[i, 1:] = np.where(new[1:] == diagonal, 0, np.where(new[1:] == above, 1, 2))
        row = new
    pairs: list[tuple[int | None, int | None]] = [(n - 1 - k, m - 1 - k) for k in range(last)]
    i, j = len(a), len(b)
    while i or j:
        step = int(how[i, j])
        i, j = i - (step != 2), j - (step != 1)
        pairs.append((None if step == 2 else first + i, None if step == 1 else first + j))
    pairs += [(k, k) for k in reversed(range(first))]
    return pairs[::-1]


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """The least number of replaced, left out and added items (Levenshtein's distance)."""
    return sum(i is None or j is None or one[i] != other[j] for i, j in align(one, other))


@dataclass(frozen=True)
class WordErrors:
    """Words replaced, left out and added, of `words` in the reference."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def rate(self) -> float:
        """WER; 0 for two empty texts, infinite where something was heard and nothing said."""
        errors = self.substitutions + self.deletions + self.insertions
        return errors / self.words if self.words else (0.0 if not errors else float("inf"))

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


def word_errors(reference: str, heard: str) -> WordErrors:
    """The errors in what was heard, counted over normalised words; add them up over several texts for a corpus."""
    said, found = normalise(reference), normalise(heard)
    pairs = align(said, found)
    return WordErrors(
        sum(i is not None and j is not None and said[i] != found[j] for i, j in pairs),
        sum(j is None for _, j in pairs),
        sum(i is None for i, _ in pairs),
        len(said),
    )


def word_error_rate(reference: str, heard: str) -> float:
    """WER, 0 for no error; may exceed 1. See the module's head; `word_errors` gives the counts."""
    return word_errors(reference, heard).rate
