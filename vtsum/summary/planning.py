"""What a summary shows: shots, their scores, and the clips that fit the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from vtsum.enhance.event_segmentation import METHOD, PictureChanges, find_shots, unit_mean
from vtsum.enhance.summary_refinement import (
    MIN_CLIP,
    Budget,
    Clip,
    align_to_shots,
    close_gaps,
    discount_repeats,
    first_offers,
    likeness,
    merge_short_shots,
    novelty,
    overrun,
    plan_clips,
    snap_to_pauses,
    with_margins,
)
from vtsum.errors import VTSumError
from vtsum.summary.about import NEAR, WEIGHT, Passage, relevance, words_told
from vtsum.summary.by_hand import ByHand, Range, split
from vtsum.summary.watching import Watched
from vtsum.video.part import first_frame

if TYPE_CHECKING:
    from vtsum.video import VideoInfo


Refine = Literal["dpp", "knapsack", "none"]
LIVELY = 0.4  # weight of a shot's liveliness beside its saliency: motion tells a viewer's interest, too
SHORTEST_SHOT = 0.5  # seconds; a shorter one becomes part of the neighbour that looks more like it
NEAR_EDGE = 0.25  # seconds beside a boundary of its shot from which a clip is moved onto it
TRIES = 8  # halvings of what a choice may take beside its margins
SHORT_GAP = 0.5  # seconds between two clips that are not left out


@dataclass(frozen=True)
class Plan:
    """Shots, their scores, and the clips that the summary shows. Lengths in ticks of `rate` a second."""

    shots: list[tuple[int, int]]  # ticks
    frames: list[tuple[int, int]]  # indices of sampled frames
    saliency: np.ndarray  # [M] means
    lively: np.ndarray  # [M] 0..1
    scores: np.ndarray  # [M] worth after repeats were lowered: worth * novelty
    ranks: list[int]
    novelty: np.ndarray  # [M] 0..1, the share of its worth that a shot has beside those it was weighed against
    like: np.ndarray  # [M] 0..1, likeness to the most alike of the shots it was weighed against: with "dpp" those that
    twin: (
        np.ndarray
    )  # the summary shows, with "knapsack" the better ones; and that shot's index, -1 where there is none
    clips: dict[int, Clip]
    peaks: dict[int, float]  # seconds, one per clip: its key frame
    rate: float
    budget_seconds: float
    warnings: list[str]
    refine: Refine
    boundary_scores: np.ndarray | None  # [T] of the model's boundary head
    dropped: frozenset[int]  # shots that the user wants out of the summary
    words: list[list[str]]  # of what the user asks about, those that are heard or read in each shot
    near: list[bool]  # shots with pictures among the nearest to it

    def span(self, shot: int) -> tuple[float, float]:
        """Start and end of a shot in seconds."""
        start, end = self.shots[shot]
        return start / self.rate, end / self.rate


def make_plan(
    watched: Watched,
    budget: Budget,
    info: VideoInfo,
    fps: float,
    *,
    segmenter: str = METHOD,
    refine: Refine = "dpp",
    pauses: Sequence[tuple[float, float]] = (),
    boundary_scores: np.ndarray | None = None,
    keep: Sequence[Range] = (),
    drop: Sequence[Range] = (),
    margin: Sequence[float] = (0.0, 0.0),
    min_shot: float | None = None,
    about: str | None = None,
    told: Sequence[Passage] = (),
    seen: np.ndarray | None = None,
) -> Plan:
    """Decide what a summary shows.

    Args:
        watched: the video's features, saliency and picture changes. budget, info, fps: as for `summarize`.
        segmenter: what finds the shots, one of `vtsum.enhance.event_segmentation.METHODS`.
        refine: what chooses among them. "dpp": shots of great worth that differ (`select_diverse`). "knapsack": those
            of the greatest total worth, where a shot that looks like a better one counts for less. "none": the same
            without a look at likeness, and clips as they come: gaps stay, cuts are not moved.
        pauses: (start, end) in seconds, where nobody speaks: cuts that fall into words are moved there. Empty: no cut
            is moved.
        boundary_scores: [T], 0..1, of the model's boundary head, for the segmenters that use them.
        keep, drop: (start, end) in seconds, in order, which the summary shows whole, or nothing of.
        margin: seconds added before and after each chosen piece (`with_margins`), for which the choice leaves room.
        min_shot (float | None): seconds that a shot and a piece of it last at least, but for those at the edges of
            what is kept or dropped; None: SHORTEST_SHOT, and MIN_CLIP.
        about, told, seen: what the user asks about; all that is heard and read; and how well each frame's picture fits,
            [T] in 0..1, None: nobody knows. Shots that tell of it or show it are worth more (`vtsum.summary.about`).
    Returns:
        Plan: at least one clip where there is a shot; never longer than the budget, but for frames at the edges of what
            is kept.
    Raises:
        VTSumError: an unknown `refine` or `segmenter`, a budget longer than the video or shorter than `min_shot`, more
            to keep than the budget, or nothing left to show.
    """
    if refine not in get_args(Refine):
        raise VTSumError(f"summarize: refine must be one of {', '.join(get_args(Refine))}, got {refine!r}")
    warnings: list[str] = []
    try:
        budget_seconds = budget.seconds(watched.length, fps)
    except VTSumError:
        if watched.broken_at is None:
            raise
        budget_seconds = watched.length
        warnings.append(f"the budget of {budget.text} is longer than the {watched.length:.1f} s that could be read")
    if min_shot is not None and min_shot > budget_seconds + 1e-6:
        raise VTSumError(
            f"summarize: min_shot must be at most the budget of {budget_seconds:.1f} s, got {min_shot:g} s"
        )
    least = MIN_CLIP if min_shot is None else min_shot
    # The grid is the video's own, so that a clip holds whole frames; never coarser than the sampled frames.
    rate = tick_rate(info.fps, fps)
    first, begin = first_frame(watched.start, fps), round(watched.start * rate)
    shortest = max(1, round((SHORTEST_SHOT if min_shot is None else min_shot) * rate))
    found = find_runs(
        watched.event_features,
        watched.changes,
        fps,
        rate,
        segmenter=segmenter,
        boundary_scores=boundary_scores,
        first=first,
        begin=begin,
        end=max(round(watched.duration * rate), begin + 1),
        shortest=shortest,
    )
    edges, frames, means, scatter = found.edges, found.frames, found.means, found.scatter
    by_hand = ByHand(keep, drop, (watched.start, watched.duration), rate)
    marks = by_hand.part(edges)
    if marks:
        parts = split(frames, marks)
        whole = [(a, b) == frames[number] for a, b, number in parts]
        means = np.array(
            [
                means[number] if same else unit_mean(watched.event_features[a:b])
                for (a, b, number), same in zip(parts, whole, strict=True)
            ]
        )
        frames = [(a, b) for a, b, _ in parts]
    shots = [(int(edges[a]), int(edges[b])) for a, b in frames]
    saliency = np.array([float(watched.saliency[a:b].mean()) for a, b in frames])
    levels = np.log1p(np.array([watched.changes.liveliness(start / rate, end / rate) for start, end in shots]))
    lively = lively_levels(levels, float(levels.min()), float(levels.max()))
    worth = (1 - LIVELY) * contrast(saliency, float(saliency.min()), float(saliency.max())) + LIVELY * lively
    frame_worth = watched.saliency
    words: list[list[str]] = [[] for _ in shots]
    near = [False for _ in shots]
    if about is not None:
        relevant = relevance(about, told, edges / rate)
        if seen is not None:
            relevant = np.maximum(relevant, seen)
            near = [bool(seen[a:b].max() >= NEAR) for a, b in frames]
        if relevant.any():
            frame_worth = (1 - WEIGHT) * watched.saliency + WEIGHT * relevant
            worth = (1 - WEIGHT) * worth + WEIGHT * np.array([float(relevant[a:b].max()) for a, b in frames])
            words = [list(words_told(about, told, start / rate, end / rate)) for start, end in shots]
        else:
            warnings.append(
                f"no word of “{about}” is surely heard or read in the video: what is shown was chosen without it"
            )
    like, twin, new = np.zeros(len(shots)), np.full(len(shots), -1), np.ones(len(shots))
    if refine == "knapsack":
        scores, like, twin = discount_repeats(worth, means, scatter)
        new = np.divide(scores, worth, out=new, where=worth > 0)
    ticks = max(1, math.floor(budget_seconds * rate + 1e-6))
    scale = max(scatter, 1e-9) / 2
    wanted = [Clip(i, start, end, "kept") for i, (start, end) in enumerate(shots) if by_hand.kept((start, end))]
    dropped = frozenset(i for i, shot in enumerate(shots) if by_hand.dropped(shot))
    left = ticks - sum(len(clip) for clip in wanted)
    if left < 0 and sum(end - start for start, end in keep) <= budget_seconds + 1e-6:
        ticks, left = ticks - left, 0  # its edges lie within frames, which are shown
    if left < 0:
        kept_seconds = (ticks - left) / rate
        raise VTSumError(
            f"summarize: keep must be at most the budget of {budget_seconds:.1f} s, got {kept_seconds:.1f} s"
        )
    free = sorted(set(range(len(shots))) - dropped - {clip.shot for clip in wanted})
    if not free and not wanted:
        raise VTSumError("summarize: drop must leave something to show, got all of the video")
    if min_shot is not None:
        free = [i for i in free if shots[i][1] - shots[i][0] >= shortest]
        if not free and not wanted:
            raise VTSumError(
                f"summarize: min_shot must leave something to show, got {min_shot:g} s and no shot so long"
            )

    def clips_within(room: int) -> list[Clip]:
        chosen: list[Clip] = []
        if free and (not wanted or room >= least * rate):
            vectors = means[free] if refine == "dpp" else None
            offered = [shots[i] for i in free]
            found = plan_clips(offered, (worth * new)[free], frame_worth, edges, room, rate, vectors, scale, least)
            chosen = [replace(clip, shot=free[clip.shot]) for clip in found]
        if refine != "none":
            chosen = align_to_shots(chosen, shots, round(NEAR_EDGE * rate))
            chosen = close_gaps(chosen, shots, room, round(SHORT_GAP * rate), round(least * rate))
            chosen = snap_to_pauses(chosen, shots, pauses, room, rate, round(least * rate))
        return sorted([*chosen, *wanted], key=lambda clip: clip.shot)

    before, after = (round(seconds * rate) for seconds in margin)
    chosen, last = clips_within(left), shots[-1][1]
    low, high = 0 if wanted else math.ceil(least * rate), left
    if overrun(chosen, before, after, ticks, shots[0][0], last):
        # A shorter choice, the longest found that has room for its margins.
        chosen = clips_within(low)
        for _ in range(TRIES if high > low else 0):
            shorter = clips_within(room := (low + high) // 2)
            if overrun(shorter, before, after, ticks, shots[0][0], last):
                high = room
            else:
                low, chosen = room, shorter
    chosen = with_margins(chosen, before, after, ticks, shots[0][0], last, by_hand.drop)
    if refine == "dpp":
        kept = [clip.shot for clip in chosen]
        offers = first_offers(np.array([end - start for start, end in shots]), ticks, rate, least)
        new = novelty(worth * offers, means, kept, scale=scale)
        like, twin = _most_alike(worth, likeness(means, means[kept], scale), kept)
    clips = {clip.shot: clip for clip in chosen}
    peaks = {i: _key_frame_time(clip, watched, edges, means[i], rate) for i, clip in clips.items()}
    return Plan(
        shots=shots,
        frames=frames,
        saliency=saliency,
        lively=lively,
        scores=worth * new,
        ranks=_ranks(worth * new),
        novelty=new,
        like=like,
        twin=twin,
        clips=clips,
        peaks=peaks,
        rate=rate,
        budget_seconds=budget_seconds,
        warnings=warnings,
        refine=refine,
        boundary_scores=boundary_scores,
        dropped=dropped,
        words=words,
        near=near,
    )


@dataclass(frozen=True)
class Runs:
    """The shots of a stretch of frames before anything is chosen.

    Attributes:
        edges: [T + 1], ticks at which the turns of the sampled frames begin, and the last one ends.
        frames: of each shot its first frame and the one behind its last, counted in the stretch.
        means: [M, C] mean unit features. scatter: the mean squared distance of the frames to their mean.
    """

    edges: np.ndarray
    frames: list[tuple[int, int]]
    means: np.ndarray
    scatter: float


def tick_rate(stated: float, fps: float) -> float:
    """Ticks a second for a video of `stated` frames a second, of which `fps` are sampled."""
    return max(stated if math.isfinite(stated) and stated > 0 else 25.0, fps)


def find_runs(
    event_features: np.ndarray,
    changes: PictureChanges,
    fps: float,
    rate: float,
    *,
    segmenter: str,
    boundary_scores: np.ndarray | None,
    first: int,
    begin: int,
    end: int,
    shortest: int,
) -> Runs:
    """The shots of frames [T, C] that are sampled one after the other; those under `shortest` ticks join a neighbour.

    Args:
        first: the number of the first frame in the video; it is at first / fps seconds. begin, end: ticks of the whole.
    Raises:
        VTSumError: see `find_shots`.
    """
    segments, means, scatter = find_shots(
        event_features,
        fps,
        method=segmenter,
        boundary_scores=boundary_scores,
        changes=changes,
        start=first / fps,
    )
    edges = np.minimum(np.round((first + np.arange(len(event_features) + 1)) / fps * rate).astype(np.int64), end)
    edges[0], edges[-1] = begin, end
    for segment in segments[1:]:
        k = segment.start
        # Pictures are looked at only at the grid points; the cut itself lies somewhere between two of them.
        exact = changes.boundary((first + k - 1) / fps, (first + k) / fps)
        if exact is not None:
            edges[k] = min(max(round(exact * rate), int(edges[k - 1]) + 1), int(edges[k]))
    frames = [(s.start, s.end) for s in segments]
    runs = merge_short_shots([(int(edges[a]), int(edges[b])) for a, b in frames], means, shortest)
    joined = [(frames[low][0], frames[high - 1][1]) for low, high in runs]
    means = np.array([np.average(means[a:b], axis=0, weights=[len(s) for s in segments[a:b]]) for a, b in runs])
    return Runs(edges, joined, means, scatter)


def _ranks(scores: np.ndarray) -> list[int]:
    """1 for the highest score, and so on; the earlier of two equals first."""
    ranks = [0] * len(scores)
    for rank, i in enumerate(np.argsort(-scores, kind="stable"), 1):
        ranks[int(i)] = rank
    return ranks


def _most_alike(worth: np.ndarray, like: np.ndarray, kept: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of each shot to the most alike of the kept ones (a kept one: of those worth more), and which that is."""
    rank = np.argsort(np.argsort(-worth, kind="stable"))
    like = like.copy()
    for column, i in enumerate(kept):
        like[[j for j in kept if rank[j] <= rank[i]], column] = 0.0
    if not kept:
        return np.zeros(len(worth)), np.full(len(worth), -1)
    nearest = np.argmax(like, axis=1)
    most = like[np.arange(len(worth)), nearest]
    return most, np.where(most > 0, np.array(kept)[nearest], -1)


