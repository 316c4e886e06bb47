"""Progress of the main job: its stages, and what a callback is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
# Which of them run side by side, and about what share of the time each takes: talk over slides, on two cores.
PHASES = ((("read", "listen"), 75.0), (("shots",), 2.0), (("text", "cut"), 22.0), (("page",), 1.0))


def ignore(stage: str, fraction: float) -> None:
    """Take note of nothing."""


class Clock:
    """Wall time of each stage, and of everything since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages[stage] = time.perf_counter() - began

    def timings(self) -> dict[str, float]:
        return {k: round(v, 3) for k, v in (*self._stages.items(), ("total", time.perf_counter() - self._began))}
