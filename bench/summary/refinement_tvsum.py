"""Refined summaries on TVSum: F against the users' summaries, and how different the shown frames are.

Scores come from a ridge on the file's features (disjoint folds: each video is scored by a model that never saw it), and
from the embedded model on the ten videos that it was not trained on. Two ways to a summary of 15 %:

keyshots  whole shots at the file's change points, the field's protocol; a shot is worth the mean of its scores
plan      what `vtsum summarize` does: our own shots, clips trimmed to their best part

Diversity is the mean of 1 - cosine over all pairs of shown frames (every 15th of the video), by the file's features.
Source: Zhou, Qiao, Xiang, "Deep reinforcement learning for unsupervised video summarization", AAAI 2018, equation 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench.summary.tvsum import embeddings, frames_at, ridge
from vtsum.data.tvsum import TVSumVideo, load_folds, load_tvsum
from vtsum.enhance.event_segmentation import METHOD, PictureChanges
from vtsum.enhance.summary_refinement import (
    STRENGTH,
    discount_repeats,
    parse_budget,
    select_diverse,
    select_shots,
    smooth_scores,
)
from vtsum.evaluation.baselines import every_fifth, random_scores
from vtsum.evaluation.fscore import SUMMARY_SHARE, summary_f_score
from vtsum.evaluation.rank import rank_correlation
from vtsum.model.neighbourhood import neighbourhood_features
from vtsum.summary.planning import Refine, make_plan
from vtsum.summary.watching import SMOOTHING, Watched
from vtsum.video.info import VideoInfo

STRENGTHS = (0.001, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
UNSMOOTHED = "dpp, scores not smoothed"
SMOOTHINGS = (("none", 0.0), ("tv", 0.1), ("tv", 0.2), ("tv", 0.5), ("gaussian", 1.0), ("gaussian", 2.0))

Choose = Callable[[np.ndarray, np.ndarray, int, np.ndarray], list[int]]


@dataclass(frozen=True)
class Scored:
    """A video with scores 0..1, at the picks and at `fps` a second, where the features that saw them are, too."""

    video: TVSumVideo
    unit: np.ndarray  # [P, C] the file's features at the picks, of unit length
    at_picks: np.ndarray  # [P]
    features: np.ndarray  # [T, C'] at fps
    saliency: np.ndarray  # [T]
    fps: float


def unit_rows(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def stretched(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / max(float(np.ptp(x)), 1e-12)


def by_ridge(shared: Path) -> list[Scored]:
    videos = load_tvsum(shared / "tvsum" / "tvsum.h5")
    rows, targets = {}, {}
    for video in videos:
        assert video.features is not None
        rows[video.key] = neighbourhood_features(video.features)
        targets[video.key] = video.ratings_at(video.picks / video.fps).mean(axis=0)
    weights = ridge(rows, targets, load_folds(shared / "tvsum" / "splits.json", "disjoint_folds", videos))
    found = []
    for video in videos:
        assert video.features is not None
        own = stretched(rows[video.key] @ weights[video.key])
        found.append(Scored(video, unit_rows(video.features), own, video.features, own, video.fps / 15))
    return found


def by_embedded(shared: Path) -> list[Scored]:
    from vtsum.model import load

    model = load("embedded")
    videos = load_tvsum(shared / "tvsum" / "tvsum.h5")
    found = []
    for video in videos:
        if video.key not in every_fifth(videos).test:
            continue
        assert video.features is not None
        times = np.arange(0.0, video.duration, 1.0)
        features = embeddings(model, frames_at(shared, video, times))
        saliency = model.saliency(features)
        at_picks = stretched(np.interp(video.picks / video.fps, times, saliency))
        found.append(Scored(video, unit_rows(video.features), at_picks, model.event_features(features), saliency, 1.0))
    return found


SOURCES: dict[str, Callable[[Path], list[Scored]]] = {"ridge": by_ridge, "embedded": by_embedded}


def keyshots(one: Scored, choose: Choose) -> np.ndarray:
    """bool [N]: the frames of the chosen shots."""
    video = one.video
    frames = np.repeat(one.at_picks.astype(np.float32), np.diff(np.append(video.picks, video.n_frames)))
    worth = np.array([float(frames[first : last + 1].mean()) for first, last in video.change_points])
    vectors = []
    for first, last in video.change_points:
        inside = (video.picks >= first) & (video.picks <= last)
        if not inside.any():
            inside = np.arange(len(video.picks)) == np.abs(video.picks - (first + last) / 2).argmin()
        vectors.append(one.unit[inside].mean(axis=0))
    kept = np.zeros(video.n_frames, dtype=bool)
    for shot in choose(worth, video.n_frame_per_seg, int(SUMMARY_SHARE * video.n_frames), np.array(vectors)):
        first, last = video.change_points[shot]
        kept[first : last + 1] = True
    return kept


def planned(
    one: Scored,
    refine: Refine,
    smooth: float = 0.0,
    *,
    segmenter: str = METHOD,
    boundary_scores: np.ndarray | None = None,
) -> np.ndarray:
    """bool [N]: the frames of the clips that `vtsum summarize` would show; `smooth`: frames, of a Gaussian."""
    video, saliency = one.video, smooth_scores(one.saliency, "gaussian", smooth)
    seen = np.ones(len(saliency), dtype=bool)
    watched = Watched(one.features, one.features, saliency, video.duration, None, [], PictureChanges(), seen)
    info = VideoInfo(Path(video.name), video.duration, 640, 360, video.fps, 0, False, "h264", None, "mp4", None, 0)
    more: dict[str, Any] = {"segmenter": segmenter, "refine": refine, "boundary_scores": boundary_scores}
    plan = make_plan(watched, parse_budget("15%"), info, one.fps, **more)
    kept = np.zeros(video.n_frames, dtype=bool)
    for clip in plan.clips.values():
        kept[round(clip.start / plan.rate * video.fps) : round(clip.end / plan.rate * video.fps)] = True
    return kept


def chooser(method: str, strength: float) -> Choose:
    """The ways to choose shots that are compared; strength is the DPP's."""

    def repeats(worth: np.ndarray, lengths: np.ndarray, budget: int, vectors: np.ndarray) -> list[int]:
        u = unit_rows(vectors)
        scatter = max(1.0 - float((u.mean(axis=0) ** 2).sum()), 1e-9)
        return select_shots(discount_repeats(worth, u, scatter)[0], lengths, budget)

    ways: dict[str, Choose] = {
        "knapsack": lambda worth, lengths, budget, vectors: select_shots(worth, lengths, budget),
        "repeats": repeats,
        "dpp": lambda worth, lengths, budget, vectors: select_diverse(
            worth, lengths, budget, vectors, strength=strength
        ),
        "unlike": lambda worth, lengths, budget, vectors: select_diverse(
            worth, lengths, budget, np.eye(len(worth)), strength=strength, scale=1e-3
        ),
    }
    return ways[method]


