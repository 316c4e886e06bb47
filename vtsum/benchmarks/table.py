"""The table of a benchmark in Markdown, the protocol above it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vtsum.benchmarks.data import VALIDATION
from vtsum.benchmarks.figures import MEASURES, Figures, Leak
from vtsum.benchmarks.methods import ON_TEST, REFERENCE
from vtsum.benchmarks.records import Head
from vtsum.evaluation.baselines import Evaluation, Measure
from vtsum.markup import markdown

TITLES: dict[Measure, str] = {"tau": "tau", "rho": "rho", "f": "F"}
_KEYSHOTS = "F of keyshot summaries of 15%, "
_PROTOCOLS = {
    "tvsum": ("TVSum", f"rater's importance scores at every 15th frame, the mean; {_KEYSHOTS}mean over users"),
    "summe": ("SumMe", f"user's binary summary at every 15th frame, the mean; {_KEYSHOTS}best user"),
    "mrhisum": ("Mr. HiSum", f"second's most-replayed score; {_KEYSHOTS}against the file's own"),
    "s-videoxum": (
        "S-VideoXum",
        "annotator's marks of the seconds, the mean; F of the best 15% of the seconds, mean over annotators",
    ),
}


def caption(head: Head, folds_name: str) -> str:
    """What the figures are, in a paragraph; `folds_name` as it is to be written."""
    tested = [key for fold in head.folds for key in fold.test]
    kind = "disjoint" if len(set(tested)) == len(tested) else "overlapping"
    name, figures = _PROTOCOLS[head.benchmark]
    folds = f"{len(set(tested))} videos, {len(head.folds)} {kind} folds ({folds_name})"
    if len(head.folds) == 1:
        learned, held = len(head.folds[0].train), len(head.folds[0].validation)
        folds = f"{len(tested)} videos tested, {learned} to learn from" + (f", {held} to select on" if held else "")
    own = any(fold.validation for fold in head.folds)
    return (
        f"{name}, {folds}. tau-b and rho of raw scores against each {figures}. Epochs selected on "
        f"{'the validation videos' if own else f'one in {VALIDATION} training videos'}; with {ON_TEST} on the test "
        "videos, as much published code does: a leak. ± after a figure: standard deviation over seeds; after a "
        f"difference to {REFERENCE}: standard error over videos, paired."
    )


def table(head: Head, rows: Sequence[Figures]) -> str:
    """Caption and table; a measure that the file cannot give is "n/a"."""
    names = [TITLES[measure] for measure in MEASURES]
    said = caption(head, markdown(f"{head.folds_name:.80}"))
    heads = ["method", "seeds", *names, *(f"{name} - {REFERENCE}" for name in names)]
    lines = [said, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in sorted(rows, key=_rank):
        cells = [markdown(row.method), str(len(row.by_seed))]
        for measure in MEASURES:
            cells.append(_number(row.mean.mean(measure), row.spread(measure), measure))
        for measure in MEASURES:
            found = row.differences.get(measure)
            cells.append("" if found is None else _number(found.mean, found.standard_error, measure, sign="+"))
        lines.append(f"| {' | '.join(cells)} |")
    leaks = [f"{markdown(row.method.removesuffix(ON_TEST))} {_gain(row.leak)}" for row in rows if row.leak]
    if leaks:
        said = "What selection on the test videos adds, with the same seeds, paired by video: "
        lines += ["", f"{said}{'; '.join(leaks)}."]
    if any(math.isnan(row.mean.mean("tau")) for row in rows):
        lines += ["", "tau and rho need what each rater said (user_scores), which this h5 file has not."]
    return "\n".join(lines)


def _gain(leak: Leak) -> str:
    of = ((measure, leak.differences[measure]) for measure in MEASURES)
    told = [f"{TITLES[measure]} {_number(it.mean, it.standard_error, measure, sign='+')}" for measure, it in of]
    return f"{', '.join(told)} ({leak.seeds} seed{'s' if leak.seeds > 1 else ''})"


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
