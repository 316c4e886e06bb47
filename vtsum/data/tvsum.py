"""TVSum and SumMe: the annotations in the field's h5 schema, machine captions, and the splits.

Source: Song et al., "TVSum: Summarizing web videos using titles", CVPR 2015; Gygli et al., "Creating summaries from
user videos", ECCV 2014; the h5 schema (features, picks, change_points, user_summary ...) is that of Zhang et al., ECCV
2016, in which nearly all later work exchanges both data sets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.feature_files import check_id
from vtsum.data.rules import LONGEST
from vtsum.errors import VTSumError
from vtsum.reading import read_json
from vtsum.yaml_file import read_yaml

H5_LIMIT = 2**30
"""Bytes that one field of a video may have, as numbers of 4 bytes or more."""
MOST_WORK = 3 * 10**8
"""Shots times frames of a video: what the choice of shots takes grows with it. TVSum's largest have 3 million."""
_PACKED, _SPARE = 1100, 1 << 26
"""Bytes that one byte of a file unpacks to at most (zlib's are 1,032), and those that it may have besides: HDF5 reads
what was never written as zeros, and one field by many names."""
_MMSS = re.compile(r"([0-9]{1,6}):([0-5][0-9])")


@dataclass(frozen=True, eq=False)
class TVSumVideo:
    """One annotated video of TVSum or SumMe. N: frames of the video, P: picks, U: raters, G: shots.

    Attributes:
        dataset: "TVSum" or "SumMe".
        key: "video_1" ... as in the splits.
        name: YouTube id (TVSum) or title with underscores (SumMe).
        title, category: of the TVSum list; empty for SumMe.
        fps: frames a second of the annotated file; NaN where the h5 file does not say.
        n_frames: N.
        picks: int64 [P], the frames that features and scores belong to: every 15th, from 0.
        features: float32 [P, C] at the picks, or None where the file has none.
        user_scores: uint8 [U, N], importance 1 to 5 by each rater, or None (SumMe, and TVSum as it is exchanged).
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
    """Video keys to train on and to test on; no key is in both."""

    train: tuple[str, ...]
    test: tuple[str, ...]


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
            raise VTSumError(f"load_captions: {path}: {key} must be a list of captions, got {type(entries).__name__}")
        captions[key] = [_caption(entry, f"{path}: {key}[{i}]") for i, entry in enumerate(entries)]
    return captions


def load_splits(path: str | Path) -> dict[str, list[Split]]:
    """Splits by name, such as `disjoint_folds` (CSTA's, no test video twice) and `random_splits` (PGL-SUM's).

    A .json, or a .yml or .yaml, in one of the two layouts that are exchanged: {name: [{"train": [...], "test":
    [...]}]}, or a list alone, [{"train_keys": [...], "test_keys": [...]}], which gets the name "splits"; of a key such
    as "../datasets/tvsum.h5/video_1" the last part counts.

    Raises:
        VTSumError: the file is missing or in neither layout, or a split has no videos or shares one between train and
            test.
    """
    op = f"load_splits: {path}"
    if Path(path).suffix.lower() in (".yml", ".yaml"):
        content = read_yaml(path, "load_splits", op)
    else:
        content = read_json(path, object, "load_splits")
    if isinstance(content, list):
        content = {"splits": content}
    if not isinstance(content, dict):
        raise VTSumError(f"{op} must hold an object or a list, got {content!r:.80}")
    return {str(name): _splits(entries, f"{op}: {name!s:.80}") for name, entries in content.items()}


def _splits(entries: Any, where: str) -> list[Split]:
    if not isinstance(entries, list):
        raise VTSumError(f"{where} must be a list of splits, got {type(entries).__name__}")
    return [_split(entry, f"{where}[{i}]") for i, entry in enumerate(entries)]


def _split(entry: Any, where: str) -> Split:
    parts = []
    for name in ("train", "test"):
        keys = entry.get(name, entry.get(f"{name}_keys")) if isinstance(entry, Mapping) else None
        if not (isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys)):
            raise VTSumError(f"{where} must have the lists train and test, got {entry!r:.80}")
        parts.append(tuple(key.rpartition("/")[2] for key in keys))
        if len(set(parts[-1])) < len(keys):
            raise VTSumError(f"{where}: {name} must name each video once, got {keys!s:.80}")
    if both := set(parts[0]) & set(parts[1]):
        raise VTSumError(f"{where} must not train on a test video, got {sorted(both)}")
    return Split(*parts)


def _load_h5(path: Path, dataset: str, exchanged: bool) -> list[TVSumVideo]:
    function = f"load_{dataset.lower()}"
    try:
        import h5py
    except ImportError:
        raise VTSumError(f"{function}: h5py must be installed to read {path}; pip install 'vtsum[eval]'") from None
    if not path.is_file():
        raise VTSumError(f"{function}: h5_path must be a file, got {path}")
    try:
        with h5py.File(path, "r") as file:
            keys = sorted((key for key in file if re.fullmatch(r"video_[0-9]{1,9}", key)), key=lambda key: int(key[6:]))
            if not keys:
                raise VTSumError(f"{function}: {path} must have groups video_1, video_2 ..., got {sorted(file)[:3]}")
            left = _PACKED * path.stat().st_size + _SPARE

            def take(count: int) -> None:
                nonlocal left
                left -= count
                if left < 0:
                    raise VTSumError(f"{function}: {path} must hold what it states, got a file that unpacks to more")

            return [_video(file, key, dataset, exchanged, f"{function}: {path}: {key}", take) for key in keys]
    except VTSumError:
        raise
    except Exception as error:  # HDF5 and NumPy on what a broken file holds, each with kinds of its own
        reason = " ".join(str(error).split())
        raise VTSumError(f"{function}: {path} must be an h5 file in TVSum's schema, got: {reason:.200}") from None


def _own(group: Any, name: str, kind: type, where: str) -> Any:
    """A member of `group` that lies in this very file: links and mapped data could show any other file's content."""
    import h5py

    link = group.get(name, getlink=True)  # first: to ask whether `name in group` would follow the link
    if link is None:
        raise VTSumError(f"{where} must have the field {name}, got {sorted(group)!s:.200}")
    if not isinstance(link, h5py.HardLink):
        raise VTSumError(f"{where}: {name} must lie in the file itself, got a link")
    found: Any = group[name]
    right = isinstance(found, kind)  # apart from the `if`, which would have mypy forget what `found` can do
    if not right:
        raise VTSumError(f"{where}: {name} must be an h5 {kind.__name__.lower()}, got {type(found).__name__}")
    if kind is h5py.Dataset:
        if found.is_virtual or found.external:
            raise VTSumError(f"{where}: {name} must lie in the file itself, got one mapped from elsewhere")
        text = h5py.check_string_dtype(found.dtype) is not None
        if found.dtype.kind not in "fiub" and not text:
            raise VTSumError(f"{where}: {name} must hold numbers or text, got {found.dtype!s:.80}")
        if text and found.shape != ():  # each of many texts may be the same long one
            raise VTSumError(f"{where}: {name} must be one text or hold numbers, got text of shape {found.shape!s:.80}")
        # Numbers become float32 at least.
        if found.shape is None or found.size * max(found.dtype.itemsize, 4) > H5_LIMIT:
            raise VTSumError(f"{where}: {name} must have at most {H5_LIMIT} bytes, got shape {found.shape!s:.80}")
    return found


