"""Several trainings of one model that differ by their seed as one row: mean, standard deviation, and paired tests.

What varies is the videos and the trainings, so that intervals come from resampling both: the videos of a draw are the
same for all trainings and models (pairs), the trainings are drawn anew for each model. Beside them stand two tests of
SciPy's: Wilcoxon's signed ranks over videos, each video's value the mean over trainings, and Welch's t test over
trainings, each training's value the data set's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_scores import COUNTED, MEASURES, corpus_value, interval, resamples, values_of

MEMBERS = "members"
"""The key under which a pooled evaluation holds the evaluations that it was made of."""
Evaluation = Mapping[str, Any]


def grouped(evaluations: Sequence[Evaluation], names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """One evaluation for each name, in the order in which names come first; those of one name are pooled.

    Raises:
        VTSumError: two of one name are of the same weights, or of other videos.
    """
    rows = list(dict.fromkeys(names))
    groups = [[e for e, name in zip(evaluations, names, strict=True) if name == row] for row in rows]
    return [_pooled(name, group, number) for number, (name, group) in enumerate(zip(rows, groups, strict=True))], rows


def _pooled(name: str, members: list[Evaluation], number: int) -> dict[str, Any]:
    first = members[0]
    if len(members) == 1:
        return {**first, MEMBERS: members}
    weights = [str(sha) for member in members if (sha := member["checkpoint"].get("sha256")) is not None]
    if len(set(weights)) < len(weights):
        raise VTSumError(f"table: evaluations of one name must be of different trainings, got one of {name} twice")
    if any(_ids(member) != _ids(first) for member in members):
        raise VTSumError(f"table: evaluations of one name must be of the same videos, got others under {name}")
    measures = {}
    for measure in MEASURES:
        cells = [member["measures"][measure] for member in members]
        lacking = next((cell for cell in cells if cell["value"] is None), None)
        if lacking is not None:
            measures[measure] = dict(lacking)
            continue
        values = np.array([cell["value"] for cell in cells])
        low, high = interval(_resampled(measure, members, first, number))
        mean, sd = float(values.mean()), float(values.std(ddof=1))
        measures[measure] = {"value": mean, "low": low, "high": high, "sd": sd, "seeds": len(cells)}
    return {**first, "measures": measures, MEMBERS: members}


def differences(ours: Evaluation, theirs: Evaluation, number: int) -> dict[str, dict[str, float | None]]:
    """By measure, `ours` minus `theirs`, both of `grouped`: value, low, high, p_videos and p_seeds (None where there
    are no two trainings each, or for BLEU and METEOR, which no single video has); none where their videos differ.

    Args:
        number: of `ours` among the rows.
    """
    found: dict[str, dict[str, float | None]] = {}
    if sorted(_ids(ours)) != sorted(_ids(theirs)):
        return found
    for measure in MEASURES:
        a, b = (_values(measure, each[MEMBERS], theirs) for each in (ours, theirs))
        if a is None or b is None:
            continue
        low, high = interval(
            _resampled(measure, ours[MEMBERS], theirs, number) - _resampled(measure, theirs[MEMBERS], theirs, 0)
        )
        totals = [[float(corpus_value(measure, values)) for values in each] for each in (a, b)]
        found[measure] = {
            "value": float(np.mean(totals[0]) - np.mean(totals[1])),
            "low": low,
            "high": high,
            "p_videos": None if measure in COUNTED else _over_videos(np.mean(a, 0) - np.mean(b, 0)),
            "p_seeds": _over_seeds(*totals),
        }
    return found


def _over_videos(difference: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue) if difference.any() else 1.0


def _over_seeds(ours: list[float], theirs: list[float]) -> float | None:
    from scipy.stats import ttest_ind

    if min(len(ours), len(theirs)) < 2 or not (np.ptp(ours) or np.ptp(theirs)):
        return None
    return float(ttest_ind(ours, theirs, equal_var=False).pvalue)


def _ids(evaluation: Evaluation) -> list[str]:
    return [video["video_id"] for video in evaluation["videos"]]


def _values(measure: str, members: Sequence[Evaluation], order: Evaluation) -> list[np.ndarray] | None:
    """Per-video values of each training, the videos in the order of another evaluation."""
    made = []
    for member in members:
        videos = {video["video_id"]: video for video in member["videos"]}
        values = values_of(measure, [videos[name] for name in _ids(order)])
        if values is None:
            return None
        made.append(values)
    return made


def _resampled(measure: str, members: Sequence[Evaluation], order: Evaluation, number: int) -> np.ndarray:
    """The measure of each resample of videos and trainings: [draws]."""
    draws, seed = order["settings"]["resamples"], order["settings"]["seed"]
    weights = resamples(len(order["videos"]), draws, seed)
    values = _values(measure, members, order)
    assert values is not None  # asked for only where it was measured
    each = np.stack([corpus_value(measure, one, weights) for one in values], 1)
    count = len(members)
    drawn = np.random.default_rng([seed, number]).multinomial(count, np.full(count, 1 / count), size=draws)
    return np.asarray((each * drawn).sum(1) / count)
