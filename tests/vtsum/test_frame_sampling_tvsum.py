"""Frame sampling on real video: what its benchmark claims, on three of TVSum's videos, and the benchmark's own sums."""

from __future__ import annotations

import numpy as np
import pytest

from bench.summary.frame_sampling import event_agreement, stream
from vtsum.data.frames import read_frames, read_teacher
from vtsum.data.tvsum import load_tvsum
from vtsum.enhance.frame_sampling import choose_frames, spread, thumbnail_features


def test_thumbnails_find_the_frames_that_stand_for_the_others(shared):
    root = shared / "tvsum"
    kept: dict[str, list[float]] = {}
    for video in load_tvsum(root / "tvsum.h5")[4:30:10]:
        index, images = read_frames(root / "frames" / f"{video.name}.zip")
        full = read_teacher(root / "teacher" / f"{video.name}.npz")[1]
        cheap = thumbnail_features(images)
        for name, picks, like in (
            ("coverage", stream(cheap, 0.25), cheap),
            ("uniform", choose_frames(cheap, method="uniform"), cheap),
            ("uniform, by time", choose_frames(cheap, method="uniform"), None),
            ("top-k", choose_frames(cheap, method="top-k"), cheap),
        ):
            assert len(picks) == -(-len(index) // 4)
            x = spread(full[picks], picks, len(full), like)
            cosine = (x * full).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(full, axis=1)
            kept.setdefault(name, []).append(float(cosine.mean()))
    means = {name: float(np.mean(values)) for name, values in kept.items()}
    assert means["coverage"] > means["uniform"] + 0.005
    assert means["uniform"] > means["uniform, by time"] + 0.005
    assert means["coverage"] > means["top-k"] + 0.01
    assert means["coverage"] > 0.92


def test_events_agree_within_a_frame_and_each_counts_once():
    assert event_agreement(np.array([10, 20]), np.array([11, 20])) == 1.0
    assert event_agreement(np.array([10, 11]), np.array([10])) == pytest.approx(2 / 3)
    assert event_agreement(np.array([5]), np.array([7])) == 0.0
    assert event_agreement(np.zeros(0, int), np.zeros(0, int)) == 1.0
    assert event_agreement(np.zeros(0, int), np.array([3])) == 0.0
