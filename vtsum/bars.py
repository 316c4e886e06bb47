"""Progress: bars on a terminal, or lines for a program."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vtsum.shown import LOG, clean, remark
from vtsum.signals import check

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


Phases = Sequence[tuple[Sequence[str], float]]
"""Stages that run side by side, one after the other, and about what share of all the time each takes."""

ALL = "All of it"
_NARROW = 90  # columns; in fewer there is no room for a bar beside the numbers


class Bars:
    """One bar a stage on standard error, with what is done and the time left; none where that is no terminal, or if
    quiet.

    Args:
        titles: the words for each stage. phases: of the stages: there is one more bar, of all of them.
    Attributes:
        shown (bool): there are bars.
    """

    def __init__(self, titles: Mapping[str, str], *, quiet: bool = False, phases: Phases = ()) -> None:
        self.shown = not quiet and sys.stderr.isatty()
        self._titles = titles
        self._phases = [(stages, share) for stages, share in phases if any(stage in titles for stage in stages)]
        self._done: dict[str, float] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if not self.shown:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(file=sys.stderr)
        amount, left = TextColumn("{task.fields[amount]:>5}"), [TextColumn("left"), TimeRemainingColumn(compact=True)]
        note = TextColumn("{task.fields[note]}", markup=False)
        columns: list[ProgressColumn] = [TextColumn("{task.description:<19}"), amount, *left]
        if console.width >= _NARROW:
            columns = [
                TextColumn("{task.description:<22}"),
                BarColumn(bar_width=32),
                amount,
                TimeElapsedColumn(),
                *left,
                note,
            ]
        self._bars = Progress(*columns, console=console)

    def __call__(self, stage: str, done: float, total: int | None = None, note: str = "") -> None:
        """Move a stage's bar: to `done` of `total`, or, without a total, to a share of 0 to 1."""
        check()
        if self._bars is None:
            return
        if self._phases and total is None:
            self._done[stage] = done
            self._move(ALL, ALL, self._overall(), None, "")
        self._move(stage, self._titles[stage], done, total, note)

    def _move(self, stage: str, title: str, done: float, total: int | None, note: str) -> None:
        assert self._bars is not None
        amount = f"{100 * min(max(done, 0.0), 1.0):.0f}%" if total is None else f"{done}/{total}"
        state: dict[str, Any] = {"completed": done, "total": total or 1.0, "amount": amount, "note": clean(note)}
        if stage in self._tasks:
            self._bars.update(self._tasks[stage], **state)
        else:  # what was done before is no measure of the speed
            self._tasks[stage] = self._bars.add_task(title, **state)

    def _overall(self) -> float:
        """The share of all that is done: of stages side by side the slowest counts, and what came before the last one
        that was begun is over."""
        begun = max(i for i, (stages, _) in enumerate(self._phases) if any(stage in self._done for stage in stages))
        stages, share = self._phases[begun]
        past = sum(share for _, share in self._phases[:begun])
        now = min(self._done[stage] for stage in stages if stage in self._done)
        return (past + share * min(max(now, 0.0), 1.0)) / sum(share for _, share in self._phases)

    def say(self, text: str) -> None:
        """A line that stays, above the bars."""
        if self._bars is None:
            print(remark(text), file=sys.stderr, flush=True)
        else:
            self._bars.console.print(remark(text), markup=False, highlight=False)

    def __enter__(self) -> Bars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


class Lines:
    """The same as one JSON object a line on standard error: stage, done, total, and eta, the seconds that are left of
    the stage, or null where that is not known yet. A stage tells its beginning, its end, and what lies between ten
    times a second at most."""

    PACE = 0.1  # seconds

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: dict[str, tuple[float, float]] = {}  # when, and what was done by then
        self._told: dict[str, tuple[float, float]] = {}

    def __call__(self, stage: str, done: float, total: int | None = None, note: str = "") -> None:
        check()
        whole = 1 if total is None else total
        with self._lock:
            now = time.monotonic()
            since, first = self._begun.setdefault(stage, (now, done))
            at, last = self._told.get(stage, (-1.0, -1.0))
            if done <= last or (now - at < self.PACE and done < whole):
                return
            self._told[stage] = now, done
            left = (now - since) * (whole - done) / (done - first) if done > first else None
            line = {
                "stage": stage,
                "done": round(done, 4),
                "total": whole,
                "eta": None if left is None else round(left, 1),
            }
            print(json.dumps(line), file=sys.stderr, flush=True)

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Logged:
    """Progress that is also written to the log: when a stage, or each step of one that has a total, begins and ends."""

    def __init__(self, shown: Bars | Lines) -> None:
        self._shown = shown
        self._told: dict[str, str] = {}

    def __call__(self, stage: str, done: float, total: int | None = None, note: str = "") -> None:
        self._shown(stage, done, total, note)
        if total is None:
            state = "done" if done >= 1 else "begun"
        else:
            state = f"{done} of {total}" + (f", at work: {clean(note)}" if note else "")
        if self._told.get(stage) != state:
            self._told[stage] = state
            LOG.info("%s: %s", stage, state)
