"""One call for every way of finding the events of a video."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from vtsum import plugins
from vtsum.enhance.event_segmentation.kernel import cheapest, checked_lengths, kts
from vtsum.enhance.event_segmentation.pictures import PictureChanges
from vtsum.enhance.event_segmentation.segments import Segment, between, checked_features
from vtsum.errors import VTSumError
from vtsum.protocols import Segmenter

METHODS = ("kts", "learned", "joint", "cuts", "uniform")
METHOD = "joint"  # measured best on planted boundaries, and no worse than KTS on TVSum (docs/event_segmentation.md)
_ROWS = 4096  # that are brought to unit length at once
PENALTY = 0.5  # of KTS here, in units of the mean scatter of the video's frames
SHORTEST, LONGEST = 2.0, 60.0  # seconds; a video of less than ten times the first may have segments half as long
THRESHOLD = 0.5  # the probability from which the boundary head speaks for a change point
# Scatter of unit features below which pictures that stand still show no events: slides have ten times as much, coding
# noise less. Of other encoders it may be far less all along.
STILL = 1e-5
HEAD_WEIGHT = 0.1  # "joint": what a log-odds of 1 from the boundary head takes off a change point, in penalties
CUT_WEIGHT = 1.0  # "joint": what a cut takes off, in penalties
EVEN = 5.0  # seconds of a segment of "uniform"


def segment(
    features: np.ndarray,
    method: str = METHOD,
    *,
    fps: float = 1.0,
    duration: float | None = None,
    max_segments: int | None = None,
    min_length: float | None = None,
    max_length: float | None = LONGEST,
    boundary_scores: np.ndarray | None = None,
    changes: PictureChanges | None = None,
    start: float = 0.0,
) -> list[Segment]:
    """Cut a video into its events.

    "kts": kernel temporal segmentation of the features at unit length, with a penalty of PENALTY times the video's own
    scatter, but at least four times its frame-to-frame noise, so that the flicker of a still scene makes no events; and
    at least STILL where `changes` are of pictures that stand still throughout.
    "learned": the boundaries b that maximise the sum of logit(boundary_scores[b]) - logit(THRESHOLD). "joint": KTS
    whose change points cost less where the boundary head or the pictures say so. "cuts": the cuts and dissolves of the
    pictures, the clearest first. "uniform": equal lengths near EVEN seconds. All are exact among segmentations whose
    lengths are within min_length..max_length, so "cuts" and "learned" leave out the weaker of two boundaries that lie
    too near.

    Args:
        features (Tensor): [T, C], finite; frames sampled evenly. Only KTS looks at their values.
        method (str): one of METHODS, or one of the user's own (`vtsum.plugins`), whose boundaries are held to the same
            lengths.
        fps (float): sampled frames a second.
        duration (float | None): seconds of the video; None: T / fps.
        max_segments (int | None): at most so many.
        min_length, max_length (float | None): seconds. None: SHORTEST, or half of it in a video of less than ten times
            that; no upper bound. max_length counts as at least twice min_length.
        boundary_scores (array | None): [T], 0..1, the probability that an event begins at the frame
            (`Summarizer.boundaries`); for "learned", and for "joint" where there is one.
        changes (PictureChanges | None): of the video's pictures; for "cuts", and for "joint" where there is one. With
            any method it puts a boundary's time at the cut itself; else that is the middle between the two frames.
        start (float): when frame 0 is, in seconds of `changes`.
    Returns:
        list[Segment]: in order, covering all frames and 0..duration seconds without gaps; empty for T = 0. A video
            shorter than min_length is one.
    Raises:
        ValueError: features of a wrong shape or not finite, or a setting that is out of its range.
        VTSumError: an unknown method, or one whose evidence is missing.
    """
    x = _made_unit(checked_features(features, "segment"))
    own = find_segmenter(method, "segment: method")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"segment: fps must be above 0, got {fps}")
    if duration is not None and not (math.isfinite(duration) and duration >= 0):
        raise ValueError(f"segment: duration must be at least 0 seconds, got {duration}")
    if max_segments is not None and max_segments < 1:
        raise ValueError(f"segment: max_segments must be at least 1, got {max_segments}")
    frames = len(x)
    scores = _checked_scores(boundary_scores, frames)
    if method == "learned" and scores is None:
        raise VTSumError("segment: boundary_scores must be given for 'learned' (the model needs a boundary head)")
    if method == "cuts" and changes is None:
        raise VTSumError("segment: changes must be given for 'cuts' (PictureChanges of the video's pictures)")
    cuts = [(time - start, strength) for time, strength in changes.cuts()] if changes is not None else []
    shortest, longest = _lengths(frames, fps, min_length, max_length)
    if frames <= shortest:
        found = [Segment(0, frames)] if frames else []
    else:
        checked_lengths("segment", frames, shortest, longest, max_segments)
        if own is not None:
            found = _by_prices(_own_prices(own, method, x, fps), shortest, longest, max_segments)
        elif method in ("kts", "joint"):
            stands = changes is not None and changes.is_still(
                start, start + (frames / fps if duration is None else duration)
            )
            penalty = max(_penalty(x), STILL if stands else 0.0)
            prices = penalty * _evidence(scores, cuts, fps, frames) if method == "joint" else None
            found = kts(
                x,
                max_segments=max_segments,
                min_length=shortest,
                max_length=longest,
                penalty=penalty,
                prices=prices,
            )
        elif method == "uniform":
            found = _even(frames, shortest, longest, fps, max_segments)
        else:
            prices = (
                _log_odds_prices(scores)
                if scores is not None and method == "learned"
                else _cut_prices(cuts, fps, frames)
            )
            found = _by_prices(prices, shortest, longest, max_segments)
    return _timed(found, fps, frames / fps if duration is None else duration, cuts)


def find_segmenter(method: str, what: str) -> Segmenter | None:
    """The user's own segmenter of that name; None for one of METHODS.

    Raises:
        VTSumError: neither, or a segmenter that cannot be had; `what` names the argument.
    """
    if method in METHODS:
        return None
    own: Segmenter | None = plugins.find("segmenter", method)
    if own is None:
        raise VTSumError(f"{what} must be one of {', '.join(METHODS)} or module:Class, got {method!r}")
    return own


def find_shots(
    features: np.ndarray,
    fps: float,
    *,
    shortest: float | None = None,
    longest: float = LONGEST,
    method: str = METHOD,
    boundary_scores: np.ndarray | None = None,
    changes: PictureChanges | None = None,
    start: float = 0.0,
) -> tuple[list[Segment], np.ndarray, float]:
    """The events of a video, and what a summary wants to know of them.

    Args:
        features, fps, method, boundary_scores, changes, start: as for `segment`.
        shortest, longest (float): its min_length and max_length, in seconds.
    Returns:
        (list[Segment], array, float): the shots, [M, C] their mean unit features, and the mean squared distance of the
            frames to their mean.
    Raises:
        What `segment` raises.
    """
    shots = segment(
        features,
        method,
        fps=fps,
        min_length=shortest,
        max_length=longest,
        boundary_scores=boundary_scores,
        changes=changes,
        start=start,
    )
    x = _made_unit(np.array(features, np.float64))
    means = np.array([x[shot.start : shot.end].mean(axis=0) for shot in shots]).reshape(len(shots), x.shape[1])
    return shots, means, _scatter(x)


def unit_mean(features: np.ndarray) -> np.ndarray:
    """The mean unit features [C] of frames [T, C], as `find_shots` gives those of a shot."""
    return np.asarray(_made_unit(np.array(features, np.float64)).mean(axis=0))


def _made_unit(x: np.ndarray) -> np.ndarray:
    """Vectors [T, C], changed where they lie to unit length: another copy of ten hours' features is 70 MB."""
    for first in range(0, len(x), _ROWS):
        part = x[first : first + _ROWS]
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return x