def contrast(saliency: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stretch a video's saliency, which lies between `low` and `high`, to 0.2..1: models differ in their range, and
    within a video only the order counts."""
    return 0.2 + 0.8 * (saliency - low) / (high - low) if high - low > 1e-6 else np.ones_like(saliency)


def lively_levels(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Levels of change (log1p) between `low` and `high` as 0..1; all 0 where they hardly differ."""
    return (levels - low) / (high - low) if high - low > 0.1 else np.zeros_like(levels)


def most_telling(event_features: np.ndarray, saliency: np.ndarray, mean: np.ndarray) -> int:
    """Which of the frames [T, C] of a shot is salient, and like the rest of it."""
    x = event_features.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    distance = ((x - mean) ** 2).sum(axis=1)
    return int(np.argmax(saliency - distance / max(float(distance.max()), 1e-9) * 0.1))


def _key_frame_time(clip: Clip, watched: Watched, edges: np.ndarray, mean: np.ndarray, rate: float) -> float:
    """The time of the clip's most telling frame: salient, and like the rest of its shot."""
    inside = np.flatnonzero((edges[:-1] >= clip.start) & (edges[:-1] < clip.end))
    if not len(inside):
        return (clip.start + clip.end) / 2 / rate
    best = most_telling(watched.event_features[inside], watched.saliency[inside], mean)
    return float(edges[inside[best]] / rate)
