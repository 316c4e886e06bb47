"""Refined plans of drawn videos with planted events: how much of each event the summary shows.

A minute of dull scenes with five lively events of three seconds each, at a budget of 15 %: nine seconds for fifteen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vtsum.enhance.summary_refinement import parse_budget
from vtsum.model import load
from vtsum.recipes.procedural import five_events, make_clip
from vtsum.summary.planning import Refine, make_plan
from vtsum.summary.progress import ignore
from vtsum.summary.watching import watch
from vtsum.video import probe

SECONDS, EVENT = 60.0, 3.0


def measure(videos: int) -> Iterator[dict[str, Any]]:
    """A record for each way to refine: seconds of the events that are shown, in the mean and of the least shown one."""
    model = load("embedded")
    shown: dict[Refine, list[list[float]]] = {refine: [] for refine in get_args(Refine)}
    used: dict[Refine, list[float]] = {refine: [] for refine in get_args(Refine)}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(videos):
            path = Path(folder) / f"{seed}.mp4"
            truth = make_clip(path, five_events(SECONDS, EVENT), seed=seed)
            info = probe(path)
            watched = watch(path, info, model, 1.0, ignore)
            for refine in shown:
                plan = make_plan(watched, parse_budget("15%"), info, 1.0, refine=refine)
                spans = [(clip.start / plan.rate, clip.end / plan.rate) for clip in plan.clips.values()]
                used[refine].append(sum(end - start for start, end in spans))
                shown[refine].append(
                    [sum(max(0.0, min(e.end, end) - max(e.start, start)) for start, end in spans) for e in truth.events]
                )
            path.unlink()
    for refine, found in reversed(shown.items()):
        seconds = np.array(found)
        yield {
            "part": "procedural",
            "method": refine,
            "videos": len(seconds),
            "events": int(seconds.size),
            "shown_s": round(float(seconds.mean()), 3),
            "least_s": round(float(seconds.min()), 3),
            "events_missed": int((seconds < 0.25).sum()),
            "share_in_events": round(float(seconds.sum() / np.sum(used[refine])), 4),
        }
