"""Sentences of a transcript: where they end, how they are written.

A recogniser gives lowercase words without stops. Where one sentence ends and the next begins is chosen over the whole
transcript by dynamic programming,

    argmax over ends e  of  sum over i in e of s(i) - sum over sentences of penalty(length)
    s(i) = bias + pause * min(gap(i), 1 s) + model * clip(log p(</s> | u v) + log p(w | <s>) - log p(w | u v), -4, 4)

with u v the words before gap i, w the one after, and p the trigram model of the lexicon; bias, pause and model are
set by hand: half a second of silence decides where the words are undecided, and three seconds decide anywhere. A text
that has stops already keeps them.

Source: Gotoh and Renals, "Sentence boundary detection in broadcast speech transcripts", 2000.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from vtsum.enhance.speech.lexicon import Lexicon, plain, word_set
from vtsum.enhance.speech.transcript import Word

STOPS = (".", "!", "?", "…", "。", "！", "？", "।")
BIAS, PAUSE_WEIGHT, MODEL_WEIGHT = -4.5, 9.0, 0.5
LONG_PAUSE = 3.0  # seconds that end any sentence
PAUSE_ALONE = 0.5  # seconds that end a sentence where the words tell nothing
SHORT, SHORT_PENALTY = 4, 2.0  # sentences of fewer words cost so much for each word that is missing
LONGEST = 45  # words
PAUSE_UNSTOPPED = 1.5  # seconds that end one in a text with stops, unless a comma stands before them
PUNCTUATED = 40  # words a stop at most in a text that counts as punctuated
_SURE = 60.0  # stands for certainty where stops are given
_CLOSING = "\"'”’»)]"
_ABBREVIATIONS = frozenset(
    {"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "etc.", "no.", "jr.", "sr."}
)
# Names that captions, written in small letters, do not teach; without those that are words too (may, march, polish).
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


def evidence(words: Sequence[str], i: int, lexicon: Lexicon) -> float:
    """Log odds by the words alone that a sentence ends after words[i], within -4..4; 0 beside unknown words."""
    ids = [lexicon.id(w) for w in (words[i - 1] if i else "", words[i], words[i + 1])]
    before, last, following = ids if i else (lexicon.start, *ids[1:])
    if lexicon.unknown in (last, following):
        return 0.0
    odds = (
        lexicon.log_p(before, last, lexicon.end)
        + lexicon.log_p(lexicon.start, lexicon.start, following)
        - lexicon.log_p(before, last, following)
    )
    return min(max(odds, -4.0), 4.0)


def _scores(words: Sequence[Word], lexicon: Lexicon | None) -> list[float]:
    """s(i) of each gap, and certainty after the last word."""
    if is_punctuated(words):
        ends = [ends_sentence(w.text) or _left_open(w, after) for w, after in pairwise(words)]
        return [*(_SURE if end else -_SURE for end in ends), _SURE]
    texts = [plain(w.text) for w in words]
    scores = []
    for i in range(len(words) - 1):
        silence = words[i + 1].start - words[i].end
        gap = min(max(silence, 0.0), 1.0)
        told = MODEL_WEIGHT * evidence(texts, i, lexicon) if lexicon else 0.0
        bias = BIAS if lexicon else -PAUSE_WEIGHT * PAUSE_ALONE
        sure = ends_sentence(words[i].text) or silence >= LONG_PAUSE
        scores.append(_SURE if sure else bias + PAUSE_WEIGHT * gap + told)
    return [*scores, _SURE]


def _left_open(word: Word, after: Word) -> bool:
    """Whether a pause ends what no stop does."""
    return after.start - word.end >= PAUSE_UNSTOPPED and not word.text.rstrip(_CLOSING).endswith((",", ";", ":", "-"))


def split_words(words: Sequence[Word], lexicon: Lexicon | None) -> list[tuple[Word, ...]]:
    """The words in sentences of at most `LONGEST` words, as the module's head says.

    Args:
        words: [N] in the order of their times; time N * LONGEST.
        lexicon: None where it cannot help (another language): pauses alone decide.
    """
    if not words:
        return []
    scores = _scores(words, lexicon)
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


def write_sentence(words: Sequence[Word], lexicon: Lexicon | None, *, cased: bool) -> tuple[Word, ...]:
    """The words with the capitals and the stop of a sentence.

    Args:
        words: of one sentence.
        lexicon: names are known from it; None leaves the words inside as they are.
        cased (bool): the text has capitals of its own, which are kept.
    """
    texts = [w.text for w in words]
    if lexicon and not cased:
        texts = [_inside(text, lexicon) for text in texts]
    texts[0] = _capital(texts[0])
    if not texts[-1].rstrip(_CLOSING).endswith(STOPS) and _has_case("".join(texts)):
        stop = "?" if lexicon and _asks([plain(t) for t in texts]) else "."
        bare = texts[-1].rstrip(",;:-–—")
        texts[-1] = (bare or texts[-1]) + stop
    return tuple(Word(text, w.start, w.end, w.confidence) for text, w in zip(texts, words, strict=True))


def is_cased(words: Sequence[Word]) -> bool:
    """True for text with capitals and small letters; False for a recogniser's small letters, or all capitals."""
    letters = [c for w in words for c in w.text if c.upper() != c.lower()]
    upper = sum(c.isupper() for c in letters)
    return 0 < upper < 0.8 * len(letters)


def _inside(text: str, lexicon: Lexicon) -> str:
    core = plain(text)
    written = core.capitalize() if core in _NAMES else lexicon.cased(core)
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
