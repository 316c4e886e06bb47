"""VideoXum's measures of chosen frames: F1, Kendall's tau and Spearman's rho, under three protocols.

"videoxum-released" is what the published evaluation computes, its quirks included. "videoxum-top15" is the same with
the rule for F1 that was meant: the best 15% of the frames. "videoxum-strict" mends the quirks. Each function says what
differs; docs/protocols.md shows by how much. The figures of two protocols never stand in one column.

Source: Lin et al., "VideoXum", arXiv 2303.12060, and its published evaluation code (github.com/jylins/videoxum).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from vtsum.errors import VTSumError

RELEASED, TOP15, STRICT = "videoxum-released", "videoxum-top15", "videoxum-strict"
REVISIONS = {RELEASED: 2, TOP15: 1, STRICT: 2}
"""The protocols, each with its revision: the number grows when other figures come out, and figures of two revisions do
not compare either. Files from before have none: their "videoxum-released" is what "videoxum-top15" is now, and their
"videoxum-strict" took the positions of videos longer than the model's table from the batch they were in."""
PROTOCOLS = tuple(REVISIONS)
SHARE = 0.15
"""Of a video's frames that a summary holds."""


class FrameMeasures(NamedTuple):
    """One video's: F1 (mean and best over annotators, 0..1), Kendall's tau-b and Spearman's rho (-1..1)."""

    f1: float
    f1_max: float
    kendall: float
    spearman: float


def check_protocol(protocol: str, function: str) -> None:
    """Raise VTSumError for what is no protocol."""
    if protocol not in PROTOCOLS:
        raise VTSumError(f"{function}: protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")


def summary_length(frames: int) -> int:
    """How many of `frames` frames 15% are: int(0.15 N), at least 1."""
    return max(1, int(frames * SHARE))


def choose_frames(logits: np.ndarray, protocol: str) -> np.ndarray:
    """The frames of the summary: [T] scores -> bool [T].

    released: every frame whose float32 logit is at least that of frame N - 1 - int(0.15 N) in time: the published code
    sorts along an axis of length 1, that is not at all. How many frames that are, about half on average, depends on
    that one frame's score. top15: every frame whose float32 logit is at least the value at index int(0.15 N) of the
    logits in falling order: one frame too many, and all that tie with it. strict: exactly max(1, int(0.15 N)) frames,
    those with the highest logits in float64; of equal ones the earlier frame.

    Raises:
        VTSumError: logits that are not [T] with T >= 1, or not finite; an unknown protocol.
    """
    check_protocol(protocol, "choose_frames")
    scores = _scores(logits, protocol)
    if protocol == STRICT:
        chosen = np.zeros(len(scores), bool)
        chosen[np.argsort(-scores, kind="stable")[: summary_length(len(scores))]] = True
        return chosen
    ordered = np.sort(scores) if protocol == TOP15 else scores
    return np.asarray(scores >= ordered[::-1][int(len(scores) * SHARE)])


def f1_scores(chosen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """F1 of the chosen frames, bool [T], against each row of `labels`, 0/1 [A, T] -> float64 [A].

    2 TP / (chosen + labelled), 0 where both are empty: scikit-learn's `f1_score`. The same under every protocol.
    """
    _check_labels(labels, len(chosen))
    marked = np.asarray(labels) > 0
    both = (marked & chosen).sum(axis=1)
    total = marked.sum(axis=1) + chosen.sum()
    return np.divide(2.0 * both, total, out=np.zeros(len(marked)), where=total > 0)


def rank_measures(logits: np.ndarray, labels: np.ndarray, protocol: str) -> tuple[float, float]:
    """Kendall's tau-b and Spearman's rho of the scores [T] with the mean of the annotators' masks [A, T].

    released and top15: the scores are float32 sigmoids, so that logits beyond about 17 all become 1 and tie. (Their
    last bit can depend on where in a padded batch a frame lies, so with many near ties published figures may differ
    from these in the fourth digit.) strict: the logits themselves, in float64. Where one side is constant (or T < 2) a
    rank correlation is undefined; every protocol counts 0 for it.
    """
    from scipy.stats import kendalltau, rankdata, spearmanr

    check_protocol(protocol, "rank_measures")
    scores = _scores(logits, protocol)
    _check_labels(labels, len(scores))
    if protocol != STRICT:
        import torch

        scores = torch.from_numpy(scores).sigmoid().numpy()
        mean = np.asarray(labels, np.float32).sum(axis=0) / np.float32(len(labels))
    else:
        mean = np.asarray(labels, np.float64).sum(axis=0)
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(mean) == 0:
        return 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tau = float(kendalltau(rankdata(-mean), rankdata(-scores)).statistic)
        rho = float(spearmanr(mean, scores).statistic)
    return (0.0 if np.isnan(tau) else tau), (0.0 if np.isnan(rho) else rho)


def frame_measures(logits: np.ndarray, labels: np.ndarray, protocol: str) -> FrameMeasures:
    """All measures of one video's saliency.

    Args:
        logits: [T] saliency before the sigmoid.
        labels: [A, T], 0/1, one row an annotator (VideoXum has ten).
        protocol: one of PROTOCOLS; see choose_frames and rank_measures.
    Raises:
        VTSumError: shapes that do not match, logits that are not finite, an unknown protocol.
    """
    f1 = f1_scores(choose_frames(logits, protocol), labels)
    return FrameMeasures(float(f1.mean()), float(f1.max()), *rank_measures(logits, labels, protocol))


def clip_frames(logits: np.ndarray, protocol: str) -> np.ndarray:
    """Indices of the frames whose features VT-CLIPScore averages, best first.

    released and top15: the top max(1, int(0.15 N)) of float32(logit) + 10,000, a sum that keeps steps of about 0.001
    only, so that near ones tie, and the product 0.15 N is float32 too. Of equal ones the earlier frame is taken; the
    published evaluation leaves that to an unstable sort. strict: the frames of choose_frames.
    """
    check_protocol(protocol, "clip_frames")
    scores = _scores(logits, protocol)
    count = summary_length(len(scores))
    if protocol != STRICT:
        count = max(1, int(np.float32(len(scores)) * np.float32(SHARE)))
        scores = scores + np.float32(1e4)
    return np.argsort(-scores, kind="stable")[:count]


def evenly_spaced(frames: int, count: int) -> np.ndarray:
    """Indices of `count` frames out of `frames`, the middles of as many equal parts."""
    count = min(count, frames)
    return ((2 * np.arange(count) + 1) * frames) // (2 * count)


def _scores(logits: np.ndarray, protocol: str) -> np.ndarray:
    scores = np.asarray(logits, np.float64 if protocol == STRICT else np.float32)
    if scores.ndim != 1 or len(scores) == 0:
        raise VTSumError(f"frame_measures: logits must be [T] with T >= 1, got {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise VTSumError(f"frame_measures: logits must be finite, got {scores[~np.isfinite(scores)][0]}")
    return scores


def _check_labels(labels: np.ndarray, frames: int) -> None:
    shape = np.shape(labels)
    if len(shape) != 2 or shape[0] == 0 or shape[1] != frames:
        raise VTSumError(f"frame_measures: labels must be [A, T] with T = {frames}, got {list(shape)}")
