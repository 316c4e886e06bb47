"""How well a transcript reads: Flesch's ease, sentence lengths, and whether sentences end where they should.

    ease = 206.835 - 1.015 * words / sentences - 84.6 * syllables / words

A transcript without sentence breaks is one sentence of a thousand words, and its ease far below zero; a transcript that
reads well has the ease of its topic, 60 to 90 for plain talk.

Source: Flesch, "A new readability yardstick", Journal of Applied Psychology 32, 1948. Syllables are counted by
groups of vowel letters, silent endings left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vtsum.enhance.speech.wer import FILLERS, align, normalise

_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]]*\s+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True)
class Readability:
    """What `readability` finds. `clutter` is the share of words that are fillers or repeat the word before."""

    ease: float
    words_a_sentence: float
    clutter: float
    sentences: int


def syllables(word: str) -> int:
    """Syllables of an English word, at least one."""
    plain = re.sub(r"[^a-z]", "", word.lower())
    if re.search(r"[^aeiouytd]ed$|[^aeiouyszxhgc]es$|[^aeiouy]e$", plain) and not re.search(r"[^aeiouy]les?$", plain):
        plain = re.sub(r"e[ds]?$", "", plain)  # walked, makes, home; but wanted, churches, table
    return max(len(re.findall(r"[aeiouy]+", plain)), 1)


def split_text(text: str) -> list[str]:
    """The sentences of a text: at stops followed by space, and nowhere else, for a recogniser's lines end anywhere."""
    return [s for s in _SENTENCE.split(text.strip()) if _WORD.search(s)]


def readability(text: str) -> Readability:
    """Measure a text.

    Returns:
        Readability: for a text without words an ease of 0 and no sentences.
    """
    sentences = split_text(text)
    words = [w for s in sentences for w in _WORD.findall(s)]
    if not words:
        return Readability(0.0, 0.0, 0.0, 0)
    length = len(words) / len(sentences)
    ease = 206.835 - 1.015 * length - 84.6 * sum(map(syllables, words)) / len(words)
    lower = [w.lower() for w in words]
    clutter = sum(w in FILLERS or (i > 0 and w == lower[i - 1]) for i, w in enumerate(lower))
    return Readability(ease, length, clutter / len(words), len(sentences))


def sentence_break_f(reference: str, heard: str) -> float:
    """F of the sentence ends: those of `heard` that are at sentence ends of `reference`, words aligned as for the WER.

    The end of the whole text counts too. 1 for two texts without words, 0 where only one has words.
    """
    (said, ends), (found, heard_ends) = (_words_and_ends(t) for t in (reference, heard))
    if not said or not found:
        return float(said == found)
    right = sum(i in ends and j in heard_ends for i, j in align(said, found) if i is not None and j is not None)
    return 2 * right / (len(ends) + len(heard_ends))


def _words_and_ends(text: str) -> tuple[list[str], set[int]]:
    words: list[str] = []
    ends: set[int] = set()
    for sentence in split_text(text):
        words += normalise(sentence)
        if words:
            ends.add(len(words) - 1)
    return words, ends
