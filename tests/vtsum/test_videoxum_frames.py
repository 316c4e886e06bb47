"""VideoXum's frame measures against their definition, written out slowly: ties, saturation and borders."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.vtsum.annotated import plain_rho, plain_tau_b
from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_frames import (
    PROTOCOLS,
    RELEASED,
    STRICT,
    TOP15,
    choose_frames,
    clip_frames,
    evenly_spaced,
    f1_scores,
    frame_measures,
    summary_length,
)


def slow_f1(chosen: list[bool], marked: list[bool]) -> float:
    true = sum(c and m for c, m in zip(chosen, marked, strict=True))
    precision = true / sum(chosen) if any(chosen) else 0.0
    recall = true / sum(marked) if any(marked) else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_measures(logits: np.ndarray, labels: np.ndarray, protocol: str) -> tuple[float, float, float, float]:
    n = len(logits)
    if protocol != STRICT:
        scores = [float(v) for v in np.float32(logits)]
        ordered = sorted(scores, reverse=True) if protocol == TOP15 else scores[::-1]
        threshold = ordered[int(n * 0.15)]
        chosen = [v >= threshold for v in scores]
        ranked = [float(torch.tensor(v, dtype=torch.float32).sigmoid()) for v in scores]
    else:
        ranked = [float(v) for v in logits]
        best = sorted(range(n), key=lambda i: (-ranked[i], i))[: max(1, int(n * 0.15))]
        chosen = [i in best for i in range(n)]
    each = [slow_f1(chosen, [v > 0 for v in row]) for row in labels]
    mean = [float(sum(column)) for column in labels.T]
    return sum(each) / len(each), max(each), plain_tau_b(ranked, mean), plain_rho(ranked, mean)


@given(
    st.integers(1, 45),
    st.integers(1, 10),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["spread", "tied", "saturated", "constant"]),
    st.sampled_from(PROTOCOLS),
)
def test_measures_equal_their_definition(frames, users, seed, kind, protocol):
    rng = np.random.default_rng(seed)
    logits = {
        "spread": rng.normal(size=frames),
        "tied": rng.integers(0, 4, frames).astype(float),
        "saturated": rng.integers(10, 40, frames).astype(float),
        "constant": np.full(frames, 0.5),
    }[kind].astype(np.float32)
    labels = (rng.random((users, frames)) < rng.choice([0.0, 0.15, 0.6])).astype(np.float32)
    found = frame_measures(logits, labels, protocol)
    assert found == pytest.approx(slow_measures(logits, labels, protocol), abs=1e-12)


def check_f1(logits: list[float], labels: np.ndarray, as_run: float, of_sorted: float) -> None:
    assert frame_measures(np.float32(logits), labels, RELEASED).f1 == pytest.approx(as_run, abs=1e-12)
    assert frame_measures(np.float32(logits), labels, TOP15).f1 == pytest.approx(of_sorted, abs=1e-12)


def test_f1_is_what_the_original_computes_as_it_runs_and_as_it_was_meant():
    videos = json.loads(Path(__file__).with_name("f1_released.json").read_text(encoding="utf-8"))["videos"]
    assert len(videos) == 7
    for video in videos:
        labels = np.array([[int(mark) for mark in row] for row in video["labels"]])
        check_f1(video["logits"], labels, video["f1_as_run"], video["f1_sorted"])


def test_f1_is_the_originals_on_all_that_was_recorded(shared):
    cases = json.loads((shared / "golden/vtsum/f1_released.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        for i, frames in enumerate(case["valid"]):
            logits, labels = case["logits"][i][:frames], np.array(case["labels"][i])[:, :frames]
            check_f1(logits, labels, case["f1_as_run"][i], case["f1_of_sorted_rule"][i])


def test_what_the_protocols_differ_in():
    """The frame whose score is the threshold, and its ties; saturated sigmoids."""
    scores = np.arange(20.0)
    assert choose_frames(scores, RELEASED).nonzero()[0].tolist() == [16, 17, 18, 19]
    assert choose_frames(scores[::-1], RELEASED).nonzero()[0].tolist() == list(range(17)), "falling: nearly all"
    assert choose_frames(scores, TOP15).sum() == 4
    assert choose_frames(scores, STRICT).sum() == summary_length(20) == 3
    tied = np.array([1.0, 0.0] * 10)
    assert choose_frames(tied, TOP15).nonzero()[0].tolist() == list(range(0, 20, 2))
    assert choose_frames(tied, STRICT).nonzero()[0].tolist() == [0, 2, 4]
    assert summary_length(3) == choose_frames(np.arange(3.0), TOP15).sum() == 1
    rising, labels = np.linspace(20, 40, 20), np.tri(10, 20, 10)[:, ::-1]
    for protocol in (RELEASED, TOP15):
        found = frame_measures(rising, labels, protocol)
        assert (found.kendall, found.spearman) == (0.0, 0.0)
    assert abs(frame_measures(rising, labels, STRICT).spearman) > 0.9


def test_frames_of_clipscore():
    """The released sum with 10,000 rounds to steps of about a thousandth; both give at least one frame."""
    scores = np.float32([0.0, 0.0002, 3.0, 0.0001] + [-9.0] * 12)
    assert clip_frames(scores, RELEASED).tolist() == clip_frames(scores, TOP15).tolist() == [2, 0]
    assert clip_frames(scores, STRICT).tolist() == [2, 1]
    for protocol in PROTOCOLS:
        assert clip_frames(np.zeros(1), protocol).tolist() == [0]
        counts = [len(clip_frames(np.zeros(n), protocol)) for n in range(1, 1000)]
        assert counts == [max(1, n * 15 // 100) for n in range(1, 1000)]


def test_evenly_spaced_frames_have_equal_gaps():
    assert evenly_spaced(20, 4).tolist() == [2, 7, 12, 17]
    assert evenly_spaced(1, 3).tolist() == [0]
    for frames, count in itertools.product(range(1, 40), range(1, 12)):
        picked = evenly_spaced(frames, count)
        assert len(set(picked.tolist())) == min(count, frames)
        assert set(np.diff(picked)) <= {frames // len(picked), -(-frames // len(picked))}


def test_f1_of_nothing_is_nothing():
    assert f1_scores(np.zeros(4, bool), np.zeros((2, 4))).tolist() == [0.0, 0.0]


def test_mistakes_are_named():
    labels = np.zeros((10, 4))
    with pytest.raises(VTSumError, match=r"logits must be \[T\] with T >= 1, got \[0\]"):
        frame_measures(np.zeros(0), labels, STRICT)
    with pytest.raises(VTSumError, match="logits must be finite, got nan"):
        frame_measures(np.array([0.0, np.nan, 0, 0]), labels, RELEASED)
    with pytest.raises(VTSumError, match=r"labels must be \[A, T\] with T = 3, got \[10, 4\]"):
        frame_measures(np.zeros(3), labels, STRICT)
    with pytest.raises(VTSumError, match="must be one of videoxum-released, videoxum-top15, videoxum-strict, got 's"):
        frame_measures(np.zeros(4), labels, "strict")
