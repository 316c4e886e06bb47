"""Which sentences that were heard, and which lines that were read, make the text: extraction, nothing written anew.

    quality(i) = (saliency * rank(s(i)) + centrality * c(i) + confidence * p(i)) * weight(i), scaled to 0..1
    chosen one by one: the greatest  BALANCE * quality(i) - (1 - BALANCE) * max over the chosen j of cos(i, j)

with s, c and the cosines as in `vtsum.enhance.speech.summary`, over what is heard and read together. The weight is
below 1 for sentences of few words, for one that leans on another before it ("And then it ..."), and for small letters.

Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", 1998.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vtsum.enhance.screen_text.sentences import ScreenSentence
from vtsum.enhance.speech import Transcript, Word
from vtsum.enhance.speech.again import repeats
from vtsum.enhance.speech.denoise import is_english
from vtsum.enhance.speech.denoise_sentences import ends_sentence, is_punctuated
from vtsum.enhance.speech.denoise_words import tidy
from vtsum.enhance.speech.plain_words import FUNCTION_WORDS, plain, word_set
from vtsum.enhance.speech.summary import (
    CENTRALITY,
    CONFIDENCE,
    FEWEST,
    FULL,
    SALIENCY,
    centrality,
    is_unsure,
    moment_saliency,
    ranks,
    sentences_of,
    topic_features,
)
from vtsum.enhance.speech.transcript import joined, pieces
from vtsum.summary.about import WEIGHT, ranked

BALANCE = 0.7  # of quality against difference
ALIKE = 0.6  # the cosine from which one sentence repeats another
LEANS = 0.5  # weight of a sentence that leans on the one before it
SMALL_PRINT = 0.4  # weight of the smallest letters beside the largest
SECOND = 24  # sentences that are listened to a second time, at most
#: With these a sentence leans on the one before it.
LEANING = word_set(
    "and but so because or nor yet which then also it it's its they they're their them this that that's these those he "
    "he's she she's him her his there thus therefore otherwise instead"
)
#: What greets, thanks and asks for clicks tells nothing of a video.
PLEASANTRIES = word_set(
    "thank thanks welcome hello hi hey bye goodbye please subscribe like likes share comment comments channel everyone "
    "everybody guys folks friends okay ok yeah yes well alright right see next time watching listening video videos "
    "today tuned button bell notification morning evening afternoon good great back much everyone's cheers sorry"
)


@dataclass(frozen=True)
class Span:
    """A whole sentence that was heard, or lines that stand on the screen together, and when."""

    text: str
    start: float
    end: float
    confidence: float
    origin: Literal["heard", "read"]
    score: float  # 0..1: its quality beside the best; 0: it is not to be quoted


def spans_of(
    said: Transcript | None,
    quotations: Sequence[ScreenSentence],
    saliency: np.ndarray,
    fps: float,
    start: float = 0.0,
) -> tuple[list[Span], np.ndarray]:
    """All that may be quoted, in order of time, and its tf-idf rows [N, C] of length 1.

    Args:
        said: the transcript. quotations: of the screen.
        saliency (array): [T], of the frames sampled at `fps` a second. start (float): when the first of them is.
    """
    english = said is None or is_english(said)
    sentences = _whole_sentences(said, english) if said is not None else []
    found: list[tuple[str, float, float, float, Literal["heard", "read"], float]] = []
    for words in sentences:
        telling = sum(plain(w.text) not in FUNCTION_WORDS for w in words)
        weight = min(telling / FULL, 1.0) ** 2 * (LEANS if english and plain(words[0].text) in LEANING else 1.0)
        sure = float(np.mean([w.confidence for w in words]))
        text = joined(w.text for w in words)
        found.append((text, words[0].start, max(w.end for w in words), sure, "heard", weight))
    largest = max((q.score for q in quotations), default=1.0)
    for quotation in quotations:
        weight = SMALL_PRINT + (1 - SMALL_PRINT) * quotation.score / largest
        found.append((quotation.text, quotation.start, quotation.end, quotation.confidence, "read", weight))
    found.sort(key=lambda one: (one[1], one[4]))
    features = topic_features([[plain(word) for word in words_of(one[0])] for one in found])
    if not found:
        return [], features
    worth = (
        SALIENCY * ranks(moment_saliency([(max(one[1] - start, 0.0), one[2] - start) for one in found], saliency, fps))
        + CENTRALITY * centrality(features)
        + CONFIDENCE * np.array([one[3] for one in found])
    ) * np.array([one[5] for one in found])
    worth = worth / max(float(worth.max()), 1e-9)
    return [Span(*one[:5], score=float(w)) for one, w in zip(found, worth, strict=True)], features


def preferring(about: str | None, spans: Sequence[Span]) -> list[Span]:
    """The spans, those with a higher score that are about what the user asks for; what is not to be quoted stays so."""
    told = np.zeros(len(spans)) if about is None else ranked(about, [span.text for span in spans])
    if not told.any():
        return list(spans)
    return [
        replace(span, score=(1 - WEIGHT) * span.score + WEIGHT * float(more)) if span.score > 0 else span
        for span, more in zip(spans, told, strict=True)
    ]


def heard_twice(said: Transcript | None, spans: Sequence[Span], duration: float) -> list[Span]:
    """The spans, with a score of 0 where a recogniser heard one and does not hear it again.

    How: `vtsum.enhance.speech.again`. Asked is for `SECOND` of them at most, half of them the best, half the best of
    their part of the video; the others are not to be quoted either.
    """
    if said is None or said.again is None:
        return list(spans)
    by_score = sorted(
        (i for i, span in enumerate(spans) if span.origin == "heard" and span.score > 0), key=lambda i: -spans[i].score
    )
    asked = set(by_score[: SECOND // 2])
    parts = {int(spans[i].start / max(duration, 1e-9) * (SECOND // 2)): i for i in reversed(by_score) if i not in asked}
    order = sorted({*asked, *parts.values()})
    english = is_english(said)
    again = said.again([(spans[i].start, spans[i].end) for i in order])
    kept = {
        i
        for i, words in zip(order, again, strict=True)
        if repeats(spans[i].text, joined(w.text for w in tidy(words, english)))
    }
    return [span if span.origin == "read" or i in kept else replace(span, score=0.0) for i, span in enumerate(spans)]


def choose(spans: Sequence[Span], features: np.ndarray, limit: int) -> list[int]:
    """Indices of at most `limit` spans, rising; of what is heard and of what is read at least one where there is room
    for both."""
    quality = np.array([span.score for span in spans])
    origins = np.array([span.origin for span in spans])
    nearest = np.zeros(len(spans))  # the greatest cosine to one chosen
    chosen: list[int] = []
    while len(chosen) < limit:
        fit = (quality > 0) & (nearest < ALIKE)
        fit[chosen] = False
        missing = fit & ~np.isin(origins, origins[chosen])
        if len(chosen) == limit - 1 > 0 and missing.any():
            fit = missing
        if not fit.any():
            break
        best = int(np.argmax(np.where(fit, BALANCE * quality - (1 - BALANCE) * nearest, -np.inf)))
        chosen.append(best)
        # One column at a time: all cosines of a day's talk would not fit the memory.
        nearest = np.maximum(nearest, features @ features[best])
    return sorted(chosen)


def words_of(text: str) -> list[str]:
    """The words of a text, in any script (`vtsum.enhance.speech.transcript.pieces`)."""
    return [word for token in re.findall(r"[\w'’]+", text) for word in pieces(token)]


def _whole_sentences(said: Transcript, english: bool) -> list[list[Word]]:
    """The sentences of which every word is sure, without fillers; whole ones, if there are any."""
    punctuated = is_punctuated(sorted(said.words, key=lambda w: w.start))
    whole: list[list[Word]] = []
    parts: list[list[Word]] = []
    begins = True
    for sentence in sentences_of(said):
        ends = not punctuated or ends_sentence(sentence[-1].text)
        words = tidy(sentence, english)
        telling = {plain(w.text) for w in words} - FUNCTION_WORDS
        sure = not any(is_unsure(w.text, w.confidence) for w in words)
        if len(words) >= FEWEST and sure and not (english and telling <= PLEASANTRIES):
            (whole if begins and ends else parts).append(words)
        begins = ends
    return whole or parts
