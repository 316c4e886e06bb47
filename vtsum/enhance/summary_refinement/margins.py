"""Margins: a little of the video before and after each piece that a summary shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vtsum.enhance.summary_refinement.clips import Clip

Spans = Sequence[tuple[int, int]]


def with_margins(
    clips: Sequence[Clip], before: int, after: int, budget: int, first: int, last: int, forbidden: Spans = ()
) -> list[Clip]:
    """The clips with what lies before and after each of them, also beyond its shot; clips whose margins meet follow
    each other without a gap.

    Args:
        clips (list): in order, without overlap, no longer in total than the budget.
        before, after (int): ticks wanted; where the budget has no room for all of them, earlier clips get theirs first.
        budget, first, last (int): ticks of the summary; where the video, or the part of it, begins and ends.
        forbidden: (start, end) in ticks, in order, into which no margin reaches.
    Returns:
        list[Clip]: in order, without overlap, no longer in total than the budget.
    """
    wide = list(clips)
    left = budget - sum(map(len, wide))
    for n, clip in enumerate(clips):
        low = wide[n - 1].end if n else first
        low = max([low, *(end for _, end in forbidden if end <= clip.start)])
        by = max(min(before, clip.start - low, left), 0)
        left -= by
        # The next clip's own margin may then lack room: what lies between the two is shown once.
        high = clips[n + 1].start if n + 1 < len(clips) else last
        high = min([high, *(start for start, _ in forbidden if start >= clip.end)])
        more = max(min(after, high - clip.end, left), 0)
        left -= more
        wide[n] = replace(clip, start=clip.start - by, end=clip.end + more)
    return wide


def overrun(clips: Sequence[Clip], before: int, after: int, budget: int, first: int, last: int) -> int:
    """Ticks by which clips with all of their margins would exceed the budget; 0 where they fit."""
    endless = budget + len(clips) * (before + after)
    return max(sum(map(len, with_margins(clips, before, after, endless, first, last))) - budget, 0)
