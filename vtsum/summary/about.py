"""What of a video speaks of what the user asks about, by the words that are heard and read, and by pictures where the
model reads words.

Okapi BM25 over passages, each a sentence that was heard or a line on the screen (Robertson and Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond", 2009, with 1 added in the logarithm, as Lucene has it: a word of
every second passage does not count against it). Words are compared without the endings of English plurals (Harman 1991,
"How effective is suffixing?": the S stemmer); those that tell nothing of a topic do not count, nor do words that a
recogniser was not sure of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from vtsum.enhance.screen_text.lines import ScreenLine
from vtsum.enhance.speech.plain_words import FUNCTION_WORDS, plain
from vtsum.enhance.speech.summary import SURE
from vtsum.enhance.speech.transcript import Transcript, pieces
from vtsum.errors import VTSumError
from vtsum.protocols import Summarizer, WordReader

WEIGHT = 0.5  # of what is said and written, beside all else that a shot is worth
NEAR = 0.5  # of the way from the middle of all pictures to the one that fits best: nearer ones are told of
K1, B = (
    1.2,
    0.75,
)  # usual values: how soon a word's repetition stops to count, and how much a long passage is marked down
_WORD = re.compile(r"[\w'’]+")


@dataclass(frozen=True)
class Passage:
    """What is heard or read at a time. `words` as `terms` gives them."""

    start: float
    end: float
    words: tuple[str, ...]


def terms(text: str) -> list[str]:
    """The words of a text that tell of its topic, as they are compared."""
    words = (plain(word) for token in _WORD.findall(text) for word in pieces(token))
    return [_singular(word) for word in words if word and word not in FUNCTION_WORDS]


def passages(said: Transcript | None, screen: Sequence[ScreenLine]) -> list[Passage]:
    """All that was surely heard and read."""
    found = [
        Passage(u.start, u.end, tuple(terms(" ".join(w.text for w in u.words if w.confidence >= SURE))))
        for u in (said.utterances if said is not None else ())
    ]
    found += [Passage(line.start, line.end, tuple(terms(line.text))) for line in screen if line.confirmed]
    return [passage for passage in found if passage.words]


def ranked(text: str, sentences: Sequence[str]) -> np.ndarray:
    """How much each sentence is about a text, 1 for the best: float64 [N]; all 0 where none is."""
    return _bm25(terms(text), [terms(sentence) for sentence in sentences])


def relevance(text: str, found: Sequence[Passage], edges: np.ndarray) -> np.ndarray:
    """How much of what is heard and read at each frame is about a text, 1 for the best passage: float64 [T].

    Args:
        edges: [T + 1], seconds at which the turns of the frames begin, and the last one ends.
    """
    told = np.zeros(len(edges) - 1)
    for passage, score in zip(found, _bm25(terms(text), [passage.words for passage in found]), strict=True):
        first = int(np.searchsorted(edges, passage.start, side="right")) - 1
        last = int(np.searchsorted(edges, passage.end, side="left"))
        inside = slice(max(first, 0), max(last, first + 1))
        told[inside] = np.maximum(told[inside], score)
    return told


def fits(text: str, model: Summarizer, pictures: np.ndarray) -> np.ndarray | None:
    """How well each frame's picture fits a text: 1 for the best, 0 for half of them, float64 [T]; None where the model
    reads no words (`vtsum.protocols.WordReader`).

    How well the best one fits is not known: cosines of pictures and words lie close together, and each CLIP's
    elsewhere.

    Args:
        pictures: [T, C'], the model's `event_features`.
    Raises:
        VTSumError: the text's features cannot be compared with these.
    """
    if not getattr(model, "reads_words", False):
        return None
    words = cast(WordReader, model).text_features(text)
    if words.shape != pictures.shape[1:] or not np.isfinite(words).all():
        raise VTSumError(
            f"about: text_features of {model.name!r} must be {pictures.shape[1]} finite numbers, got {words!r:.80}"
        )
    x, y = pictures.astype(np.float64), words.astype(np.float64)
    cosines = x @ y / np.maximum(np.linalg.norm(x, axis=1) * np.linalg.norm(y), 1e-12)
    above = np.maximum(cosines - np.median(cosines), 0.0)
    return above / max(float(above.max()), 1e-12)


def _bm25(query: Sequence[str], documents: Sequence[Sequence[str]]) -> np.ndarray:
    """The score of each document beside the best one's, [N]; all 0 where no word of the query is found."""
    counts = [Counter(words) for words in documents]
    lengths = np.array([len(words) for words in documents], np.float64)
    mean = max(float(lengths.mean()), 1.0) if len(lengths) else 1.0  # one of nothing but function words has none
    scores = np.zeros(len(documents))
    for word in set(query):
        held = np.array([count[word] for count in counts], np.float64)
        holding = float((held > 0).sum())
        rarity = np.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        scores += rarity * held * (K1 + 1) / (held + K1 * (1 - B + B * lengths / mean))
    return scores / max(float(scores.max(initial=0.0)), 1e-12)


def _singular(word: str) -> str:
    word = word.removesuffix("'s")
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word if word.endswith(("aes", "ees", "oes")) else word[:-1]


def words_told(text: str, found: Sequence[Passage], start: float, end: float) -> Iterator[str]:
    """The words of a text, as the user wrote them, that are heard or read in a stretch."""
    heard = {word for passage in found if passage.start < end and passage.end > start for word in passage.words}
    seen = set()
    for token in _WORD.findall(text):
        own = terms(token)
        if own and token.lower() not in seen and heard.intersection(own):
            seen.add(token.lower())
            yield token
