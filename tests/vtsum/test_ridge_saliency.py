"""The shipped model's saliency: its closed forms written out, its fit, and what a damaged file of it gives."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vtsum.test_benchmark_ridges import subjects
from vtsum.errors import VTSumError
from vtsum.model import load
from vtsum.model.ridge_saliency import NETWORK, REACHES, SHARE, SMOOTHING, SPREAD_REACHES, RidgeSaliency
from vtsum.model.summarizer import EMBEDDED
from vtsum.model.vtsum import VTSum
from vtsum.recipes.joint import Example
from vtsum.recipes.saliency import calibrate, evaluated, fit

WIDTH = 5


def drawn(width: int = WIDTH) -> RidgeSaliency:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((1 + len(REACHES)) * width + 3)
    return RidgeSaliency(rng.standard_normal(width), weights, np.array([0.05, 0.15]))


def test_saliency_is_its_sums_written_out() -> None:
    ridge, rng = drawn(), np.random.default_rng(1)
    features, network = rng.standard_normal((60, WIDTH)) + 1, rng.standard_normal(60) * 3 - 2

    def around(rows: np.ndarray, t: int, reach: int) -> np.ndarray:
        return rows[max(t - reach, 0) : t + reach + 1].mean(axis=0)

    unit = np.stack([row / np.linalg.norm(row) for row in features])
    whole = unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0))
    narrow = unit - ridge.mean
    own = []
    for t in range(60):
        windows = [around(narrow, t, reach) for reach in REACHES]
        row = np.concatenate([narrow[t], *windows, [unit[t] @ whole, t / 59, (t / 59) ** 2]])
        own.append(row @ ridge.weights)
    own = np.array([around(np.array(own), t, SMOOTHING) for t in range(60)])
    own = (own - own.mean()) / own.std()
    alike = np.stack([np.concatenate([around(unit, t, reach) for reach in SPREAD_REACHES]) for t in range(60)])
    alike = alike - alike.mean(axis=0)
    spread = np.array([sum(alike[t] @ alike[i] * own[i] for i in range(60)) for t in range(60)])
    both = (1 - SHARE) * own + SHARE * (spread - spread.mean()) / spread.std()
    both = (1 - NETWORK) * (both - both.mean()) / both.std() + NETWORK * (network - network.mean()) / network.std()
    wanted = 0.05 * (both - both.mean()) / both.std() + 0.15
    assert np.allclose(ridge.saliency(features, network), np.clip(wanted, 0, 1), atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 400])
def test_frames_that_are_all_alike_have_a_saliency_too(frames: int) -> None:
    for row in (np.zeros(WIDTH), np.arange(WIDTH)):
        saliency = drawn().saliency(np.tile(row, (frames, 1)).astype(np.float32), np.full(frames, 2.0, np.float32))
        assert saliency.dtype == np.float32
        assert saliency.shape == (frames,)
        assert ((saliency >= 0) & (saliency <= 1)).all()  # false of NaN
        if frames == 1:
            assert saliency[0] == np.float32(0.15)


def test_what_is_computed_of_a_long_video_stays_a_few_times_its_features() -> None:
    features = np.random.default_rng(5).standard_normal((20_000, 64)).astype(np.float32)
    network = features[:, 0].copy()
    tracemalloc.start()
    drawn(64).saliency(features, network)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * features.astype(np.float64).nbytes  # 8.5 where all columns of the ridge stand side by side


def test_a_file_gives_back_the_same() -> None:
    ridge, features = drawn(), np.random.default_rng(2).standard_normal((30, WIDTH))
    found = RidgeSaliency.from_state(ridge.state())
    network = features[:, 0]
    assert np.allclose(found.saliency(features, network), ridge.saliency(features, network), atol=1e-6)


@pytest.mark.parametrize("damage", ["missing", "narrow", "short", "NaN"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    state = load_file(path)
    if damage == "missing":
        del state["saliency.calibration"]
    elif damage == "narrow":
        ridge = drawn().state()
        state |= {f"saliency.{name}": value for name, value in ridge.items()}
    elif damage == "short":
        state["saliency.weights"] = state["saliency.weights"][:-1].clone()
    else:
        state["saliency.mean"][3] = torch.nan
    save_file(state, path)
    with pytest.raises(VTSumError, match=r"load_checkpoint: weights of .* must fit its config, got: saliency"):
        VTSum.load_checkpoint(tmp_path / "model")


def test_a_copy_that_a_training_goes_on_from_gives_its_own_heads_saliency(tmp_path: Path) -> None:
    VTSum.from_pretrained(EMBEDDED).save_pretrained(tmp_path / "own")
    features = np.random.default_rng(3).standard_normal((40, 256)).astype(np.float32)
    shipped, own = load("embedded"), load(str(tmp_path / "own"))
    with torch.inference_mode():
        frames = own.model.encode(torch.from_numpy(features)[None])
        head = own.model.saliency_logits(frames)[0].sigmoid().numpy()
    assert np.allclose(own.saliency(features), head, atol=1e-6)
    assert not np.allclose(shipped.saliency(features), head, atol=0.01)


def examples(seeds: range) -> list[Example]:
    """Videos a pick a second: `subjects` with 15 frames a second."""
    videos = [replace(subjects(seed, 0), fps=15.0) for seed in seeds]
    return [Example(v, np.asarray(v.features), v.picks / v.fps, []) for v in videos]


def test_what_is_fitted_ranks_unseen_videos_and_is_calibrated() -> None:
    ridge = fit(examples(range(20)))
    unseen = examples(range(20, 40))
    assert evaluated(ridge.scores, unseen).rho > 0.5
    stated = np.concatenate([ridge.saliency(e.features, ridge.scores(e.features)) for e in unseen])
    kept = np.concatenate([e.video.user_summary[:, e.video.picks].mean(axis=0) for e in unseen])
    assert abs(stated.mean() - kept.mean()) < 0.05
    assert 0.75 < np.polyfit(stated, kept, 1)[0] < 1.33  # as much more is kept as is stated


def test_the_calibration_is_the_line_of_least_squares() -> None:
    scores = np.random.default_rng(4).standard_normal(500)
    assert np.allclose(calibrate(scores, 0.1 * scores + 0.2), [0.1, 0.2])
