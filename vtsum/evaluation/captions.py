"""BLEU, ROUGE-L and CIDEr of sentences, without Java: the arithmetic of the COCO caption evaluation.

All functions read sentences that were tokenized before: words with one space between them (see `vtsum.evaluation.java`
for the tokenizer of the published figures). They give what pycocoevalcap 1.2 gives on the same words.

Sources: Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L); Vedantam et al. 2015 (CIDEr-D).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vtsum.errors import VTSumError

ORDER = 4
"""Longest n-gram of BLEU and CIDEr."""
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0
# Keep quotients of zero counts defined, as the COCO evaluation does; part of its definition to the ninth digit.
_SMALL, _TINY = 1e-9, 1e-15

NGrams = Counter[tuple[str, ...]]


def plain_tokenize(text: str) -> str:
    """Lowercase words and numbers, punctuation removed: a stand-in for the PTB tokenizer that needs no Java.

    It splits "it's" and "3.5" otherwise, so figures on its words are not comparable with published ones.
    """
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower()))


def bleu_counts(candidate: str, references: Sequence[str]) -> np.ndarray:
    """What BLEU needs to know of one sentence: int64 [10]; sum them over sentences and give the sum to `bleu`.

    Returns:
        np.ndarray: words of the candidate, words of the reference nearest in length (the shorter of two), then for
        n = 1..4 the candidate's n-grams, then for n = 1..4 those of them found in a reference (each as often at most
        as in the reference that has it most often).
    """
    _check_references(references, "bleu_counts")
    words = len(candidate.split())
    lengths = [len(reference.split()) for reference in references]
    nearest = min(lengths, key=lambda length: (abs(length - words), length))
    allowed: NGrams = Counter()
    for reference in references:
        allowed |= _ngrams(reference)
    found = [0] * ORDER
    for ngram, count in (_ngrams(candidate) & allowed).items():
        found[len(ngram) - 1] += count
    made = [max(0, words - n) for n in range(ORDER)]
    return np.array([words, nearest, *made, *found], np.int64)


def bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU@4 (0..1) of summed `bleu_counts`: [..., 10] -> [...].

    Geometric mean of the four precisions times the brevity penalty exp(1 - reference / candidate length).
    """
    counts = np.asarray(counts, np.float64)
    made, found = counts[..., 2 : 2 + ORDER], counts[..., 2 + ORDER :]
    mean = np.prod((found + _TINY) / (made + _SMALL), axis=-1) ** (1 / ORDER)
    ratio = (counts[..., 0] + _TINY) / (counts[..., 1] + _SMALL)
    return np.asarray(mean * np.exp(np.minimum(0.0, 1 - 1 / ratio)))


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L (0..1): F of the longest common subsequence of words, recall weighing beta = 1.2 times as much.

    Precision and recall are each the best over the references. An empty sentence counts as one empty word.
    """
    _check_references(references, "rouge_l")
    words = candidate.split(" ")
    precision = recall = 0.0
    for reference in references:
        other = reference.split(" ")
        common = _common_subsequence(words, other)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(other))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each sentence, 0..10: float64 [N]; the corpus has their mean.

    Cosines of tf-idf vectors of 1- to 4-grams, clipped at the reference's weight, times a Gaussian (sigma 6) of the
    difference in length, averaged over n and references, times 10. An n-gram's document frequency is the number of
    videos whose references hold it (at least 1), the idf log(N) - log(df) with natural logarithms; the length is
    counted in bigrams. So a single video has CIDEr 0.

    Args:
        candidates: N sentences.
        references: one or more sentences for each.
    """
    if len(candidates) != len(references):
        raise VTSumError(
            f"cider: references must be as many as candidates, got {len(references)} and {len(candidates)}"
        )
    for some in references:
        _check_references(some, "cider")
    counted = [[_ngrams(reference) for reference in some] for some in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for own_references in counted:
        frequency.update({ngram for counts in own_references for ngram in counts})
    documents = math.log(len(candidates)) if candidates else 0.0
    scores = []
    for candidate, own_references in zip(candidates, counted, strict=True):
        own = _TfIdf(_ngrams(candidate), frequency, documents)
        values = [own.similarity(_TfIdf(counts, frequency, documents)) for counts in own_references]
        scores.append(10.0 * sum(values) / len(values))
    return np.array(scores, np.float64)


class _TfIdf:
    """Weights of a sentence's n-grams, their norms by n, and its length in bigrams."""

    def __init__(self, counts: NGrams, frequency: Counter[tuple[str, ...]], documents: float) -> None:
        self.weights = {
            ngram: count * (documents - math.log(max(1.0, frequency[ngram]))) for ngram, count in counts.items()
        }
        squares = [0.0] * ORDER
        for ngram, weight in self.weights.items():
            squares[len(ngram) - 1] += weight * weight
        self.norms = [math.sqrt(square) for square in squares]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(self, reference: _TfIdf) -> float:
        dots = [0.0] * ORDER
        for ngram, weight in self.weights.items():
            other = reference.weights.get(ngram, 0.0)
            dots[len(ngram) - 1] += min(weight, other) * other
        norms = [a * b for a, b in zip(self.norms, reference.norms, strict=True)]
        cosines = [dot / norm if norm else dot for dot, norm in zip(dots, norms, strict=True)]
        return sum(cosines) / ORDER * math.exp(-((self.length - reference.length) ** 2) / (2 * CIDER_SIGMA**2))


def _ngrams(sentence: str) -> NGrams:
    words = sentence.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1))


def _common_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b):
            above = row[j + 1]
            row[j + 1] = before + 1 if word == other else max(above, row[j])
            before = above
    return row[-1]


def _check_references(references: Sequence[str], function: str) -> None:
    if isinstance(references, str) or not references:
        raise VTSumError(f"{function}: references must be a list of one or more sentences, got {references!r}")
