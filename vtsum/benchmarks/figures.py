"""From rows to a method's figures: means, their spread over seeds, differences to the ridge, paired by video, and what
selecting on the test videos adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtsum.benchmarks.methods import ON_TEST, REFERENCE
from vtsum.benchmarks.records import Head, Row
from vtsum.evaluation.baselines import Difference, Evaluation, Measure, average_scores, paired_difference

MEASURES: tuple[Measure, ...] = ("tau", "rho", "f")


@dataclass(frozen=True)
class Leak:
    """What a method gains where it is selected on the test videos: the difference of the means over the seeds that both
    ways were run with, paired by video."""

    seeds: int
    differences: dict[Measure, Difference]


@dataclass(frozen=True)
class Figures:
    """A method's.

    Attributes:
        method: its name. by_seed: the result with each seed for which every fold is done. mean: of each video the mean
            over seeds. differences: `mean` minus the ridge's, paired by video; empty for the ridge itself, and where
            there is none. leak: where it was selected on the test videos, and without that, too.
    """

    method: str
    by_seed: tuple[Evaluation, ...]
    mean: Evaluation
    differences: dict[Measure, Difference]
    leak: Leak | None = None

    def spread(self, measure: Measure) -> float | None:
        """Standard deviation over seeds; None with one alone."""
        values = [run.mean(measure) for run in self.by_seed]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def figures(head: Head, rows: Sequence[Row]) -> list[Figures]:
    """Of every method with a seed for which each fold is done, in the order in which they come. Of a method of which
    there are rows of several versions, the newest counts."""
    newest = {row.method: row.code for row in rows}
    found: dict[str, dict[int, dict[int, Row]]] = {method: {} for method in newest}
    for row in rows:
        if row.code == newest[row.method]:
            found[row.method].setdefault(row.seed, {})[row.fold] = row
    runs = {
        method: {seed: _joined(folds) for seed, folds in sorted(seeds.items()) if len(folds) == len(head.folds)}
        for method, seeds in found.items()
    }
    means = {method: _mean(list(by_seed.values())) for method, by_seed in runs.items() if by_seed}
    made = []
    for method, mean in means.items():
        base = means.get(REFERENCE) if method != REFERENCE else None
        leak = _leak(runs[method], runs.get(method.removesuffix(ON_TEST), {})) if method.endswith(ON_TEST) else None
        made.append(Figures(method, tuple(runs[method].values()), mean, _differences(mean, base) if base else {}, leak))
    return made


def _differences(one: Evaluation, other: Evaluation) -> dict[Measure, Difference]:
    return {measure: paired_difference(one, other, measure) for measure in MEASURES}


def _leak(on_test: dict[int, Evaluation], honest: dict[int, Evaluation]) -> Leak | None:
    seeds = sorted(on_test.keys() & honest.keys())
    if not seeds:
        return None
    means = [_mean([runs[seed] for seed in seeds]) for runs in (on_test, honest)]
    return Leak(len(seeds), _differences(*means))


def _joined(folds: dict[int, Row]) -> Evaluation:
    """A video that is tested in several folds counts with its average."""
    tested: dict[str, list] = {}
    for _, row in sorted(folds.items()):
        for key, score in row.videos.items():
            tested.setdefault(key, []).append(score)
    return Evaluation({key: average_scores(scores) for key, scores in tested.items()})


def _mean(by_seed: Sequence[Evaluation]) -> Evaluation:
    keys = by_seed[0].per_video
    return Evaluation({key: average_scores([run.per_video[key] for run in by_seed]) for key in keys})
