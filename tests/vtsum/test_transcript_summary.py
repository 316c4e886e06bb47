"""Summaries of transcripts, and one text of what is seen and heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vtsum.enhance.speech.merge import merge_text
from vtsum.enhance.speech.summary import (
    centrality,
    moment_saliency,
    sentences_of,
    topic_features,
)
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.summary.choosing import Span, choose, spans_of

TALK = [
    "Today we repair the back wheel of a bicycle.",
    "Turn the bicycle over so that it stands on the seat.",
    "Loosen the nuts that hold the wheel of the bicycle.",
    "Thank you.",
    "My neighbour has a parrot that sings in the morning.",
    "Today we repair the back wheel of a bicycle.",
    "Press the patch on the hole in the rubber tube.",
]


def talk(sentences: list[str] = TALK) -> Transcript:
    """Ten seconds a sentence."""
    found = []
    for i, text in enumerate(sentences):
        words = text.split()
        found.append(Utterance(tuple(Word(w, 10 * i + k / 2, 10 * i + k / 2 + 0.4, 0.9) for k, w in enumerate(words))))
    return Transcript(tuple(found), "talk.srt", "en")


def best(sentences: list[str], saliency: np.ndarray, limit: int) -> list[Span]:
    spans, rows = spans_of(talk(sentences), [], saliency, 1.0)
    return [spans[i] for i in choose(spans, rows, limit)]


def texts(found: list[Span]) -> list[str]:
    return [s.text for s in found]


def test_saliency_centrality_and_diversity_choose():
    flat = np.full(70, 0.5)
    found = best(TALK, flat, 3)
    assert len(found) == 3
    assert [s.start for s in found] == sorted(s.start for s in found)
    assert texts(found).count(TALK[0]) <= 1  # said twice, told once
    assert "Thank you." not in texts(found)
    assert max(s.score for s in found) == 1
    peak = flat.copy()
    peak[40:50] = 1.0  # while the parrot is spoken of
    assert TALK[4] not in texts(best(TALK, flat, 1))
    assert TALK[4] in texts(best(TALK, peak, 2))
    assert len(best(TALK, flat, 50)) <= len(set(TALK))
    assert found[0].confidence == pytest.approx(0.9)


def test_odd_input_is_answered():
    assert best(TALK, np.zeros(0), 0) == []
    assert spans_of(Transcript((), "none", None), [], np.ones(5), 1.0)[0] == []
    bad = np.full(70, np.nan)
    assert len(best(TALK, bad, 2)) == 2
    assert texts(best(TALK, bad, 2)) == texts(best(TALK, np.zeros(0), 2))
    assert len(best(TALK[:1], np.ones(3), 5)) == 1  # saliency ends before the speech
    assert best(["The it was and."], np.ones(3), 5) == []
    with pytest.raises(ValueError, match=r"moment_saliency: saliency must be \[T\], got shape \(3, 2\)"):
        spans_of(talk(), [], np.ones((3, 2)), 1.0)


def test_sentences_come_from_stops_or_else_from_pauses():
    assert [" ".join(w.text for w in s) for s in sentences_of(talk())] == TALK
    bare = talk([s.lower().rstrip(".") for s in TALK])
    assert len(sentences_of(bare)) == len(TALK)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 7), st.just(4)), elements=st.floats(0, 1).map(lambda x: round(x, 2)))
)
def test_centrality_is_the_stationary_walk(rows):
    features = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosines = features @ features.T
    np.fill_diagonal(cosines, 0)
    count = len(features)
    degree = cosines.sum(1)
    steps = np.where(degree[:, None] > 1e-9, cosines / np.where(degree > 1e-9, degree, 1)[:, None], 1 / count)
    chain = 0.15 / count + 0.85 * steps
    values, vectors = np.linalg.eig(chain.T)
    expected = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
    np.testing.assert_allclose(centrality(features), expected / expected.max(), atol=1e-4)


def test_topic_features_by_hand():
    rows = topic_features([["wheel", "wheel", "tube"], ["tube", "parrot"], ["the", "and"]])
    wheel, tube, parrot = (1 + np.log(2)) * (np.log(3) + 1), np.log(3 / 2) + 1, np.log(3) + 1
    np.testing.assert_allclose(rows[0], np.array([wheel, tube, 0]) / np.hypot(wheel, tube))
    np.testing.assert_allclose(rows[1], np.array([0, tube, parrot]) / np.hypot(parrot, tube))
    assert not rows[2].any()


@settings(max_examples=50)
@given(
    arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 10)), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.0, 25 / 3]),
)
def test_moment_saliency_is_the_mean_over_its_frames(saliency, drawn, fps):
    spans = [(a, a + n) for a, n in drawn]
    for value, (start, end) in zip(moment_saliency(spans, saliency, fps), spans, strict=True):
        frames = [i for i in range(len(saliency)) if i + 1 > start * fps and i < end * fps]
        frames = frames or [min(int(start * fps), len(saliency) - 1)]
        assert value == pytest.approx(np.mean(saliency[frames]), abs=1e-9)


@dataclass(frozen=True)
class Shown:
    shot: int
    span: tuple[float, float]


@dataclass(frozen=True)
class Described:
    text: str
    confidence: float
    moments: tuple[Shown, ...]


CAPTIONS = [
    Described("A man holds a wheel.", 0.5, (Shown(0, (2.0, 6.0)), Shown(3, (40.0, 44.0)))),
    Described("A street.", 0.2, (Shown(1, (10.0, 14.0)),)),
    Described("A tube in water.", 0.4, (Shown(5, (61.0, 65.0)),)),
]
SAID = [
    Span("We repair a wheel.", 1.0, 4.0, 0.8, "heard", 0.9),
    Span("Press the patch.", 61.0, 62.0, 0.7, "heard", 1.0),
    Span("It is late.", 90.0, 92.0, 0.9, "heard", 0.1),
]


def test_one_text_in_order_of_time_with_origins():
    text = merge_text(CAPTIONS, SAID, 8, clips=[(0, 2.0, 6.0), (1, 10.0, 14.0), (5, 61.5, 65.0)])
    assert [(s.origin, s.text, s.times) for s in text] == [
        ("heard", "We repair a wheel.", ((1.0, 4.0),)),
        ("seen", "A man holds a wheel.", ((2.0, 6.0), (40.0, 44.0))),
        ("seen", "A street.", ((10.0, 14.0),)),
        ("seen", "A tube in water.", ((61.0, 65.0),)),
        ("heard", "Press the patch.", ((61.0, 62.0),)),
        ("heard", "It is late.", ((90.0, 92.0),)),
    ]
    assert [s.shots for s in text if s.origin == "heard"] == [(0,), (5,), ()]
    assert [s.shots for s in text if s.origin == "seen"] == [(0, 3), (1,), (5,)]


@pytest.mark.parametrize(("limit", "seen", "heard"), [(0, 0, 0), (1, 0, 1), (2, 1, 1), (3, 1, 2), (5, 2, 3), (6, 3, 3)])
def test_places_are_shared_and_the_best_stay(limit, seen, heard):
    text = merge_text(CAPTIONS, SAID, limit)
    assert sum(s.origin == "seen" for s in text) == seen
    assert sum(s.origin == "heard" for s in text) == heard
    if limit == 2:
        assert {s.text for s in text} == {"A man holds a wheel.", "Press the patch."}


def test_one_kind_fills_the_places_of_the_other():
    assert len(merge_text(CAPTIONS, [], 2)) == 2
    assert len(merge_text([], SAID, 2)) == 2
    assert len(merge_text(CAPTIONS[:1], SAID, 4)) == 4
    assert merge_text([], [], 4) == []
    with pytest.raises(ValueError, match="merge_text: limit must be at least 0, got -1"):
        merge_text([], [], -1)
