"""What is compared on: annotated videos, the folds, and which training videos a model is selected on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtsum.data.large_sets import load_mrhisum, load_script_videoxum
from vtsum.data.tvsum import Split, TVSumVideo, load_splits, load_summe, load_tvsum
from vtsum.errors import VTSumError

BENCHMARKS: dict[str, Callable[[Path, Collection[str] | None], list[TVSumVideo]]] = {
    "tvsum": lambda h5, only: load_tvsum(h5, exchanged=True),
    "summe": lambda h5, only: load_summe(h5, exchanged=True),
    "mrhisum": load_mrhisum,
    "s-videoxum": load_script_videoxum,
}
"""Videos of an h5 file: of large sets only those that a splits file names."""
ONE_RATER = ("mrhisum",)
FOLDS = 5
VALIDATION = 5
"""One training video in so many is for selection."""


@dataclass(frozen=True)
class Data:
    """Attributes:
    benchmark: one of BENCHMARKS. videos: by key. h5_sha256: of the file. folds_name: as the splits file calls
        them, or "drawn by seed N". folds: keys to train and to test on.
    """

    benchmark: str
    videos: dict[str, TVSumVideo]
    h5_sha256: str
    folds_name: str
    folds: tuple[Split, ...]

    @property
    def one_rater(self) -> bool:
        """Whether no rater can be held against another."""
        return self.benchmark in ONE_RATER

    @property
    def without_features(self) -> list[str]:
        return [key for key, video in self.videos.items() if video.features is None]


def load_data(
    benchmark: str, h5: Path, splits: Path | None = None, folds: str | None = None, split_seed: int = 0
) -> Data:
    """Read the h5 file, and the splits file where there is one.

    Args:
        benchmark: one of BENCHMARKS. splits: None: five disjoint folds, drawn by `split_seed`. folds: which of the
            splits file's; None: its disjoint_folds, or the only ones.
    Raises:
        VTSumError: what is missing, broken or does not go together.
    """
    if benchmark not in BENCHMARKS:
        raise VTSumError(f"benchmark: name must be {' or '.join(BENCHMARKS)}, got {benchmark!r:.40}")
    chosen: list[Split] = []
    if splits is not None:
        name, chosen = _chosen(splits, folds)
    named = {key for fold in chosen for key in (*fold.train, *fold.test, *fold.validation)}
    videos = {video.key: video for video in BENCHMARKS[benchmark](h5, named or None)}
    least = 1 if benchmark in ONE_RATER else 2
    for key, video in videos.items():
        if len(video.user_summary) < least or len(video.picks) < 2:
            raise VTSumError(
                f"benchmark: {h5}: {key} must have at least {least} rater{'s'[: least - 1]} and 2 picks, got "
                f"{len(video.user_summary)} and {len(video.picks)}"
            )
    if len({video.features.shape[1] for video in videos.values() if video.features is not None}) > 1:
        raise VTSumError(f"benchmark: {h5}: features must be as wide in every video, got several widths")
    if splits is None:
        name, chosen = f"drawn by seed {split_seed}", draw_folds(list(videos), split_seed)
    elif strange := sorted(named - videos.keys()):
        raise VTSumError(f"benchmark: {splits}: {name:.80} must name videos of {h5}, got {strange[:3]!s:.200}")
    for fold in chosen:
        if len(fold.train) < 2 and not fold.validation:
            raise VTSumError(
                f"benchmark: {splits or h5}: each fold must have 2 training videos or more, one of them to select on, "
                f"got {len(fold.train)}"
            )
    with open(h5, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Data(benchmark, videos, digest, name, tuple(chosen))


def draw_folds(keys: Sequence[str], seed: int, count: int = FOLDS) -> list[Split]:
    """Disjoint folds of nearly equal size: each video is tested once, by a model that saw the other folds alone.

    Raises:
        VTSumError: fewer videos than folds.
    """
    if len(keys) < count:
        raise VTSumError(f"benchmark: videos must be at least {count}, one a fold, got {len(keys)}; give --splits")
    shuffled = np.random.default_rng(seed).permutation(len(keys))
    tested = [sorted(part) for part in np.array_split(shuffled, count)]
    return [
        Split(tuple(key for i, key in enumerate(keys) if i not in part), tuple(keys[i] for i in part))
        for part in tested
    ]


def divide(train: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Training videos to learn from and to select on, where the fold has none for that; the same for every method."""
    shuffled = np.random.default_rng(seed).permutation(len(train))
    held = set(shuffled[: max(1, round(len(train) / VALIDATION))].tolist())
    return [key for i, key in enumerate(train) if i not in held], [train[i] for i in sorted(held)]


def _chosen(path: Path, folds: str | None) -> tuple[str, list[Split]]:
    offered = {name: found for name, found in load_splits(path).items() if found}
    if folds is None:
        folds = next(iter(offered)) if len(offered) == 1 else "disjoint_folds"
    if folds not in offered:
        raise VTSumError(
            f"benchmark: folds must be among {', '.join(offered) or 'none':.200} of {path}, got {folds!r:.40}"
        )
    return folds, offered[folds]
