"""Words that were said and add nothing: fillers, words begun twice, and loops of a recogniser that lost its way."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from vtsum.enhance.speech.plain_words import plain, word_set
from vtsum.enhance.speech.transcript import Word
from vtsum.enhance.speech.wer import FILLERS

_NOTE = re.compile(r"\[[^\[\]]*\]|<[^<>]*>|\+\+\w+\+\+")
_VARIANT = re.compile(r"\(\d+\)$")  # a dictionary's mark of another pronunciation: read(2)

# Words that a speaker says twice only by mistake. Others ("very very", "no no", "had had", "that that") may be meant.
STUTTERED = word_set(
    "a an the and or but if of to in on at by for from with as is are was were be been being have has do does did will "
    "would can could should i we he she they it you my your our his her their its this these those there what when "
    "where who why which how i'm it's he's she's we're they're you're that's there's"
)
_MEANT = frozenset({"and", "by", "after", "to", "upon", "over"})  # again and again and again, step by step by step
MAX_PHRASE = 4  # words of a phrase said twice that count as a slip
MAX_LOOP = 12  # words of a phrase said three times or more: the loop of a recogniser
_SLIP_GAP = 0.7  # seconds: what comes again after a longer pause is said again on purpose


def without_repeats(words: Sequence[str]) -> list[str]:
    """The words without those begun twice; see `kept`."""
    return [words[i] for i in kept(words)]


def kept(words: Sequence[str], gaps: Sequence[float] | None = None) -> list[int]:
    """Which words stay when slips of the tongue go.

    A slip is a word of `STUTTERED`, or a phrase of two to `MAX_PHRASE` words that begins with one, said again at
    once; and any phrase of three to `MAX_LOOP` words said three times or more in a row. The last saying stays: it is
    the one that goes on.

    Args:
        words: plain lowercase words.
        gaps: seconds between each word and the next, one fewer than the words; None: no pauses.
    Returns:
        list[int]: indices of the words that stay, ascending.
    """
    stays = list(range(len(words)))
    i = 0
    while i < len(stays):
        length, times = _repeat_at(words, stays, i)
        drop = length * (times - 1)
        if drop and (gaps is None or max(gaps[stays[i + length - 1] : stays[i + length]]) <= _SLIP_GAP):
            del stays[i : i + drop]
            i = max(i - MAX_PHRASE, 0)  # what is now side by side may be a repeat in turn
        else:
            i += 1
    return stays


def _repeat_at(words: Sequence[str], stays: Sequence[int], at: int) -> tuple[int, int]:
    """The length of the slip that begins with the word `stays[at]`, and how often it is said; (0, 1) for none."""
    row = [words[k] for k in stays[at : at + 2 * MAX_LOOP]]
    for length in range(len(row) // 2, 0, -1):
        phrase = row[:length]
        if row[length : 2 * length] != phrase:
            continue
        times = 2
        while [words[k] for k in stays[at + times * length : at + (times + 1) * length]] == phrase:
            times += 1
        slip = phrase[0] in STUTTERED and (
            length == 1 or (length <= MAX_PHRASE and not _MEANT & {phrase[0], phrase[-1]})
        )
        if slip or (length >= 3 and times >= 3):
            return length, times
    return 0, 1


def tidy(words: Sequence[Word], english: bool = True) -> list[Word]:
    """The words without a recogniser's notes ([NOISE], <sil>, read(2)) and, in English, without fillers and slips.

    Args:
        words: in the order of their times.
        english (bool): False leaves all but the notes: "um" and "er" are words in other languages.
    Returns:
        list[Word]: with their own times.
    """
    bare = [(word, _VARIANT.sub("", _NOTE.sub("", word.text))) for word in words]
    found = [w if text == w.text else Word(text, w.start, w.end, w.confidence) for w, text in bare if text]
    if not english:
        return found
    texts = [plain(word.text) for word in found]
    found = [word for word, text in zip(found, texts, strict=True) if text not in FILLERS]
    # Punctuation within a phrase said twice ("So, so") is a writer's: it was meant.
    texts = [plain(w.text) if w.text[-1].isalnum() or w.text[-1] == "'" else w.text.lower() for w in found]
    gaps = [max(b.start - a.end, 0.0) for a, b in itertools.pairwise(found)]
    return [found[i] for i in kept(texts, gaps)]
