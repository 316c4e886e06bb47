"""One row after the other: a method on a fold with a seed; what is done already is not done again."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from vtsum.benchmarks import baselines
from vtsum.benchmarks.data import Data, divide
from vtsum.benchmarks.methods import ALWAYS, REFERENCE, Entry, entry_of
from vtsum.benchmarks.records import Records, Row
from vtsum.data.tvsum import TVSumVideo
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import VideoScore, score_video
from vtsum.shown import reason


def entries_of(names: Sequence[str], data: Data, device: str) -> list[Entry]:
    """The methods that are always compared, and those named.

    Raises:
        VTSumError: a name that stands for nothing, or for something that needs features which the file has not.
    """
    missing = {name for name, lacks in ((REFERENCE, data.without_features), ("human", data.one_rater)) if lacks}
    always = [name for name in ALWAYS if name not in missing]
    entries = [entry_of(name, device) for name in dict.fromkeys([*always, *names])]
    for entry in entries:
        if entry.learns and data.without_features:
            raise VTSumError(
                f"benchmark: method {entry.name} must have the features of every video, got a file without those of "
                f"{', '.join(data.without_features[:3])}"
            )
    return entries


def run(
    data: Data,
    entries: Sequence[Entry],
    seeds: int,
    records: Records,
    device: str = "cpu",
    progress: Callable[..., None] = lambda *args, **more: None,
) -> None:
    """Add to `records` the rows that it lacks: of every method each fold, with seeds 0 to `seeds` - 1 where it has any.

    Args:
        progress: called with ("rows", done, total, what comes next).
    Raises:
        VTSumError: a method's scores are not as many as there are picks, or not finite; the disk is full.
    """
    done = {(row.method, row.code, row.fold, row.seed) for row in records.rows}
    plan = [
        (entry, fold, seed)
        for entry in entries
        for seed in range(seeds if entry.seeded else 1)
        for fold in range(len(data.folds))
    ]
    left = [(e, fold, seed) for e, fold, seed in plan if (e.name, e.code, fold, seed) not in done]
    for i, (entry, fold, seed) in enumerate(left):
        progress("rows", len(plan) - len(left) + i, len(plan), f"{entry.name}, fold {fold + 1}, seed {seed}")
        start = time.monotonic()
        videos = _scores(data, entry, fold, seed, device)
        seconds = round(time.monotonic() - start, 3)
        records.add(Row(entry.name, entry.code, fold, seed, seconds, device if entry.is_network else "", videos))
    progress("rows", len(plan), len(plan))


def _scores(data: Data, entry: Entry, fold: int, seed: int, device: str) -> dict[str, VideoScore]:
    split = data.folds[fold]
    tested = [data.videos[key] for key in split.test]
    if not entry.learns:
        measure = getattr(baselines, entry.name)
        return {video.key: measure(video, seed) for video in tested}
    if entry.on_test:
        keys, held = [*split.train, *split.validation], list(split.test)
    elif split.validation:
        keys, held = list(split.train), list(split.validation)
    else:
        keys, held = divide(split.train, seed)
    method = entry.make(device)
    with _in_code_of(entry, "fit"):
        method.fit([data.videos[key] for key in keys], [data.videos[key] for key in held], seed)
    found = {}
    for video in tested:
        assert video.features is not None  # entries_of saw to it
        with _in_code_of(entry, "predict"):
            given = method.predict(video.features.copy())
        scores = _checked(given, f"{entry.name}: predict", video)
        found[video.key] = score_video(scores, video)
    return found


@contextmanager
def _in_code_of(entry: Entry, step: str) -> Iterator[None]:
    """What a user's class raises is the user's to mend: told with its place, not to be reported to us."""
    try:
        yield
    except VTSumError:
        raise
    except Exception as error:
        if not entry.is_users:
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise VTSumError(
            f"benchmark: {entry.name}: {step} must not raise, got {type(error).__name__}: {reason(error):.200} (line "
            f"{at.lineno} of {at.filename})"
        ) from error


def _checked(given: Any, what: str, video: TVSumVideo) -> np.ndarray:
    try:
        scores, got = np.asarray(given), ""
    except Exception as error:  # lists of several lengths, a tensor with a gradient: of each library a kind of its own
        scores, got = np.empty(0), f"{type(given).__name__}: {reason(error):.120}"
    with np.errstate(all="ignore"):  # what does not fit is told
        kept = scores.astype(np.float64) if scores.dtype.kind in "fiub" else np.empty(0)
        finite = scores.shape == kept.shape == video.picks.shape and np.isfinite(np.ptp(kept))  # as F scales them
    if not finite:
        raise VTSumError(
            f"benchmark: {what} must give {len(video.picks)} finite numbers for {video.key}, got "
            f"{got or f'{scores.dtype} of shape {list(scores.shape)}'}"
        )
    return kept
