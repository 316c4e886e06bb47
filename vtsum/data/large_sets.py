"""Mr. HiSum and S-VideoXum (SM-VideoXum): h5 files of a group a video with a row a second, as they are published.

Source: Sul et al., "Mr. HiSum: A Large-scale Dataset for Video Highlight Detection and Summarization", NeurIPS 2023;
Mylonas et al., "SD-VSum: A Method and Dataset for Script-Driven Video Summarization", ACM Multimedia 2025. The fields
are those that the READMEs and the loaders of their repositories name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from vtsum.data.feature_files import check_id
from vtsum.data.h5_file import H5Group, opened
from vtsum.data.tvsum import TVSumVideo
from vtsum.errors import VTSumError


def load_mrhisum(h5_path: str | Path, only: Collection[str] | None = None) -> list[TVSumVideo]:
    """Mr. HiSum's videos: `gtscore`, how often each second was replayed, stands for the one rater, and `gt_summary` (or
    gtsummary) is the one user's summary; `features`, of YouTube-8M, where they were added to the file.

    Args:
        h5_path: mr_hisum.h5. only: keys to read; others are passed over. None: all.
    Raises:
        VTSumError: the file is missing, is no h5 file, or a video lacks a field or has one of the wrong shape.
    """
    return _load(Path(h5_path), "load_mrhisum", "Mr. HiSum's layout", _mrhisum, only)


def load_script_videoxum(h5_path: str | Path, only: Collection[str] | None = None) -> list[TVSumVideo]:
    """S-VideoXum's videos: the ten annotators' marks of each second (`gtscores`) and CLIP's features
    (`video_embeddings`). Scripts and transcripts are not read. The set has no shots: each second is one, so that a
    keyshot summary is the 15% of the seconds with the highest scores.

    Args, Raises: as `load_mrhisum`; the file is script_videoxum.h5.
    """
    return _load(Path(h5_path), "load_script_videoxum", "S-VideoXum's layout", _script_videoxum, only)


def _load(
    path: Path,
    function: str,
    layout: str,
    video: Callable[[H5Group, str], TVSumVideo],
    only: Collection[str] | None,
) -> list[TVSumVideo]:
    with opened(path, function, layout) as file:
        keys = sorted((key for key in file.keys if only is None or key in only), key=_in_order)
        if not keys:
            raise VTSumError(f"{function}: {path} must have groups of videos, got {sorted(file.keys)[:3]}")
        return [video(file.group(check_id(key, f"{function}: {path}: a group")), key) for key in keys]


def _in_order(key: str) -> tuple[int, str]:
    number = re.fullmatch(r"video_([0-9]{1,9})", key)
    return int(number[1]) if number else 0, key


def _mrhisum(group: H5Group, key: str) -> TVSumVideo:
    score = group.numbers("gtscore", np.float32, 1)
    name = "gtsummary" if "gt_summary" not in group and "gtsummary" in group else "gt_summary"
    summary = np.asarray(group.read(name))
    group.checked(name, summary, score.shape)
    shots = _tiling(group.numbers("change_points", np.int64, 2), len(score), group.where)
    return _made("MrHiSum", key, score[None], summary[None] > 0, score, shots, group.features("features", len(score)))


def _script_videoxum(group: H5Group, key: str) -> TVSumVideo:
    seconds = group.numbers("n_frames", np.int64, 0)
    marks = group.rated("gtscores", seconds, 1)
    if not np.isin(marks, (0, 1)).all():
        raise VTSumError(f"{group.where}: gtscores must be 0 or 1, got {marks[~np.isin(marks, (0, 1))][0]}")
    if not len(marks):
        raise VTSumError(f"{group.where}: gtscores must be of at least 1 annotator, got none")
    at = np.arange(seconds)
    features = group.features("video_embeddings", seconds)
    mean = marks.mean(axis=0, dtype=np.float64).astype(np.float32)
    return _made("S-VideoXum", key, marks.astype(np.uint8), marks > 0, mean, np.stack([at, at], axis=1), features)


def _tiling(shots: np.ndarray, frames: int, where: str) -> np.ndarray:
    """First and last frame of each shot, from that or from its first frame and the first one after it."""
    if shots.shape[1] == 2 and len(shots):
        for after in (0, 1):
            ends = shots - [0, after]
            edges = np.append(ends[:, 0], frames)
            if edges[0] == 0 and np.all(np.diff(edges) > 0) and np.array_equal(ends[:, 1], edges[1:] - 1):
                return ends
    raise VTSumError(f"{where}: change_points must tile frames 0 to {frames - 1}, got {shots.tolist()!s:.80}")


def _made(
    dataset: str,
    key: str,
    ratings: np.ndarray,
    summaries: np.ndarray,
    score: np.ndarray,
    shots: np.ndarray,
    features: np.ndarray | None,
) -> TVSumVideo:
    return TVSumVideo(
        dataset=dataset,
        key=key,
        name="",
        title="",
        category="",
        fps=1.0,
        n_frames=len(score),
        picks=np.arange(len(score)),
        features=features,
        user_scores=ratings,
        user_summary=summaries,
        change_points=shots,
        n_frame_per_seg=shots[:, 1] - shots[:, 0] + 1,
        gtscore=score,
    )
