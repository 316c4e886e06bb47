"""From per-video values to a data set's figures: means, summed counts, and 95% intervals by bootstrap over videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vtsum.evaluation.captions import bleu
from vtsum.evaluation.java import meteor

MEASURES = ("f1", "kendall", "spearman", "bleu4", "meteor", "rouge_l", "cider", "vt_clipscore")
TITLES = {
    "f1": "F1",
    "kendall": "Kendall's tau",
    "spearman": "Spearman's rho",
    "bleu4": "BLEU@4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "vt_clipscore": "VT-CLIPScore",
}
SHOWN_TIMES = {name: 1 if name in ("kendall", "spearman") else 100 for name in MEASURES}
"""Tables show values times this, as the field does; files hold them as they are."""
CONFIDENCE = 0.95
MAX_RESAMPLES = 100_000

# Measures of the corpus that are no means over videos: what is summed, and what makes the measure of the sum.
COUNTED: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "bleu4": ("bleu_counts", bleu),
    "meteor": ("meteor_counts", meteor),
}


def values_of(measure: str, videos: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """The per-video values of a measure: [N], or [N, K] counts for BLEU and METEOR; None where they are not there."""
    key = COUNTED[measure][0] if measure in COUNTED else measure
    if not videos or any(video.get(key) is None for video in videos):
        return None
    return np.array([video[key] for video in videos], np.float64)


def corpus_value(measure: str, values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The measure of the data set, or of each resample of its videos.

    F1, rank correlations, ROUGE-L, CIDEr and VT-CLIPScore are means over videos (CIDEr's document frequencies stay
    those of the whole set); BLEU and METEOR are computed from counts summed over videos.

    Args:
        values: as `values_of` gives them. weights: [..., N], how often each video counts; None: once.
    """
    if weights is None:
        weights = np.ones(len(values))
    total = weights @ values
    return np.asarray(COUNTED[measure][1](total) if measure in COUNTED else total / weights.sum(axis=-1))


def resamples(videos: int, draws: int, seed: int) -> np.ndarray:
    """How often each video is drawn in each resample with replacement: [draws, videos]."""
    chances = np.full(videos, 1 / videos)
    return np.random.default_rng(seed).multinomial(videos, chances, size=draws).astype(np.float64)


def with_interval(measure: str, values: Sequence[np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Value and percentile interval of a measure, averaged over `values` (several draws of a random baseline)."""
    value = np.mean([corpus_value(measure, one) for one in values])
    low, high = interval(np.mean([corpus_value(measure, one, weights) for one in values], axis=0))
    return {"value": float(value), "low": low, "high": high}


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The percentiles that enclose 95% of the resamples."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def format_value(measure: str, value: float) -> str:
    """As papers print it: one decimal of a hundredfold, three of a rank correlation."""
    shown = value * SHOWN_TIMES[measure]
    return f"{shown:.1f}" if SHOWN_TIMES[measure] == 100 else f"{shown:.3f}"
