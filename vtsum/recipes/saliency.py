"""Give the embedded model's head a ridge beside it: a regression on its own features, fitted to TVSum's raters.

    python -m vtsum.recipes.saliency --shared ../shared --out runs/saliency --install

Closed forms, a minute's work (`vtsum.model.ridge_saliency`); the network and its sentences stay as they are. It learns
from the forty training videos. The calibration is of scores that each of five parts of them got from a ridge of the
other four; the head's, which has seen all five, are left out of it. The figures: the ten held-out videos, by both, by
the head alone and by the ridge alone, and of the ridge alone five disjoint folds of all fifty, each scored by a ridge
that has not seen it (the frame encoder has seen the frames of forty of the videos, but no rating).
`vtsum.recipes.embedded` calls this as its last stage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum.data.tvsum import Split, load_folds
from vtsum.evaluation.baselines import (
    Evaluation,
    evaluate_scores,
    every_fifth,
    paired_difference,
    ridge_moments,
    scores_at_picks,
    solve_ridge,
)
from vtsum.evaluation.rank import mean_ranks
from vtsum.files import check_inputs
from vtsum.model.neighbourhood import units
from vtsum.model.ridge_saliency import RidgeSaliency, columns
from vtsum.model.summarizer import EMBEDDED
from vtsum.model.vtsum import VTSum
from vtsum.recipes.boundaries import embed, install, write
from vtsum.recipes.command import FEATURES, check_model, status, tvsum
from vtsum.recipes.joint import Example, evaluate, grid

PENALTY = 150.0
"""Half of the benchmark's ridge's (`vtsum.benchmarks.ridge`), which has two rows a second where this one has one."""
PARTS = 5


def fit(examples: Sequence[Example]) -> RidgeSaliency:
    """The ridge of some videos, each of which counts alike, and its calibration."""
    parts = [examples[i::PARTS] for i in range(min(PARTS, len(examples)))]
    scores, kept = [], []
    for part in parts:
        ridge = _ridge([e for e in examples if not any(e is other for other in part)] or examples)
        for example in part:
            times = grid(example, None)
            scores.append(ridge.scores(example.at(times)[0]))
            kept.append(_kept(example, times))
    return replace(_ridge(examples), calibration=calibrate(np.concatenate(scores), np.concatenate(kept)))


def _ridge(examples: Sequence[Example]) -> RidgeSaliency:
    grids = [grid(example, None) for example in examples]
    features = [example.at(times)[0] for example, times in zip(examples, grids, strict=True)]
    mean = np.concatenate([units(rows) for rows in features]).mean(axis=0)
    length = float(np.mean([len(times) for times in grids]))
    moments = []
    for example, times, rows in zip(examples, grids, features, strict=True):
        found = ridge_moments(columns(rows, mean).astype(np.float32), mean_ranks(example.at(times)[1]))
        moments.append(found.counted_as(length))
    return RidgeSaliency(mean, solve_ridge(moments, PENALTY).astype(np.float64), np.array([1.0, 0.0]))


def _kept(example: Example, times: np.ndarray) -> np.ndarray:
    """The share of users whose summary has each frame, [T]."""
    video = example.video
    frames = np.minimum((times * video.fps).astype(np.int64), video.n_frames - 1)
    return np.asarray(video.user_summary[:, frames].mean(axis=0))


def calibrate(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Slope and offset of the straight line from scores to shares with the least squares: float64 [2].

    A logistic curve has no frame below 0, but it draws low scores together, and shots that are chosen by such means
    are longer and fewer: F on the folds falls by 2.
    """
    return np.polyfit(scores, kept, 1)


def evaluated(saliency: Callable[[np.ndarray], np.ndarray], examples: Iterable[Example]) -> Evaluation:
    """What is made of features a second apart, carried over to the picks, under both protocols."""
    examples, scores = list(examples), {}
    for example in examples:
        times = grid(example, None)
        scores[example.video.key] = scores_at_picks(times, saliency(example.at(times)[0]), example.video)
    return evaluate_scores(scores, [example.video for example in examples])


def add_saliency(
    model: VTSum, examples: Mapping[str, Example], folds: Sequence[Split]
) -> tuple[RidgeSaliency, dict[str, Any]]:
    """The ridge of the training videos, and the facts about it for config.json."""
    split = every_fifth([e.video for e in examples.values()])
    ridge = fit([examples[key] for key in split.train])
    tested = [examples[key] for key in split.test]

    def saliency(features: np.ndarray) -> np.ndarray:
        return ridge.saliency(features, _head(model, features))

    both = evaluated(saliency, tested)
    head, alone = evaluate(model, tested), evaluated(ridge.scores, tested)
    difference = paired_difference(both, head, "tau")
    apart: dict[str, Any] = {}
    for fold in folds:
        found = evaluated(_ridge([examples[key] for key in fold.train]).scores, [examples[key] for key in fold.test])
        apart |= found.per_video
    return ridge, {
        "held_out": _figures(both),
        "held_out_minus_head_tau": [difference.mean, difference.standard_error],
        "head_on_held_out": _figures(head),
        "ridge_on_held_out": _figures(alone),
        "ridge_on_disjoint_folds": _figures(Evaluation(apart)),
        "calibration": ridge.calibration.tolist(),
        "calibration_on_held_out": _calibration(saliency, tested),
    }


@torch.inference_mode()
def _head(model: VTSum, features: np.ndarray) -> np.ndarray:
    model.eval()
    x = torch.from_numpy(features.astype(np.float32))[None]
    return np.asarray(model.saliency_logits(model.encode(x))[0].numpy())


def _calibration(saliency: Callable[[np.ndarray], np.ndarray], examples: Sequence[Example]) -> dict[str, float]:
    """The share of viewers that is stated of the frames and the one that keeps them, and how much more of these keep
    frames of which one more is stated."""
    grids = [grid(example, None) for example in examples]
    stated = np.concatenate([saliency(e.at(times)[0]) for e, times in zip(examples, grids, strict=True)])
    kept = np.concatenate([_kept(e, times) for e, times in zip(examples, grids, strict=True)])
    return {
        "stated": float(stated.mean()),
        "kept": float(kept.mean()),
        "slope": float(np.polyfit(stated.astype(np.float64), kept, 1)[0]),
    }


def _figures(found: Evaluation) -> dict[str, float]:
    return {"tau": found.tau, "rho": found.rho, "f": found.mean("f")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds tvsum/")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="model folder to start from")
    parser.add_argument("--out", type=Path, default=Path("runs/saliency"))
    parser.add_argument("--install", action="store_true", help="copy the model into vtsum/assets/embedded")
    parser.add_argument("--overwrite", action="store_true", help="replace an older model")
    a = parser.parse_args(arguments)

    def work() -> None:
        check_inputs("saliency", a.out / "model", [a.model, a.shared])
        check_model("saliency", a.out, a.overwrite)
        torch.manual_seed(0)
        videos = tvsum("saliency", a.shared)
        folds = load_folds(a.shared / "tvsum" / "splits.json", "disjoint_folds", videos)
        examples = embed(a.model, a.shared, videos, a.out / FEATURES)
        checkpoint = VTSum.load_checkpoint(a.model)
        ridge, facts = add_saliency(checkpoint.model, examples, folds)
        check_model("saliency", a.out, a.overwrite)  # somebody may have put it there meanwhile
        write(checkpoint.model, {**checkpoint.facts, "saliency": facts}, a.out / "model", ridge)
        print(json.dumps(facts, indent=1))
        if a.install:
            install(a.out / "model")

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