def figures(one: Scored, kept: np.ndarray) -> tuple[float, float, float]:
    """F, diversity, and the share of the budget that is used."""
    f = summary_f_score(kept, one.video.user_summary, one.video.dataset)
    shown = one.unit[kept[one.video.picks]]
    pairs = len(shown) * (len(shown) - 1)
    like = float((shown.sum(axis=0) ** 2).sum()) - len(shown)
    return f, 1.0 - like / pairs if pairs else 0.0, float(kept.mean()) / SUMMARY_SHARE


def mean_and_error(values: np.ndarray) -> list[float]:
    return [round(float(values.mean()), 5), round(float(values.std(ddof=1) / np.sqrt(len(values))), 5)]


def random_rows(scored: list[Scored]) -> np.ndarray:
    """[videos, 3]: `figures` of the plain knapsack over random frame scores, the mean over their draws."""
    choose = chooser("knapsack", 1.0)
    draws = [
        [figures(one, keyshots(replace(one, at_picks=stretched(scores[one.video.key])), choose)) for one in scored]
        for scores in random_scores([one.video for one in scored])
    ]
    return np.mean(draws, axis=0)


def measure(source: str, scored: list[Scored]) -> Iterator[dict[str, Any]]:
    """A record for each way; differences are to the knapsack (plans: to "none"), paired by video."""
    runs: list[tuple[str, str, float | None]] = [("keyshots", name, None) for name in ("knapsack", "random", "repeats")]
    runs += [("keyshots", "unlike", STRENGTH), *(("keyshots", "dpp", strength) for strength in STRENGTHS)]
    runs += [("plan", refine, None) for refine in (*reversed(get_args(Refine)), UNSMOOTHED)]

    def rows_of(protocol: str, method: str, strength: float | None) -> np.ndarray:
        if method == "random":
            return random_rows(scored)
        if protocol == "keyshots":
            kept = [keyshots(one, chooser(method, strength or 1.0)) for one in scored]
        elif method == UNSMOOTHED:
            kept = [planned(one, "dpp") for one in scored]
        else:
            kept = [planned(one, method, SMOOTHING) for one in scored]  # type: ignore[arg-type]
        return np.array([figures(one, frames) for one, frames in zip(scored, kept, strict=True)])

    base: dict[str, np.ndarray] = {}
    for protocol, method, used in runs:
        rows = rows_of(protocol, method, used)
        first = base.setdefault(protocol, rows)
        yield {
            "part": "tvsum",
            "source": source,
            "protocol": protocol,
            "method": method,
            "strength": used,
            "videos": len(rows),
            "f": mean_and_error(rows[:, 0]),
            "diversity": mean_and_error(rows[:, 1]),
            "budget_used": round(float(rows[:, 2].mean()), 4),
            "f_difference": mean_and_error(rows[:, 0] - first[:, 0]),
            "diversity_difference": mean_and_error(rows[:, 1] - first[:, 1]),
        }


def measure_smoothing(source: str, scored: list[Scored]) -> Iterator[dict[str, Any]]:
    """Rank correlations of smoothed scores with the raters; differences to the scores as they are, paired by video."""
    base: np.ndarray | None = None
    for method, strength in SMOOTHINGS:
        rows = []
        for one in scored:
            own = one.at_picks if method == "none" else smooth_scores(one.at_picks, method, strength)  # type: ignore[arg-type]
            rows.append(rank_correlation(own, one.video))
        found = np.array(rows)
        base = found if base is None else base
        yield {
            "part": "smoothing",
            "source": source,
            "method": method,
            "strength": strength,
            "videos": len(found),
            "tau": mean_and_error(found[:, 0]),
            "rho": mean_and_error(found[:, 1]),
            "tau_difference": mean_and_error(found[:, 0] - base[:, 0]),
        }
