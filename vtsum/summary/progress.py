"""Progress of the main job: what a callback is told, and the bars that the command line draws."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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


class ConsoleProgress:
    """Bars on the terminal, one a stage, with the time left; on standard error, so that output can be piped."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bars: Progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=32),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=Console(file=sys.stderr),
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, fraction: float) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(STAGES[stage], total=1.0)
        self._bars.update(self._tasks[stage], completed=min(max(fraction, 0.0), 1.0))

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
