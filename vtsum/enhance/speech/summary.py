"""What tells a sentence's worth: how central it is to all that is said, and how salient its moment.

Source: Erkan and Radev, "LexRank: graph-based lexical centrality as salience in text summarization", 2004.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vtsum.enhance.speech.denoise_sentences import split_words
from vtsum.enhance.speech.plain_words import FUNCTION_WORDS, plain
from vtsum.enhance.speech.transcript import Transcript, Word

SALIENCY, CENTRALITY, CONFIDENCE = 1.0, 1.0, 0.5
FULL = 4  # words with a meaning of their own from which a sentence counts as full
SURE = 0.6  # confidence under which a word with a meaning of its own makes its sentence one that was not understood
FEWEST = 3  # words; what is shorter ("Yes." "This half") tells nothing by itself
_DAMPING, _STEPS = 0.85, 60
_COLUMNS = 1024  # of the tf-idf features: words share columns beyond it
_CELLS = 1 << 25  # of them all, 256 MB: from 32,768 sentences on there are fewer columns


def sentences_of(transcript: Transcript) -> list[tuple[Word, ...]]:
    """The transcript's sentences: by its stops if it has them, else by pauses."""
    return split_words(sorted(transcript.words, key=lambda w: w.start))


def topic_features(sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """tf-idf of each sentence's words, rows of length 1 (0 for one of function words only).

    A word counts 1 + log tf, times log(N / n) + 1 with n of the N sentences having it; the commonest of English
    count 0.
    """
    bags = [Counter(w for w in words if w and w not in FUNCTION_WORDS) for words in sentences]
    have = Counter(w for bag in bags for w in bag)
    width = min(max(len(have), 1), _COLUMNS, max(_CELLS // max(len(bags), 1), 16))
    column = {w: i % width for i, w in enumerate(have)}
    rows = np.zeros((len(bags), width))
    for i, bag in enumerate(bags):
        for w, times in bag.items():
            rows[i, column[w]] += (1 + math.log(times)) * (math.log(len(bags) / have[w]) + 1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def centrality(features: np.ndarray) -> np.ndarray:
    """[N] in 0..1: the stationary probabilities of a damped walk along the cosines of rows, divided by the greatest.

    A sentence does not lead to itself; one that is like no other leads anywhere.
    """
    count = len(features)
    if not count:
        return np.zeros(0)
    itself = (features**2).sum(1)
    degree = features @ features.sum(0) - itself
    linked = degree > 1e-9
    walk = np.full(count, 1 / count)
    for _ in range(_STEPS):
        # Through the features, N * C, not through the N * N cosines.
        share = np.divide(walk, degree, out=np.zeros(count), where=linked)
        moved = features @ (features.T @ share) - itself * share
        walk = (1 - _DAMPING) / count + _DAMPING * (moved + walk[~linked].sum() / count)
    return walk / walk.max()


def moment_saliency(spans: Sequence[tuple[float, float]], saliency: np.ndarray, fps: float) -> np.ndarray:
    """[N]: mean saliency of the frames sampled in each span, at least one; 0 without frames, NaN counts 0."""
    values = np.nan_to_num(np.asarray(saliency, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 1:
        raise ValueError(f"moment_saliency: saliency must be [T], got shape {values.shape}")
    if not len(values):
        return np.zeros(len(spans))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    found = []
    for start, end in spans:
        first = min(int(start * fps), len(values) - 1)
        last = min(max(math.ceil(end * fps), first + 1), len(values))
        found.append((sums[last] - sums[first]) / (last - first))
    return np.array(found)


def ranks(values: np.ndarray) -> np.ndarray:
    """0..1 by rank; equal values share their mean rank, so that constant saliency says nothing."""
    if len(values) < 2 or np.ptp(values) == 0:
        return np.full(len(values), 0.5)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - (counts + 1) / 2) / (len(values) - 1))[inverse]


def is_unsure(text: str, confidence: float) -> bool:
    """Whether a word heard with that confidence may make its sentence false: "the" and "of" hardly do."""
    return confidence < SURE and plain(text) not in FUNCTION_WORDS
