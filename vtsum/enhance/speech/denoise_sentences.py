"""Sentences of a transcript: where they end, how they are written.

A text that has stops keeps them, as Whisper writes them. Where a recogniser gives lowercase words without any, one
sentence ends and the next begins at pauses, chosen over the whole transcript by dynamic programming,

    argmax over ends e  of  sum over i in e of s(i) - sum over sentences of penalty(length)
    s(i) = pause * (min(gap(i), 1 s) - 0.5 s)

so that half a second of silence ends a sentence that is not too short, and three seconds end any.

Source: Gotoh and Renals, "Sentence boundary detection in broadcast speech transcripts", 2000, pauses alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from vtsum.enhance.speech.plain_words import plain, word_set
from vtsum.enhance.speech.transcript import Word

STOPS = (".", "!", "?", "…", "。", "！", "？", "।")
PAUSE_WEIGHT = 9.0  # a second
PAUSE = 0.5  # seconds that end a sentence
LONG_PAUSE = 3.0  # seconds that end any sentence
SHORT, SHORT_PENALTY = 4, 2.0  # sentences of fewer words cost so much for each word that is missing
LONGEST = 45  # words
PAUSE_UNSTOPPED = 1.5  # seconds that end one in a text with stops; LONG_PAUSE where a comma stands before them
PUNCTUATED = 40  # words a stop at most in a text that counts as punctuated
_SURE = 60.0  # stands for certainty where stops are given
_CLOSING = "\"'”’»)]"
_ABBREVIATIONS = frozenset(
    {"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "etc.", "no.", "jr.", "sr."}
)
# Names that a text without capitals may have; without those that are words too (may, march, polish).
_NAMES = word_set(
    "africa america american americans april asia august australia berlin brazil brazilian britain california "
    "canada canadian chinese christmas december dutch easter england english europe european february france french "
    "friday german germany god greek india indian irish italian italy january japan japanese jesus july june london "
    "mexican mexico monday november october paris russia russian saturday september spain spanish sunday swedish "
    "texas thursday tuesday washington wednesday york"
)
_QUESTIONS = frozenset({"what", "who", "whom", "whose", "where", "when", "why", "how", "which"})
_AUXILIARY = word_set(
    "is are was were am do does did can could will would should shall may might has have had isn't aren't wasn't "
    "weren't don't doesn't didn't can't couldn't won't wouldn't shouldn't hasn't haven't what's who's where's"
)
_SUBJECTS = word_set("i you he she it we they this that these those there the")


def ends_sentence(text: str) -> bool:
    """True for a word whose punctuation ends a sentence; "Mr." and "J." do not."""
    bare = text.rstrip(_CLOSING)
    if not bare.endswith(STOPS):
        return False
    return not (bare.lower() in _ABBREVIATIONS or re.fullmatch(r"(?:[A-Z]\.)+", bare))


def is_punctuated(words: Sequence[Word]) -> bool:
    """True if the text has its own stops, at least one in `PUNCTUATED` words."""
    return sum(ends_sentence(w.text) for w in words) * PUNCTUATED >= max(len(words), 1)


def _scores(words: Sequence[Word]) -> list[float]:
    """s(i) of each gap, and certainty after the last word."""
    if is_punctuated(words):
        ends = [ends_sentence(w.text) or _left_open(w, after) for w, after in pairwise(words)]
        return [*(_SURE if end else -_SURE for end in ends), _SURE]
    scores = []
    for word, after in pairwise(words):
        silence = after.start - word.end
        sure = ends_sentence(word.text) or silence >= LONG_PAUSE
        scores.append(_SURE if sure else PAUSE_WEIGHT * (min(max(silence, 0.0), 1.0) - PAUSE))
    return [*scores, _SURE]


def _left_open(word: Word, after: Word) -> bool:
    """Whether a pause ends what no stop does."""
    silence = after.start - word.end
    goes_on = word.text.rstrip(_CLOSING).endswith((",", ";", ":", "-"))
    return silence >= (LONG_PAUSE if goes_on else PAUSE_UNSTOPPED)


def split_words(words: Sequence[Word]) -> list[tuple[Word, ...]]:
    """The words in sentences of at most `LONGEST` words, as the module's head says.

    Args:
        words: [N] in the order of their times; time N * LONGEST.
    """
    if not words:
        return []
    scores = _scores(words)
    best, came = [0.0], [0]
    for end in range(1, len(words) + 1):
        options = range(max(end - LONGEST, 0), end)
        values = [best[k] - max(SHORT - (end - k), 0) * SHORT_PENALTY for k in options]
        top = max(range(len(values)), key=values.__getitem__)
        best.append(values[top] + scores[end - 1])
        came.append(options[top])
    cuts, at = [], len(words)
    while at:
        cuts.append((came[at], at))
        at = came[at]
    return [tuple(words[a:b]) for a, b in reversed(cuts)]


def write_sentence(words: Sequence[Word], *, english: bool, cased: bool) -> tuple[Word, ...]:
    """The words with the capitals and the stop of a sentence.

    Args:
        words: of one sentence.
        english (bool): False leaves the words inside as they are, and asks nothing.
        cased (bool): the text has capitals of its own, which are kept.
    """
    texts = [w.text for w in words]
    if english and not cased:
        texts = [_inside(text) for text in texts]
    texts[0] = _capital(texts[0])
    if not texts[-1].rstrip(_CLOSING).endswith(STOPS) and _has_case("".join(texts)):
        stop = "?" if english and _asks([plain(t) for t in texts]) else "."
        bare = texts[-1].rstrip(",;:-–—")
        texts[-1] = (bare or texts[-1]) + stop
    return tuple(Word(text, w.start, w.end, w.confidence) for text, w in zip(texts, words, strict=True))


def is_cased(words: Sequence[Word]) -> bool:
    """True for text with capitals and small letters; False for a recogniser's small letters, or all capitals."""
    letters = [c for w in words for c in w.text if c.upper() != c.lower()]
    upper = sum(c.isupper() for c in letters)
    return 0 < upper < 0.8 * len(letters)


def _inside(text: str) -> str:
    core = plain(text)
    written = core.capitalize() if core in _NAMES else core
    if core == "i" or core.startswith("i'"):
        written = "I" + core[1:]
    at = text.lower().replace("’", "'").find(core)
    return text[:at] + written + text[at + len(core) :] if core and at >= 0 else text


def _capital(text: str) -> str:
    """The first letter as a capital, unless the word has capitals of its own (iPhone)."""
    for i, c in enumerate(text):
        if c.isalnum():
            return text if any(d.isupper() for d in text) else text[:i] + c.upper() + text[i + 1 :]
    return text


def _has_case(text: str) -> bool:
    return any(c.upper() != c.lower() for c in text)


def _asks(words: Sequence[str]) -> bool:
    """True for a sentence that begins like a question: is he ..., what did ..., how are ..."""
    if len(words) < 3:
        return False
    if words[0] in _QUESTIONS:
        return words[1] in _AUXILIARY
    return words[0] in _AUXILIARY and words[1] in _SUBJECTS
