"""The closed forms of `vtsum benchmark`: videos count alike, scores are spread over what is alike, F gets its form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.vtsum.test_benchmark import cells, write_h5
from vtsum import cli
from vtsum.benchmarks import methods
from vtsum.benchmarks.ridge import rank_target
from vtsum.benchmarks.ridge_spread import (
    PARTS,
    SHARES,
    SPREAD_REACHES,
    RidgeSpread,
    as_they_are,
    log_ranks,
    principal_components,
)
from vtsum.data.tvsum import TVSumVideo, load_tvsum
from vtsum.evaluation.baselines import score_video
from vtsum.model.neighbourhood import window_means
from vtsum.model.ridge_saliency import mixed, spread


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[TVSumVideo]:
    return load_tvsum(write_h5(tmp_path_factory.mktemp("benchmark") / "a.h5"))


def subjects(seed: int, subject: int, picks: int = 80, dim: int = 12) -> TVSumVideo:
    """Runs of four picks whose ratings go with one of the features, `subject`, which differs most in this video; the
    other features differ little, and no direction is the same in every video."""
    rng = np.random.default_rng(seed)
    wanted = np.repeat(rng.standard_normal(picks // 4), 4)
    features = 1 + 0.3 * rng.standard_normal((picks, dim)).astype(np.float32)
    features[:, subject] += 0.7 * wanted
    scores = np.clip(np.round(3 + wanted + 0.5 * rng.standard_normal((5, picks))), 1, 5).astype(np.uint8)
    starts = np.arange(0, picks * 15, 60)
    return TVSumVideo(
        dataset="TVSum",
        key=f"video_{seed}",
        name="",
        title="",
        category="",
        fps=30.0,
        n_frames=picks * 15,
        picks=np.arange(picks) * 15,
        features=features,
        user_scores=np.repeat(scores, 15, axis=1),
        user_summary=np.repeat(scores, 15, axis=1) >= 4,
        change_points=np.stack([starts, starts + 59], axis=1),
        n_frame_per_seg=np.full(len(starts), 60),
        gtscore=(scores.mean(axis=0) / 5).astype(np.float32),
    )


def test_spread_is_its_sum() -> None:
    rng = np.random.default_rng(0)
    features, scores = rng.random((30, 3)) + 0.1, rng.standard_normal(30)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    around = np.concatenate([window_means(unit, 2), window_means(unit, 15)], axis=1)
    around = around - around.mean(axis=0)
    wanted = [sum((around[t] @ around[i]) * scores[i] for i in range(30)) for t in range(30)]
    assert np.allclose(spread(scores, features.astype(np.float32), SPREAD_REACHES), wanted, atol=1e-5)


def test_a_share_of_nothing_leaves_the_order_and_of_all_takes_the_scores_own_noise_away(
    videos: list[TVSumVideo],
) -> None:
    video = subjects(1, 0)
    noisy = rank_target(video) + np.random.default_rng(0).normal(0, 0.4, len(video.picks))
    none, all_of_it = (mixed(noisy, video.features, share, SPREAD_REACHES) for share in (0.0, 1.0))
    assert np.array_equal(np.argsort(none), np.argsort(noisy))
    assert score_video(all_of_it, video).rho > score_video(noisy, video).rho + 0.1
    # All alike: nothing to tell, and no division by 0.
    assert not mixed(np.ones(40), videos[0].features, 0.5, SPREAD_REACHES).any()


def test_log_ranks_keep_the_order_and_ties() -> None:
    scores = np.array([3.0, -1.0, 3.0, 0.0])
    assert np.allclose(log_ranks(scores), np.log([3.5, 1, 3.5, 2]))


def test_principal_components_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 4)) * [1, 5, 2, 0.1] + 3
    mean, basis = principal_components([rows[:10], rows[10:]], 2)
    assert np.allclose(mean, rows.mean(axis=0))
    wanted = np.linalg.svd(rows - mean)[2][:2].T
    assert np.allclose(np.abs(basis.T @ wanted), np.eye(2), atol=1e-8)


def test_long_and_short_videos_count_alike(videos: list[TVSumVideo]) -> None:
    """A video three times as long as another, of the same frames thrice: the weights are as if it were as short."""
    method = RidgeSpread(spread=False, reshape=False)
    method.fit(videos[:2], [], 0)
    short = method._moments(videos[0], 40.0)
    thrice = dataclasses.replace(
        videos[0],
        features=np.repeat(videos[0].features, 3, axis=0),
        user_scores=np.repeat(videos[0].user_scores, 3, axis=1),
        user_summary=np.repeat(videos[0].user_summary, 3, axis=1),
        picks=np.arange(120) * 15,
        n_frames=1800,
    )
    long = method._moments(thrice, 40.0)
    assert (long.rows, short.rows) == (40.0, 40.0)
    assert long.target == pytest.approx(short.target)
    dim = videos[0].features.shape[1]  # the frame itself; its windows reach elsewhere
    assert np.allclose(long.first[:dim], short.first[:dim], rtol=1e-4, atol=1e-5)
    assert np.allclose(long.second[:dim, :dim], short.second[:dim, :dim], rtol=1e-4, atol=1e-5)


def test_it_chooses_to_spread_where_that_ranks_better_and_not_where_it_does_not(videos: list[TVSumVideo]) -> None:
    """With a subject of each video's own, spreading helps; a signal in one weak feature it drowns."""
    own = [subjects(seed, seed % 4) for seed in range(16)]
    method, plain = RidgeSpread(), RidgeSpread(spread=False, reshape=False)
    for each in (method, plain):
        each.fit(own[:10], own[10:12], 0)
    assert method._share > 0
    found, without = (
        np.mean([score_video(each.predict(video.features), video).rho for video in own[12:]])
        for each in (method, plain)
    )
    assert found > without + 0.02
    weak = [
        dataclasses.replace(video, features=video.features * np.array([0.2, 5, 5, 5], np.float32)) for video in videos
    ]
    method = RidgeSpread()
    method.fit(weak[:4], weak[4:5], 0)
    assert method._share < SHARES[-1]