def _video(file: Any, key: str, dataset: str, exchanged: bool, where: str, take: Callable[[int], None]) -> TVSumVideo:
    """take: is told the bytes of each field before it is read."""
    import h5py

    group = _own(file, key, h5py.Group, where)

    def read(name: str) -> Any:
        found = _own(group, name, h5py.Dataset, where)
        take(found.size * max(found.dtype.itemsize, 4))
        return found[()]

    def text(name: str) -> str:
        value = read(name) if there(name) else b""
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def there(name: str) -> bool:
        return group.get(name, getlink=True) is not None

    def numbers(name: str, dtype: type, dimensions: int) -> Any:
        """A field as finite numbers of a kind, int64 if they must be whole; one number where it has no dimensions."""
        array = np.asarray(read(name))
        if array.dtype.kind not in "fiub":
            raise VTSumError(f"{where}: {name} must hold numbers, got text")
        if array.ndim != dimensions:
            raise VTSumError(f"{where}: {name} must have {dimensions} dimensions, got shape {list(array.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is told
            made: np.ndarray = array.astype(dtype)
            bad = made != array if dtype is np.int64 else ~np.isfinite(made)
        if bad.any():
            rule = "whole numbers" if dtype is np.int64 else "finite"
            raise VTSumError(f"{where}: {name} must be {rule}, got {array[bad][0]}")
        return made if dimensions else made.item()

    def checked(name: str, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        if array.shape != tuple(shape):
            raise VTSumError(f"{where}: {name} must be of shape {list(shape)}, got {list(array.shape)}")
        return array

    def rated(name: str, least: int, most: int) -> np.ndarray:
        """What each rater said of each frame."""
        array = np.asarray(read(name))
        checked(name, array, (*array.shape[:1], n_frames))
        if array.dtype.kind not in "fiub" or not (good := (least <= array) & (array <= most)).all():
            found = array.dtype if array.dtype.kind not in "fiub" else array[~good][0]
            raise VTSumError(f"{where}: {name} must be from {least} to {most}, got {found}")
        return array

    def has(name: str) -> bool:
        return not exchanged or there(name)

    n_frames, fps = numbers("n_frames", np.int64, 0), numbers("fps", np.float64, 0) if has("fps") else math.nan
    if n_frames <= 0 or fps <= 0:  # NaN, of a file without any, is neither
        raise VTSumError(f"{where}: n_frames and fps must be positive, got {n_frames} and {fps}")
    if n_frames / fps > LONGEST:
        raise VTSumError(f"{where}: n_frames / fps must be at most {LONGEST:,} s, got {n_frames} / {fps}")
    picks = numbers("picks", np.int64, 1)
    if picks.ndim != 1 or len(picks) == 0 or picks[0] < 0 or picks[-1] >= n_frames or np.any(np.diff(picks) <= 0):
        raise VTSumError(f"{where}: picks must rise within 0 to {n_frames - 1}, got {picks[:2]} ... {picks[-2:]}")
    summary = rated("user_summary", 0, 1)
    scores = rated("user_scores", 1, 5) if dataset == "TVSum" and has("user_scores") else None
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
    features = numbers("features", np.float32, 2) if there("features") else None
    if features is not None:
        checked("features", features, (len(picks), features.shape[1]))
    return TVSumVideo(
        dataset=dataset,
        key=key,
        name=check_id(text("video_name"), f"{where}: video_name") if there("video_name") else "",
        title=text("title"),
        category=text("category"),
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
        raise VTSumError(f"load_captions: {where} must have a caption, got {entry!r:.80}")
    times = []
    for name in ("start_mmss", "end_mmss"):
        match = _MMSS.fullmatch(str(entry.get(name)))
        if match is None:
            raise VTSumError(f"load_captions: {where}: {name} must be mm:ss, got {entry.get(name)!r}")
        times.append(60.0 * int(match[1]) + int(match[2]))
    if times[1] < times[0]:
        raise VTSumError(f"load_captions: {where}: end must not be before start, got {times[0]:g} to {times[1]:g} s")
    return Caption(times[0], times[1], " ".join(entry["caption"].split()))
