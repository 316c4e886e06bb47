"""TVSum and SumMe: the annotations in the field's h5 schema, machine captions, and the splits.

Source: Song et al., "TVSum: Summarizing web videos using titles", CVPR 2015; Gygli et al., "Creating summaries from
user videos", ECCV 2014; the h5 schema (features, picks, change_points, user_summary ...) is that of Zhang et al., ECCV
2016, in which nearly all later work exchanges both data sets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.feature_files import check_id
from vtsum.data.h5_file import H5Group, opened
from vtsum.data.rules import HIGHEST, LONGEST
from vtsum.errors import VTSumError
from vtsum.reading import as_said, named, read_json, said_of
from vtsum.yaml_file import read_yaml

MOST_WORK = 3 * 10**8
"""Shots times frames of a video: what the choice of shots takes grows with it. TVSum's largest have 3 million."""
_MMSS = re.compile(r"([0-9]{1,6}):([0-5][0-9])")


@dataclass(frozen=True, eq=False)
class TVSumVideo:
    """One annotated video of TVSum, SumMe or a set like them. N: frames of the video, P: picks, U: raters, G: shots.

    Attributes:
        dataset: "TVSum" or "SumMe"; "MrHiSum" or "S-VideoXum" (`vtsum.data.large_sets`).
        key: "video_1" ... as in the splits.
        name: YouTube id (TVSum) or title with underscores (SumMe).
        title, category: of the TVSum list; empty for SumMe.
        fps: frames a second of the annotated file; NaN where the h5 file does not say.
        n_frames: N.
        picks: int64 [P], the frames that features and scores belong to: every 15th, from 0.
        features: float32 [P, C] at the picks, or None where the file has none.
        user_scores: uint8 [U, N], importance 1 to 5 by each rater, or None (SumMe, and TVSum as it is exchanged); of
            other sets any numbers.
        user_summary: bool [U, N], the frames each user would keep.
        change_points: int64 [G, 2], first and last frame of each shot, both inclusive (by KTS).
        n_frame_per_seg: int64 [G], frames of each shot.
        gtscore: float32 [P], the mean importance at the picks, as published.
    """

    dataset: str
    key: str
    name: str
    title: str
    category: str
    fps: float
    n_frames: int
    picks: np.ndarray
    features: np.ndarray | None
    user_scores: np.ndarray | None
    user_summary: np.ndarray
    change_points: np.ndarray
    n_frame_per_seg: np.ndarray
    gtscore: np.ndarray

    @property
    def ratings(self) -> np.ndarray | None:
        """What each rater said at the picks, [U, P]: importance 1 to 5, of SumMe 1 for the frames that a user would
        keep and 0 for others; None where the file has the raters' mean alone."""
        if self.dataset == "SumMe":
            return self.user_summary[:, self.picks].astype(np.uint8)
        return None if self.user_scores is None else self.user_scores[:, self.picks]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_frames / self.fps

    def ratings_at(self, times: np.ndarray) -> np.ndarray:
        """Each rater's score at the frame shown at `times` (seconds, [T]): float32 [U, T], 1 to 5."""
        if self.user_scores is None:
            raise VTSumError(
                f"ratings_at: video must have importance scores, got {self.dataset} {self.key} without any"
            )
        frames = np.clip((np.asarray(times, dtype=np.float64) * self.fps).astype(np.int64), 0, self.n_frames - 1)
        return self.user_scores[:, frames].astype(np.float32)


@dataclass(frozen=True)
class Caption:
    """A sentence about the span `start` to `end` of a video, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Split:
    """Video keys to train on, to test on and, where the file has them, to select on; no key is in two."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()


def load_tvsum(h5_path: str | Path, *, exchanged: bool = False) -> list[TVSumVideo]:
    """TVSum's annotated videos, in order video_1, video_2 ...

    Args:
        h5_path: the h5 file, which must also hold `user_scores` and `fps`.
        exchanged: take it without these two, which the file that most of the field exchanges lacks.
    Raises:
        VTSumError: the file is missing, is no h5 file, or a video lacks a field or has one of the wrong shape.
    """
    return _load_h5(Path(h5_path), "TVSum", exchanged)