def _scatter(x: np.ndarray) -> float:
    if not len(x):
        return 0.0
    apart = x - x.mean(axis=0)
    return float(np.square(apart, out=apart).sum() / len(x))


def _penalty(x: np.ndarray) -> float:
    # Half the median squared step: boundaries are rare, so the median is the noise inside shots.
    steps = x[1:] - x[:-1]
    noise = float(np.median(np.square(steps, out=steps).sum(axis=1))) / 2 if len(x) > 1 else 0.0
    return max(PENALTY * _scatter(x), 4.0 * noise)


def _lengths(frames: int, fps: float, min_length: float | None, max_length: float | None) -> tuple[int, int]:
    """Shortest and longest segment in frames."""
    for name, value in (("min_length", min_length), ("max_length", max_length)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"segment: {name} must be above 0 seconds, got {value}")
    if min_length is None:
        min_length = SHORTEST / 2 if frames < 10 * SHORTEST * fps else SHORTEST
    shortest = max(1, round(min_length * fps))
    longest = max(frames, 1) if max_length is None else round(max_length * fps)
    return shortest, max(longest, 2 * shortest - 1)


def _checked_scores(scores: np.ndarray | None, frames: int) -> np.ndarray | None:
    if scores is None:
        return None
    own = np.asarray(scores, np.float64)
    if own.shape != (frames,):
        raise ValueError(f"segment: boundary_scores must be [T] = [{frames}], got {list(own.shape)}")
    if not ((own >= 0) & (own <= 1)).all():
        raise ValueError("segment: boundary_scores must be probabilities from 0 to 1, got others or NaN")
    return own


