"""The baselines: the ridge against a plain solution, planted importance, and the reference points on TVSum."""

from __future__ import annotations

import numpy as np
import pytest

from tests.vtsum.annotated import make_video
from vtsum.data.tvsum import Split, TVSumVideo, load_splits, load_tvsum
from vtsum.evaluation.baselines import (
    Evaluation,
    VideoScore,
    evaluate_features,
    evaluate_folds,
    evaluate_human,
    evaluate_mean_rating,
    evaluate_random,
    evaluate_scores,
    every_fifth,
    paired_difference,
    scores_at_picks,
)
from vtsum.evaluation.features import color_histogram
from vtsum.evaluation.rank import rank_correlation
from vtsum.evaluation.tvsum_table import main, stored_features, table, teacher_features
from vtsum.model.neighbourhood import neighbourhood_features


def planted(count: int = 6) -> tuple[list[TVSumVideo], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Videos whose raters follow the direction of a feature, with noise, and the features at twice the picks' rate."""
    videos, features = [], {}
    for i in range(count):
        video = make_video([150] * 6, raters=5, seed=i, key=f"video_{i + 1}")
        rng = np.random.default_rng(100 + i)
        times = np.arange(0, 30, 0.25)
        columns = rng.normal(size=(len(times), 8)) + np.array([3.0] + [0.0] * 7)
        unit = columns / np.linalg.norm(columns, axis=1, keepdims=True)
        level = np.interp(np.arange(900) / 30, times, unit[:, 3])
        noisy = level + 0.05 * rng.normal(size=(5, 900))
        video.user_scores[:] = 1 + np.digitize(noisy, np.quantile(noisy, [0.2, 0.4, 0.6, 0.8]))
        videos.append(video)
        features[video.key] = times, columns
    return videos, features


def test_neighbourhood_features_by_a_plain_loop():
    features = np.random.default_rng(0).normal(size=(9, 4)) * 7
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    whole = unit.mean(axis=0)
    rows = []
    for t in range(9):
        around = unit[max(t - 2, 0) : t + 3].mean(axis=0)
        rows.append([*unit[t], *around, unit[t] @ whole / np.linalg.norm(whole), t / 8, (t / 8) ** 2])
    assert np.allclose(neighbourhood_features(features, reach=2), rows, atol=1e-6)
    assert np.isfinite(neighbourhood_features(np.zeros((1, 4)))).all()


def test_scores_are_carried_to_the_nearest_pick():
    video = make_video([100])  # picks every half second, 0 to 3 s
    found = scores_at_picks(np.array([0.1, 1.2, 2.6]), np.array([5, 6, 7]), video)
    assert found.tolist() == [5, 5, 6, 6, 7, 7, 7]
    with pytest.raises(ValueError, match=r"times must rise .* got \[2\] and \[2\]"):
        scores_at_picks(np.zeros(2), np.zeros(2), video)


def test_the_ridge_is_the_plain_ridge():
    videos, features = planted()
    keys = [video.key for video in videos]
    found = evaluate_features(features, videos, keys[:4], keys[4:], reach=3, penalty=2.0)
    rows = np.vstack([neighbourhood_features(features[key][1], 3) for key in keys[:4]]).astype(float)
    target = np.concatenate([v.ratings_at(features[v.key][0]).mean(axis=0) for v in videos[:4]])
    centred = rows - rows.mean(axis=0)
    # The penalty as further rows of a least-squares problem.
    padded = np.vstack([centred, np.sqrt(2.0) * np.eye(rows.shape[1])])
    weights = np.linalg.lstsq(padded, np.append(target - target.mean(), np.zeros(rows.shape[1])), rcond=None)[0]
    for video in videos[4:]:
        predicted = neighbourhood_features(features[video.key][1], 3) @ weights
        tau, rho = rank_correlation(predicted[np.arange(len(video.picks)) * 2], video)  # a pick is every second step
        assert found.per_video[video.key].tau == pytest.approx(tau, abs=0.01)
        assert found.per_video[video.key].rho == pytest.approx(rho, abs=0.01)


def test_planted_importance_is_found_and_is_not_found_in_noise():
    videos, features = planted()
    keys = [video.key for video in videos]
    noise = {
        key: (times, np.random.default_rng(9).normal(size=columns.shape)) for key, (times, columns) in features.items()
    }
    good = evaluate_features(features, videos, keys[:4], keys[4:], penalty=1.0)
    none = evaluate_features(noise, videos, keys[:4], keys[4:], penalty=1.0)
    assert good.rho > 0.6
    assert abs(none.rho) < 0.3
    assert paired_difference(good, none).mean == pytest.approx(good.rho - none.rho)


def test_videos_tested_twice_count_once_with_their_average():
    videos, features = planted(4)
    splits = [Split(("video_1", "video_2"), ("video_3", "video_4")), Split(("video_1", "video_4"), ("video_3",))]
    both = evaluate_folds(features, videos, splits)
    one, two = (evaluate_folds(features, videos, [split]) for split in splits)
    assert list(both.per_video) == ["video_3", "video_4"]
    assert both.per_video["video_3"].rho == pytest.approx(
        (one.per_video["video_3"].rho + two.per_video["video_3"].rho) / 2
    )
    assert both.per_video["video_4"] == one.per_video["video_4"]


def test_paired_difference_and_standard_error():
    a = Evaluation({"x": VideoScore(0.1, 0.5, 0.6), "y": VideoScore(0.3, 0.1, 0.4), "z": VideoScore(0.2, 0.3, 0.5)})
    b = Evaluation({"x": VideoScore(0.0, 0.3, 0.6), "y": VideoScore(0.0, 0.0, 0.4), "z": VideoScore(0.0, 0.3, 0.5)})
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(0.1)
    assert difference.standard_error == pytest.approx(0.1 / np.sqrt(3))
    assert (difference.videos, paired_difference(a, b, "f").mean) == (3, 0.0)
    assert a.standard_error("tau") == pytest.approx(0.1 / np.sqrt(3))
    with pytest.raises(ValueError, match=r"must be of the same videos, got \['z'\] in only one"):
        paired_difference(a, Evaluation({key: b.per_video[key] for key in "xy"}))


def test_shifting_scores_changes_nothing():
    video = make_video([40, 90, 30, 60, 80])
    scores = np.random.default_rng(3).random(len(video.picks))
    assert evaluate_scores({"video_1": scores}, [video]) == evaluate_scores({"video_1": 8 * scores - 16}, [video])


def test_features_refuse_what_they_cannot_use():
    videos, features = planted(3)
    with pytest.raises(ValueError, match=r"splits must name videos with features and ratings, got \['video_9'\]"):
        evaluate_features(features, videos, ["video_1"], ["video_9"])
    with pytest.raises(ValueError, match="separate train and test videos"):
        evaluate_features(features, videos, ["video_1"], ["video_1"])
    features["video_2"] = (features["video_2"][0][:-1], features["video_2"][1])
    with pytest.raises(
        ValueError, match=r"features_by_video\['video_2'\] must be rising times .* got \[119\] and \[120, 8\]"
    ):
        evaluate_features(features, videos, ["video_1"], ["video_2"])
    with pytest.raises(ValueError, match=r"reach must be at least 0, got -1"):
        neighbourhood_features(np.zeros((2, 2)), -1)
    with pytest.raises(ValueError, match="scores must be of the videos given"):
        evaluate_scores({"video_8": np.zeros(3)}, videos)


def test_color_histogram_sees_colour_gradient_and_layout():
    red, green = np.zeros((2, 32, 32, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:, np.arange(32) // 4 % 2 == 0] = 255
    top = np.zeros((32, 32, 3), np.uint8)
    top[:16] = 255
    images = np.stack([red, green, upright, upright.transpose(1, 0, 2), top, top[::-1]])
    found = color_histogram(images)
    assert found.shape == (6, 240)
    assert found.dtype == np.float32
    colors, gradients, layout = np.split(found, [64, 192], axis=1)
    assert colors[0, 48] == 1.0  # level 3 of red, 0 of green and blue
    assert colors[1, 12] == 1.0
    assert np.allclose(colors[2, [0, 63]], np.sqrt(0.5))
    assert not gradients[:2].any()
    assert np.allclose(gradients[2].reshape(16, 8)[:, 1:], 0)  # upright stripes change along the rows alone
    assert np.allclose(gradients[3].reshape(16, 8)[:, [0, 1, 2, 3, 5, 6, 7]], 0)
    assert np.allclose(layout[4].reshape(4, 4, 3)[:2], -layout[4].reshape(4, 4, 3)[2:])
    assert np.allclose(layout[4], -layout[5])
    lengths = np.linalg.norm(gradients[2:], axis=1)
    assert np.allclose(lengths, 1, atol=1e-6)
    assert (np.linalg.norm(layout, axis=1) <= 1 + 1e-6).all()


def test_color_histogram_refuses_what_it_cannot_use():
    with pytest.raises(TypeError, match="images must be uint8, got float32"):
        color_histogram(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"must be \[N, H, W, 3\] of at least 8 x 8, got \[1, 4, 32, 3\]"):
        color_histogram(np.zeros((1, 4, 32, 3), np.uint8))
    assert color_histogram(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 240)


def test_the_table_names_split_error_and_reference():
    a = Evaluation({"x": VideoScore(0.1, 0.5, 0.6), "y": VideoScore(0.3, 0.1, 0.4)})
    b = Evaluation({"x": VideoScore(0.0, 0.3, 0.6), "y": VideoScore(0.0, 0.1, 0.4)})
    c = Evaluation({"x": VideoScore(0.0, 0.3, 0.6)})
    lines = table([("m", "folds", a), ("n", "folds", b), ("m", "one", c)], reference=("n", "folds")).splitlines()
    assert lines[2] == "| m | folds | 2 | 50.0 | 0.200 ± 0.100 | 0.300 ± 0.200 | +0.100 ± 0.100 |"
    assert lines[3].endswith("| reference |")
    assert lines[4].startswith("| m | one | 1 | 60.0 | 0.000 ± nan")
    assert lines[4].endswith("|  |")


def test_the_command_names_a_missing_file(tmp_path, capsys):
    assert main(["--shared", str(tmp_path)]) == 2
    assert "load_tvsum: h5_path must be a file" in capsys.readouterr().err


def test_reference_points_of_raters_and_chance(shared):
    videos = load_tvsum(shared / "tvsum/tvsum.h5")
    chance = evaluate_random(videos, draws=1)
    assert abs(chance.rho) < 0.02
    assert chance.f == pytest.approx(0.543, abs=0.015)
    ceiling = evaluate_mean_rating(videos)
    assert (ceiling.tau, ceiling.rho) == pytest.approx((0.378, 0.473), abs=0.001)
    some = videos[:10]
    assert evaluate_human(some).rho == pytest.approx(
        np.mean([np.corrcoef(_ranks(video))[np.triu_indices(20, 1)].mean() for video in some]), abs=1e-9
    )


def _ranks(video: TVSumVideo) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(video.user_scores[:, video.picks], axis=1)


def test_the_ridge_reaches_its_reference_point(shared):
    videos = load_tvsum(shared / "tvsum/tvsum.h5")
    folds = load_splits(shared / "tvsum/splits.json")["disjoint_folds"]
    found = evaluate_folds(stored_features(videos), videos, folds)
    assert len(found.per_video) == 50
    assert (found.tau, found.rho) == pytest.approx((0.194, 0.255), abs=0.002)
    assert found.f == pytest.approx(0.577, abs=0.003)
    assert found.standard_error("rho") == pytest.approx(0.021, abs=0.001)


def test_the_fixed_split_on_teacher_features(shared):
    videos = load_tvsum(shared / "tvsum/tvsum.h5")
    split = every_fifth(videos)
    assert split.test == tuple(f"video_{i}" for i in range(5, 51, 5))
    found = evaluate_features(teacher_features(videos, shared / "tvsum/teacher"), videos, split.train, split.test)
    assert (found.tau, found.rho) == pytest.approx((0.174, 0.229), abs=0.005)