def load_summe(h5_path: str | Path, *, exchanged: bool = False) -> list[TVSumVideo]:
    """SumMe's annotated videos through the same schema: no `user_scores`, and features only where the file has some."""
    return _load_h5(Path(h5_path), "SumMe", exchanged)


def load_captions(json_path: str | Path) -> dict[str, list[Caption]]:
    """Machine captions by video key; the file writes times as "mm:ss".

    TVSum's captions tile each video in about 11 equal spans, and often one more begins at the video's very end and
    reaches beyond it: clip to the duration before use. SumMe's overlap by a second.

    Raises:
        VTSumError: the file is missing, is no JSON, or an entry has a wrong time or no text.
    """
    path = Path(json_path)
    content = read_json(path, dict, "load_captions")
    captions: dict[str, list[Caption]] = {}
    for key, entries in content.items():
        if not isinstance(entries, list):
            raise VTSumError(f"load_captions: {path}: {key} must be a list of captions, got {named(entries)}")
        captions[key] = [_caption(entry, f"{path}: {key}[{i}]") for i, entry in enumerate(entries)]
    return captions


def load_splits(path: str | Path) -> dict[str, list[Split]]:
    """Splits by name, such as `disjoint_folds` (CSTA's, no test video twice) and `random_splits` (PGL-SUM's).

    A .json, or a .yml or .yaml, in one of the layouts that are exchanged: {name: [{"train": [...], "test": [...]}]}, or
    a list alone, [{"train_keys": [...], "test_keys": [...]}], which gets the name "splits"; of a key such as
    "../datasets/tvsum.h5/video_1" the last part counts. Or one split alone, as larger sets have, with "val" or
    "val_keys" to select on: it gets the name "split".

    Raises:
        VTSumError: the file is missing or in no such layout, or a split has no videos or shares one between train,
            test and validation.
    """
    op = f"load_splits: {path}"
    if Path(path).suffix.lower() in (".yml", ".yaml"):
        content = read_yaml(path, "load_splits", op)
    else:
        content = read_json(path, object, "load_splits")
    if isinstance(content, list):
        content = {"splits": content}
    elif isinstance(content, dict) and {"train", "train_keys"} & content.keys():
        content = {"split": [content]}
    if not isinstance(content, dict):
        raise VTSumError(f"{op} must hold an object or a list, got {as_said(content)}")
    return {str(name): _splits(entries, f"{op}: {name!s:.80}") for name, entries in content.items()}


def load_folds(path: str | Path, name: str, videos: Iterable[TVSumVideo]) -> list[Split]:
    """The splits of a name, all of videos that are there.

    Raises:
        VTSumError: see `load_splits`; or there is none of that name, or one of another video.
    """
    folds = load_splits(path).get(name)
    if not folds:
        raise VTSumError(f"load_folds: {path} must have splits called {name}, got none")
    named = {key for fold in folds for key in (*fold.train, *fold.test)}
    if strange := sorted(named - {video.key for video in videos}):
        raise VTSumError(f"load_folds: {path}: {name} must name videos of the h5 file, got {strange[:3]!s:.200}")
    return folds


def _splits(entries: Any, where: str) -> list[Split]:
    if not isinstance(entries, list):
        raise VTSumError(f"{where} must be a list of splits, got {named(entries)}")
    return [_split(entry, f"{where}[{i}]") for i, entry in enumerate(entries)]


def _split(entry: Any, where: str) -> Split:
    parts: dict[str, tuple[str, ...]] = {}
    for name in ("train", "test", "val"):
        keys = entry.get(name, entry.get(f"{name}_keys")) if isinstance(entry, Mapping) else None
        if name == "val" and keys is None:
            continue
        if not (isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys)):
            raise VTSumError(f"{where} must have the lists train and test, got {as_said(entry)}")
        parts[name] = tuple(key.rpartition("/")[2] for key in keys)
        if len(set(parts[name])) < len(keys):
            raise VTSumError(f"{where}: {name} must name each video once, got {keys!s:.80}")
    train, test, held = (set(parts.get(name, ())) for name in ("train", "test", "val"))
    if both := train & test:
        raise VTSumError(f"{where} must not train on a test video, got {sorted(both)}")
    if both := (train | test) & held:
        raise VTSumError(f"{where}: val must be videos of neither train nor test, got {sorted(both)[:3]}")
    return Split(parts["train"], parts["test"], parts.get("val", ()))


