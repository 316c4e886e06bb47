"""Progress of the main job: its stages, and what a callback is told."""

from __future__ import annotations

from collections.abc import Callable

# progress(stage, fraction): a key of STAGES, and how much of it is done, 0..1. May be called from several threads.
ProgressCallback = Callable[[str, float], None]

STAGES = {
    "read": "Watching the video",
    "listen": "Listening",
    "shots": "Finding events",
    "text": "Writing the text",
    "cut": "Cutting the summary",
    "page": "Making the page",
}


def ignore(stage: str, fraction: float) -> None:
    """Take note of nothing."""
