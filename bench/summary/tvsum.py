"""What several benchmarks do with TVSum: frames at given times, their embeddings, a ridge that never saw the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.frames import FRAME_INDEX_RATE, read_frames
from vtsum.data.tvsum import Split, TVSumVideo

RIDGE_PENALTY = 100.0  # as in vtsum.evaluation.baselines


def frames_at(shared: Path, video: TVSumVideo, times: np.ndarray) -> np.ndarray:
    """The stored frames nearest to the times, in seconds."""
    index, images = read_frames(shared / "tvsum" / "frames" / f"{video.name}.zip")
    return images[np.abs(index / FRAME_INDEX_RATE - times[:, None]).argmin(axis=1)]


def embeddings(model: Any, images: np.ndarray) -> np.ndarray:
    """[T, C], 32 frames at a time."""
    return np.concatenate([model.encode(images[at : at + 32]) for at in range(0, len(images), 32)])


def ridge(
    rows: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], splits: Sequence[Split]
) -> dict[str, np.ndarray]:
    """By key of each video in a test list, the weights fitted on the split's other videos: rows [T, C], targets [T]."""
    products = {key: (x.sum(axis=0), x.T @ targets[key], x.T @ x) for key, x in rows.items()}
    weights: dict[str, np.ndarray] = {}
    for split in splits:
        parts = [products[key] for key in split.train]
        count = sum(len(rows[key]) for key in split.train)
        mean = np.sum([part[0] for part in parts], axis=0, dtype=np.float64) / count
        middle = sum(float(targets[key].sum()) for key in split.train) / count
        cross = np.sum([part[1] for part in parts], axis=0, dtype=np.float64) - count * middle * mean
        second = np.sum([part[2] for part in parts], axis=0, dtype=np.float64) - count * np.outer(mean, mean)
        second[np.diag_indices_from(second)] += RIDGE_PENALTY
        weights |= dict.fromkeys(split.test, np.linalg.solve(second, cross))
    return weights
