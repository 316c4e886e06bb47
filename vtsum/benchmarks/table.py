"""The table of a benchmark in Markdown, the protocol above it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vtsum.benchmarks.data import VALIDATION
from vtsum.benchmarks.figures import MEASURES, Figures
from vtsum.benchmarks.methods import ON_TEST, REFERENCE
from vtsum.benchmarks.records import Head
from vtsum.evaluation.baselines import Evaluation, Measure

TITLES: dict[Measure, str] = {"tau": "tau", "rho": "rho", "f": "F"}
_RATERS = {"tvsum": "rater's importance scores", "summe": "user's binary summary"}
_F = {"tvsum": "mean over users", "summe": "best user"}


def caption(head: Head) -> str:
    """What the figures are, in a paragraph."""
    tested = [key for fold in head.folds for key in fold.test]
    kind = "disjoint" if len(set(tested)) == len(tested) else "overlapping"
    name = "TVSum" if head.benchmark == "tvsum" else "SumMe"
    return (
        f"{name}, {len(set(tested))} videos, {len(head.folds)} {kind} folds ({head.folds_name}). tau-b and rho of raw "
        f"scores against each {_RATERS[head.benchmark]} at every 15th frame, the mean; F of keyshot summaries of 15%, "
        f"{_F[head.benchmark]}. Epochs selected on one in {VALIDATION} training videos; with {ON_TEST} on the test "
        "videos, as much published code does: a leak. ± after a figure: standard deviation over seeds; after a "
        f"difference to {REFERENCE}: standard error over videos, paired."
    )


def table(head: Head, rows: Sequence[Figures]) -> str:
    """Caption and table; a measure that the file cannot give is "n/a"."""
    names = [TITLES[measure] for measure in MEASURES]
    heads = ["method", "seeds", *names, *(f"{name} - {REFERENCE}" for name in names)]
    lines = [caption(head), "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in sorted(rows, key=_rank):
        cells = [row.method.replace("|", "\\|"), str(len(row.by_seed))]
        for measure in MEASURES:
            cells.append(_number(row.mean.mean(measure), row.spread(measure), measure))
        for measure in MEASURES:
            found = row.differences.get(measure)
            cells.append("" if found is None else _number(found.mean, found.standard_error, measure, sign="+"))
        lines.append(f"| {' | '.join(cells)} |")
    if any(math.isnan(row.mean.mean("tau")) for row in rows):
        lines += ["", "tau and rho need what each rater said (user_scores), which this h5 file has not."]
    return "\n".join(lines)


def _rank(row: Figures) -> tuple[float, float]:
    """The best last, so that it stands beside the ceiling."""
    mean: Evaluation = row.mean
    return (0.0 if math.isnan(mean.rho) else mean.rho, mean.f)


def _number(value: float, error: float | None, measure: Measure, sign: str = "") -> str:
    if math.isnan(value):
        return "n/a"
    times, digits = (100, 1) if measure == "f" else (1, 3)
    text = f"{times * value:{sign}.{digits}f}"
    return text if error is None or math.isnan(error) else f"{text} ± {times * error:.{digits}f}"
