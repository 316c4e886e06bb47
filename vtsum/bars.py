"""Progress bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vtsum.shown import clean, one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """One bar a stage on standard error, with what is done and the time left; none where that is no terminal, or if
    quiet.

    Args:
        titles: the words for each stage.
    Attributes:
        shown (bool): there are bars.
    """

    def __init__(self, titles: Mapping[str, str], *, quiet: bool = False) -> None:
        self.shown = not quiet and sys.stderr.isatty()
        self._titles = titles
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if not self.shown:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[amount]:>5}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=sys.stderr),
        )

    def __call__(self, stage: str, done: float, total: int | None = None, note: str = "") -> None:
        """Move a stage's bar: to `done` of `total`, or, without a total, to a share of 0 to 1."""
        if self._bars is None:
            return
        amount = f"{100 * min(max(done, 0.0), 1.0):.0f}%" if total is None else f"{done}/{total}"
        state: dict[str, Any] = {"completed": done, "total": total or 1.0, "amount": amount, "note": clean(note)}
        if stage in self._tasks:
            self._bars.update(self._tasks[stage], **state)
        else:  # what was done before is no measure of the speed
            self._tasks[stage] = self._bars.add_task(self._titles[stage], **state)

    def say(self, text: str) -> None:
        """A line that stays, above the bars."""
        if self._bars is None:
            print(one_line(text), file=sys.stderr, flush=True)
        else:
            self._bars.console.print(one_line(text), markup=False, highlight=False)

    def __enter__(self) -> Bars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
