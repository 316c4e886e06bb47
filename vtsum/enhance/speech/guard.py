"""Whether a rewriting of heard words may stand for them.

A text model asked to clean a transcript can also invent. Its words are taken only if they stay near those heard, and
never where figures, names or a "not" would change: these are what a reader cannot see to be wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vtsum.enhance.speech.denoise_words import without_repeats
from vtsum.enhance.speech.plain_words import FUNCTION_WORDS
from vtsum.enhance.speech.wer import NUMBER_WORDS, align, distance, normalise

MAX_CHANGE = 0.3
_NEGATIONS = frozenset({"not", "no", "never", "none", "nothing", "nobody", "nowhere", "neither", "nor", "without"})
_SENTENCE_ENDS = (".", "!", "?", "…")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]]*\s+")
_MISSPELT = 2  # letters that may differ between a word that may be a name and its mending


@dataclass(frozen=True)
class Verdict:
    """Whether a rewriting is accepted; if not, why; and how far it is from the words heard (0..1, or above)."""

    accepted: bool
    reason: str
    change: float


def judge(heard: str, rewritten: str, *, max_change: float = MAX_CHANGE) -> Verdict:
    """Accept a rewriting or refuse it.

        change = min(edits(words) / max(words), edits(letters) / max(letters))

    over normalised words, where fillers and words said twice do not count: taking them out is no change. Letters count
    too, for "there" in place of "their" is a smaller change than one word of four tells.

    Args:
        heard (str): what the recogniser gave.
        rewritten (str): what a text model made of it.
        max_change (float): the greatest change accepted, 0..1.
    Returns:
        Verdict: refused for nothing left, for the change, for figures, for names, or for a negation, in this order.
    Raises:
        ValueError: max_change not in 0..1.
    """
    if not 0.0 <= max_change <= 1.0:
        raise ValueError(f"judge: max_change must be in 0..1, got {max_change}")
    before, after = without_repeats(normalise(heard)), without_repeats(normalise(rewritten))
    if not after:
        return Verdict(not before, "" if not before else "no words are left", float(bool(before)))
    change = distance(before, after) / max(len(before), len(after))
    one, other = " ".join(before), " ".join(after)
    if change > max_change:  # letters are many; they are counted only where they can decide
        change = min(change, distance(one, other) / max(len(one), len(other)))
    if change > max_change:
        return Verdict(False, f"{change:.0%} of the words changed, more than {max_change:.0%}", change)
    for name, marks in (("numbers", NUMBER_WORDS), ("negations", _NEGATIONS)):
        if [w for w in before if w in marks] != [w for w in after if w in marks]:
            return Verdict(False, f"{name} changed", change)
    if wrong := _changed_names(heard, rewritten, before, after):
        return Verdict(False, f"the name {wrong} changed", change)
    return Verdict(True, "", change)


def names_in(text: str) -> list[str]:
    """Words with a capital where no sentence begins, in lowercase; "I" and text that is all capitals are no names."""
    found: list[str] = []
    begins = True
    words = text.split()
    if sum(w[:1].isupper() for w in words) * 2 > len(words) > 3:
        return []
    for word in words:
        bare = word.strip("\"'()[]“”‘’,.!?;:…-")
        if bare[:1].isupper() and not begins and bare != "I" and not bare.startswith(("I'", "I’")):
            found += normalise(bare)
        begins = word.rstrip("\"')”’").endswith(_SENTENCE_ENDS)
    return found


def _changed_names(heard: str, rewritten: str, before: Sequence[str], after: Sequence[str]) -> str:
    """The first name that is heard and not written, or written and not heard; "" if there is none.

    A word with a capital inside a sentence comes out as it was. Where capitals tell nothing, at the start of a sentence
    and in a text without capitals or small letters, any word but a function word may be a name: it comes out as it was
    or a slip of the pen away.
    """
    pairs = align(before, after)
    became = {i: after[j] for i, j in pairs if i is not None and j is not None}
    lost = Counter(before) - Counter(after)
    capital = set(names_in(heard))
    told = 0 < sum(c.isupper() for c in heard) < sum(c.islower() for c in heard)
    first = {word for sentence in _SENTENCE.split(heard) for word in normalise(sentence)[:1]}
    for i, word in enumerate(before):
        if not lost[word] or became.get(i) == word:
            continue
        mended = i in became and distance(word, became[i]) <= _MISSPELT
        if word in capital or ((word in first or not told) and word not in FUNCTION_WORDS and not mended):
            return repr(word)
    gained = set(after) - set(before)
    fresh = [w for w in names_in(rewritten) if w in gained]
    return repr(fresh[0]) if fresh else ""