def _logit(p: np.ndarray | float) -> np.ndarray:
    clipped = np.clip(p, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _own_prices(own: Segmenter, name: str, x: np.ndarray, fps: float) -> np.ndarray:
    scores = np.asarray(own.boundaries(x, fps), np.float64)
    if scores.shape != (len(x),) or not np.isfinite(scores).all():
        raise VTSumError(
            f"segment: {name} must give finite boundaries [T] = [{len(x)}], got "
            f"{'NaN or infinity' if scores.shape == (len(x),) else list(scores.shape)}"
        )
    return np.where(scores > 0, -scores, 1e-6)  # a trifle, for what max_length alone asks for


def _log_odds_prices(scores: np.ndarray) -> np.ndarray:
    return _logit(THRESHOLD) - _logit(scores)


def _cut_prices(cuts: list[tuple[float, float]], fps: float, frames: int) -> np.ndarray:
    """Less than 0 where a cut lies before a frame; elsewhere a trifle, for what max_length alone asks for."""
    prices = np.full(frames, 1e-6)
    for at, strength in _cut_frames(cuts, fps, frames):
        prices[at] = min(prices[at], -strength)
    return prices


def _cut_frames(cuts: list[tuple[float, float]], fps: float, frames: int) -> list[tuple[int, float]]:
    """(first sampled frame after the cut, strength) of each cut between two sampled frames."""
    at = [(math.ceil(time * fps - 1e-6), strength) for time, strength in cuts]
    return [(frame, strength) for frame, strength in at if 0 < frame < frames]


def _evidence(scores: np.ndarray | None, cuts: list[tuple[float, float]], fps: float, frames: int) -> np.ndarray:
    """What head and cuts add to the price of a change point, in penalties of KTS."""
    prices = np.zeros(frames)
    if scores is not None:
        prices += HEAD_WEIGHT * np.clip(_log_odds_prices(scores), -4.0, 4.0)
    for at, strength in _cut_frames(cuts, fps, frames):
        prices[at] -= CUT_WEIGHT * min(strength, 3.0)
    return prices


def _by_prices(prices: np.ndarray, shortest: int, longest: int, max_segments: int | None) -> list[Segment]:
    """The segmentation of least sum of prices: the same search, with segments that cost nothing."""
    frames = len(prices)
    longest = min(longest, frames)
    # No segment begins before the video does: the padding says so, the costs need not.
    cost = np.broadcast_to(np.zeros(1), (frames, longest - shortest + 1))
    return cheapest(cost, shortest, max_segments, prices, 0.0)


def _even(frames: int, shortest: int, longest: int, fps: float, max_segments: int | None) -> list[Segment]:
    count = max(round(frames / (EVEN * fps)), 1)
    count = min(max(count, math.ceil(frames / longest)), max(frames // shortest, 1))
    if max_segments is not None:
        count = min(count, max_segments)
    return between([i * frames // count for i in range(count + 1)])


def _timed(segments: list[Segment], fps: float, duration: float, cuts: list[tuple[float, float]]) -> list[Segment]:
    """The segments with their times: 0 and duration at the ends, between two frames at the cut or in the middle."""
    exact: dict[int, tuple[float, float]] = {}
    for time, strength in cuts:
        frame = math.ceil(time * fps - 1e-6)
        if frame not in exact or strength > exact[frame][1]:
            exact[frame] = time, strength
    times = [0.0]
    for one in segments[1:]:
        time = exact[one.start][0] if one.start in exact else (one.start - 0.5) / fps
        times.append(min(max(time, times[-1]), duration))
    times.append(duration)
    return [
        Segment(one.start, one.end, start, end) for one, (start, end) in zip(segments, pairwise(times), strict=False)
    ]