def test_it_learns_from_every_training_video_and_is_the_same_with_any_seed(videos: list[TVSumVideo]) -> None:
    predictions = []
    for learned, held, seed in ((videos[:5], [], 0), (videos[:3], videos[3:5], 1), (videos[:4], [], 0)):
        method = RidgeSpread()
        method.fit(learned, held, seed)
        predictions.append(method.predict(videos[5].features))
    assert score_video(predictions[0], videos[5]).rho > 0.3
    assert np.array_equal(predictions[0], predictions[1])
    assert not np.array_equal(predictions[0], predictions[2])


def test_the_form_is_the_one_of_the_better_f(videos: list[TVSumVideo], monkeypatch: pytest.MonkeyPatch) -> None:
    method = RidgeSpread(spread=False)
    for better in (as_they_are, log_ranks):

        def measured(rows: list, measure: str, better: object = better) -> float:
            shaped = all(scores.min() == 0 and scores.max() == np.log(len(scores)) for _, scores in rows)
            return float(measure == "f" and shaped == (better is log_ranks))

        monkeypatch.setattr("vtsum.benchmarks.ridge_spread._mean", measured)
        method.fit(videos[:5], [], 0)
        assert method._form is better


def test_few_videos_and_files_without_raters_scores_do(videos: list[TVSumVideo]) -> None:
    bare = [dataclasses.replace(video, user_scores=None) for video in videos]
    for learned in (bare[:1], bare[:2], bare[: PARTS + 1]):
        method = RidgeSpread()
        method.fit(learned, [], 0)
        assert np.isfinite(method.predict(videos[5].features)).all()


def test_the_command_runs_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5, records = write_h5(tmp_path / "a.h5"), tmp_path / "rows.jsonl"
    asked = [word for name in methods.RIDGES for word in ("--method", name)]
    assert cli.main(["benchmark", "tvsum", "--h5", str(h5), "--records", str(records), *asked]) == 0
    shown = capsys.readouterr().out
    for name in methods.RIDGES:
        assert cells(shown, name)[1] == "1"
        assert float(cells(shown, name)[3].split()[0]) > 0.3
    assert cli.main(["benchmark", "tvsum", "--h5", str(h5), "--records", str(records), "--method", "ridge-spread@test"])
    assert "must be without @test where nothing is selected, got ridge-spread@test" in capsys.readouterr().err