def _load_h5(path: Path, dataset: str, exchanged: bool) -> list[TVSumVideo]:
    function = f"load_{dataset.lower()}"
    with opened(path, function, "TVSum's schema") as file:
        keys = sorted(
            (key for key in file.keys if re.fullmatch(r"video_[0-9]{1,9}", key)), key=lambda key: int(key[6:])
        )
        if not keys:
            raise VTSumError(f"{function}: {path} must have groups video_1, video_2 ..., got {sorted(file.keys)[:3]}")
        return [_video(file.group(key), key, dataset, exchanged) for key in keys]


def _video(group: H5Group, key: str, dataset: str, exchanged: bool) -> TVSumVideo:
    where, numbers, checked = group.where, group.numbers, group.checked

    def has(name: str) -> bool:
        return not exchanged or name in group

    n_frames, fps = numbers("n_frames", np.int64, 0), numbers("fps", np.float64, 0) if has("fps") else math.nan
    if n_frames <= 0 or fps <= 0:  # NaN, of a file without any, is neither
        raise VTSumError(f"{where}: n_frames and fps must be positive, got {n_frames} and {fps}")
    if n_frames / fps > LONGEST:
        raise VTSumError(f"{where}: n_frames / fps must be at most {LONGEST:,} s, got {n_frames} / {fps}")
    picks = numbers("picks", np.int64, 1)
    if len(picks) == 0 or picks[0] < 0 or picks[-1] >= n_frames or np.any(np.diff(picks) <= 0):
        raise VTSumError(f"{where}: picks must rise within 0 to {n_frames - 1}, got {picks[:2]} ... {picks[-2:]}")
    summary = group.rated("user_summary", n_frames, 1)
    # TVSum's raters give 1 to 5, others what their scale is.
    scores = group.rated("user_scores", n_frames, HIGHEST) if dataset == "TVSum" and has("user_scores") else None
    if scores is not None:
        checked("user_scores", scores, (len(summary), n_frames))
    shots = numbers("change_points", np.int64, 2)
    checked("change_points", shots, (len(shots), 2))
    tiled = len(shots) > 0 and shots[0, 0] == 0 and shots[-1, 1] == n_frames - 1
    if not tiled or np.any(shots[1:, 0] != shots[:-1, 1] + 1) or np.any(shots[:, 1] < shots[:, 0]):
        raise VTSumError(f"{where}: change_points must tile frames 0 to {n_frames - 1}, got {shots.tolist()!s:.80}")
    if len(shots) * n_frames > MOST_WORK:
        raise VTSumError(
            f"{where}: shots times frames must be at most {MOST_WORK:,}, got {len(shots):,} of {n_frames:,} frames"
        )
    lengths = numbers("n_frame_per_seg", np.int64, 1)
    if not np.array_equal(lengths, shots[:, 1] - shots[:, 0] + 1):
        raise VTSumError(f"{where}: n_frame_per_seg must be the lengths of change_points, got {lengths.tolist()!s:.80}")
    features = group.features("features", len(picks))
    return TVSumVideo(
        dataset=dataset,
        key=key,
        name=check_id(group.text("video_name"), f"{where}: video_name") if "video_name" in group else "",
        title=group.text("title"),
        category=group.text("category"),
        fps=fps,
        n_frames=n_frames,
        picks=picks,
        features=features,
        user_scores=scores,
        user_summary=summary > 0,
        change_points=shots,
        n_frame_per_seg=lengths,
        gtscore=checked("gtscore", numbers("gtscore", np.float32, 1), (len(picks),)),
    )


def _caption(entry: Any, where: str) -> Caption:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("caption"), str) or not entry["caption"].strip():
        raise VTSumError(f"load_captions: {where} must have a caption, got {as_said(entry)}")
    times = []
    for name in ("start_mmss", "end_mmss"):
        match = _MMSS.fullmatch(str(entry.get(name)))
        if match is None:
            raise VTSumError(f"load_captions: {where}: {name} must be mm:ss, got {said_of(entry, name)}")
        times.append(60.0 * int(match[1]) + int(match[2]))
    if times[1] < times[0]:
        raise VTSumError(f"load_captions: {where}: end must not be before start, got {times[0]:g} to {times[1]:g} s")
    return Caption(times[0], times[1], " ".join(entry["caption"].split()))
