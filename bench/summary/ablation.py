"""What each enhancement module adds: the pipeline with everything on, and with one module off or replaced.

    python -m bench.summary.ablation [--shared DIR] [--parts ridge embedded drawn] [--videos 5]

DIR holds tvsum/; without it only the drawn videos are measured. Everything on is what `vtsum summarize` does unless
told otherwise. Frame sampling is off where every frame is encoded; refinement where the knapsack takes the shots as
they are, gaps stay and cuts are not moved; smoothing where the saliency is the model's as it comes; speech where cuts
know nothing of pauses; event segmentation where shots are 5 s long.

    ridge      50 videos of TVSum, disjoint folds: a ridge on the teacher's features, 1.5 frames a second. There is no
               boundary head for these, so that "joint" is KTS
    embedded   the ten videos of TVSum that the embedded model never saw, at one frame a second
    drawn      drawn videos of two minutes with planted cuts, dissolves and events, and passages read by espeak-ng

On TVSum: tau and rho of the saliency after Otani et al. 2019; F against the users' summaries and diversity of the plan
of 15 % (refinement_tvsum.py), not of whole shots at the file's change points, so that F is no literature's.
TVSum's stored frames are too few for cuts and liveliness, and have no sound. Differences are to everything on, paired
by video, with the standard error over videos. Lines go to results/ablation.jsonl.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import machine, run_name
from bench.summary.ablation_drawn import measure_drawn
from bench.summary.ablation_variants import DRAWS, ON_DRAWN, ON_TVSUM, Variant, line
from bench.summary.frame_sampling import Case, embedded_cases, ridge_cases, ridge_scorer
from bench.summary.refinement_tvsum import Scored, figures, planned, stretched, unit_rows
from vtsum.data.tvsum import load_tvsum
from vtsum.enhance.frame_sampling import EvenChooser, FrameChooser, spread
from vtsum.enhance.summary_refinement import smooth_scores
from vtsum.evaluation.baselines import scores_at_picks
from vtsum.evaluation.rank import rank_correlation
from vtsum.summary.watching import AT_LEAST, SHARE, SMOOTHING, Sampler

PARTS = ("ridge", "embedded", "drawn")
COLUMNS = ("tau", "rho", "f", "diversity", "encoded")


@dataclass(frozen=True)
class Reader:
    """What reads a case's features [T, C]: saliency [T], boundary scores [T] or none, the columns that tell events."""

    saliency: Callable[[Case, np.ndarray], np.ndarray]
    boundaries: Callable[[np.ndarray], np.ndarray | None]
    events: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Look:
    """A case after sampling: its scores, its boundary scores, tau and rho of its saliency, the share encoded."""

    one: Scored
    boundaries: np.ndarray | None
    ranks: tuple[float, float]
    encoded: float


def encoded_frames(cheap: np.ndarray, sampler: Sampler) -> np.ndarray:
    """The frames that `vtsum.summary.watching` would encode, from thumbnails' features [T, C']."""
    if sampler == "all":
        return np.arange(len(cheap))
    chooser = (FrameChooser if sampler == "coverage" else EvenChooser)(SHARE, at_least=AT_LEAST)
    return np.array(chooser.see(cheap) + chooser.finish(), dtype=np.int64)


def look(
    case: Case, sampler: Sampler, reader: Reader, saliency: np.ndarray | None = None, *, smooth: bool = True
) -> Look:
    """Sample a case and read what was encoded; `saliency` [T] is taken instead of the reader's."""
    video = case.video
    picks = encoded_frames(case.cheap, sampler)
    features = case.full if sampler == "all" else spread(case.full[picks], picks, len(case.full), like=case.cheap)
    own = reader.saliency(case, features) if saliency is None else saliency
    if smooth:
        own = smooth_scores(own, "gaussian", SMOOTHING)
    at_picks = scores_at_picks(case.times, own, video)
    assert video.features is not None
    one = Scored(
        video, unit_rows(video.features), stretched(at_picks), reader.events(features), stretched(own), case.rate
    )
    return Look(one, reader.boundaries(features), rank_correlation(at_picks, video), len(picks) / len(case.full))


def row(seen: Look, variant: Variant) -> list[float]:
    """COLUMNS of one video."""
    kept = planned(seen.one, variant.refine, segmenter=variant.segmenter, boundary_scores=seen.boundaries)
    f, diversity, _ = figures(seen.one, kept)
    return [*seen.ranks, f, diversity, seen.encoded]


def measure_tvsum(
    part: str, cases: Sequence[Case], reader: Reader, variants: Sequence[Variant]
) -> Iterator[dict[str, Any]]:
    """A record for each variant, everything on first."""
    looks: dict[tuple[Sampler, bool], list[Look]] = {}
    base: np.ndarray | None = None
    for variant in variants:
        if variant.random:
            rng = np.random.default_rng(0)
            draws = [
                [row(look(case, variant.sampler, reader, rng.random(len(case.full))), variant) for case in cases]
                for _ in range(DRAWS)
            ]
            rows = np.mean(draws, axis=0)
        else:
            key = variant.sampler, variant.smooth
            if key not in looks:
                looks[key] = [look(case, variant.sampler, reader, smooth=variant.smooth) for case in cases]
            rows = np.array([row(seen, variant) for seen in looks[key]])
        base = rows if base is None else base
        yield line(part, variant.name, COLUMNS, rows, base)


def on_tvsum(part: str, shared: Path, model: Any) -> Iterator[dict[str, Any]]:
    """`measure_tvsum` with what a part takes for scores."""
    videos = load_tvsum(shared / "tvsum" / "tvsum.h5")
    if part == "ridge":
        cases = ridge_cases(shared, videos)
        reader = Reader(ridge_scorer(cases, shared), lambda features: None, lambda features: features)
    else:
        cases = embedded_cases(shared, videos, model)
        reader = Reader(lambda _, features: model.saliency(features), model.boundaries, model.event_features)
    return measure_tvsum(part, cases, reader, ON_TVSUM[part])


def main() -> None:
    given = parser(__doc__, "ablation", shared=None)
    given.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--videos", type=int, default=5, help="drawn videos, at least 2")
    options = given.parse_args()
    if options.videos < 2:
        given.error(f"--videos must be at least 2, got {options.videos}")
    from vtsum.model import load

    model = load("embedded")
    facts = {"op": "ablation", "run": run_name(), "weights": model.weights_sha256[:16]}
    facts |= machine(("numpy", "torch", "av"))
    for part in options.parts:
        if part == "drawn":
            keep(options.results, facts, measure_drawn(model, range(options.videos), ON_DRAWN))
        elif options.shared is None:
            print(f"{part}: left out, needs --shared", flush=True)
        else:
            keep(options.results, facts, on_tvsum(part, options.shared, model))


if __name__ == "__main__":
    main()
