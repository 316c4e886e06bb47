"""Progress bars for work that is counted in videos, steps or files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from vtsum.shown import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class CountedBars:
    """One bar a stage, with counts and the time left, on standard error; none where that is no terminal, or if quiet.

    Calling it with (stage, done, total) moves a bar; `titles` holds the stages' words.
    """

    def __init__(self, titles: Mapping[str, str], *, quiet: bool = False) -> None:
        self._titles = titles
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=sys.stderr),
        )

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if self._bars is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(self._titles[stage], total=total, note="")
        self._bars.update(self._tasks[stage], completed=done, total=total, note=clean(note))

    def __enter__(self) -> CountedBars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
