"""Rank correlation and F-score: against published records, against plain definitions, and at their borders."""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtsum.annotated import make_video, plain_rho, plain_tau_b
from vtsum.data.tvsum import load_summe, load_tvsum
from vtsum.evaluation.fscore import f_score, machine_summary, summary_f_score
from vtsum.evaluation.rank import correlate, rank_correlation


def test_every_published_record_is_reproduced_exactly(shared):
    videos = {
        (v.dataset, v.key): v for v in (*load_tvsum(shared / "tvsum/tvsum.h5"), *load_summe(shared / "summe/summe.h5"))
    }
    with h5py.File(shared / "golden/evaluation/fscore_records.h5") as records:
        assert len(records) == 75
        for name, record in records.items():
            video = videos[record.attrs["dataset"], record.attrs["video"]]
            summary = machine_summary(record["score"][()], video)
            assert np.array_equal(summary, record["machine_summary"][()] > 0), name
            assert f_score(record["score"][()], video) == record["fm"][()], name


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.15, 0.4, 1.0]),
)
def test_the_summary_is_the_best_that_fits(shots, seed, share):
    video = make_video(shots)
    scores = np.random.default_rng(seed).random(len(video.picks)).astype(np.float32)
    kept = machine_summary(scores, video, share)
    per_frame = scores[np.arange(video.n_frames) // 15]
    worth = [per_frame[first : last + 1].mean() for first, last in video.change_points]
    chosen = [kept[first : last + 1] for first, last in video.change_points]
    assert all(part.all() or not part.any() for part in chosen)
    best = max(
        sum(worth[i] for i in some)
        for count in range(len(shots) + 1)
        for some in itertools.combinations(range(len(shots)), count)
        if sum(shots[i] for i in some) <= int(video.n_frames * share)
    )
    assert kept.sum() <= int(video.n_frames * share)
    assert sum(value for value, part in zip(worth, chosen, strict=True) if part.all()) == pytest.approx(best, rel=1e-6)


def test_f_is_the_harmonic_mean_joined_as_the_data_set_asks():
    summary = np.array([1, 1, 0, 0, 0, 0], bool)
    users = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]], bool)
    each = [1.0, 2 * 0.5 * (1 / 3) / (0.5 + 1 / 3), 0.0]
    assert summary_f_score(summary, users, "TVSum") == pytest.approx(np.mean(each))
    assert summary_f_score(summary, users, "SumMe") == pytest.approx(1.0)
    assert summary_f_score(np.zeros(6, bool), users, "TVSum") == 0.0


def test_summaries_refuse_what_they_cannot_use():
    video = make_video([30, 30])
    with pytest.raises(ValueError, match=r"machine_summary: scores must be \[4\], got \[3\]"):
        machine_summary(np.zeros(3), video)
    with pytest.raises(ValueError, match="machine_summary: scores must be finite, got nan"):
        machine_summary(np.array([0, 1, np.nan, 0]), video)
    with pytest.raises(ValueError, match=r"machine_summary: share must be 0 to 1, got 1\.5"):
        machine_summary(np.zeros(4), video, 1.5)
    with pytest.raises(ValueError, match=r"users must be \[U, 60\], got \[3, 59\]"):
        summary_f_score(np.zeros(60, bool), np.zeros((3, 59), bool), "TVSum")
    with pytest.raises(ValueError, match="dataset must be TVSum, MrHiSum, S-VideoXum or SumMe, got 'tvsum'"):
        summary_f_score(np.zeros(60, bool), np.zeros((3, 60), bool), "tvsum")


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(*(st.lists(st.integers(1, 5), min_size=n, max_size=n) for _ in range(3)))
    )
)
def test_correlation_is_the_mean_over_raters_of_the_plain_definition(rows):
    scores, *ratings = (np.array(row, float) for row in rows)
    found = correlate(scores, np.array(ratings))
    assert found.tau == pytest.approx(np.mean([plain_tau_b(scores, r) for r in ratings]), abs=1e-12)
    assert found.rho == pytest.approx(np.mean([plain_rho(scores, r) for r in ratings]), abs=1e-12)


def test_only_the_order_at_the_picks_counts():
    video = make_video([40, 70, 25])
    scores = np.random.default_rng(1).random(len(video.picks))
    assert rank_correlation(scores, video) == rank_correlation(np.exp(3 * scores), video)
    negated = rank_correlation(-scores, video)
    assert negated == pytest.approx(tuple(-value for value in rank_correlation(scores, video)))
    assert rank_correlation(scores, video) == correlate(scores, video.user_scores[:, ::15])


def test_correlation_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="video must have importance ratings, got SumMe video_1 without"):
        rank_correlation(np.zeros(4), make_video([60], dataset="SumMe"))
    with pytest.raises(ValueError, match=r"got \[3\] and \[3, 4\]"):
        rank_correlation(np.zeros(3), make_video([60]))
    with pytest.raises(ValueError, match="correlate: scores must be finite, got inf"):
        correlate(np.array([0.0, np.inf]), np.ones((1, 2)))
    with pytest.raises(ValueError, match="T >= 2"):
        correlate(np.zeros(1), np.zeros((1, 1)))
