"""What a run leaves to look at: a line of JSON a step, what its trackers keep, and what the terminal shows."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from vtsum.bars import Bars
from vtsum.errors import VTSumError
from vtsum.files import write_text
from vtsum.protocols import Tracker
from vtsum.reading import parse_json, read_file, said_of
from vtsum.training.trackers import tell

METRICS = "metrics.jsonl"
LIMIT = 2**30
"""Bytes of a metrics file: some four million steps."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last one that was cut off in writing is left out, one that lacks nothing but its
    end is not.

    Raises:
        VTSumError: it cannot be read, or another line is no step of a training.
    """
    lines: list[dict[str, Any]] = []
    *whole, last = read_file(path, "metrics", LIMIT).split(b"\n")
    with contextlib.suppress(VTSumError):
        parse_json(last, dict, "metrics")
        whole.append(last)
    for number, text in enumerate(whole, 1):
        line = parse_json(text, dict, f"metrics: {path}: line {number}")
        if type(line.get("step")) is not int:
            raise VTSumError(f"metrics: {path}: line {number} must have a step, got {said_of(line, 'step')}")
        lines.append(line)
    return lines


class Records:
    """RUN/metrics.jsonl and the trackers, from the step after `done` on; what was recorded beyond it is dropped."""

    def __init__(self, run: Path, done: int, trackers: Sequence[Tracker], settings: Mapping[str, Any]) -> None:
        path = run / METRICS
        kept = [line for line in read_metrics(path) if line["step"] <= done] if path.exists() else []
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            for tracker in trackers:  # one may refuse, and nothing has changed
                tell(tracker, "start", run, done, settings)
                opened.callback(tell, tracker, "finish")
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
            self._file = opened.enter_context(open(path, "a", encoding="utf-8"))
            self._closing = opened.pop_all()
        self._trackers = trackers

    def add(self, line: dict[str, Any]) -> None:
        """Record one step."""
        # JSON has no word for what is not finite, as the gradient's norm may be.
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")
        self._file.flush()
        self._show("train", line)

    def add_validation(self, line: dict[str, Any]) -> None:
        """Show a validation beside the steps; its own file has it."""
        self._show("val", line)

    def _show(self, what: str, line: dict[str, Any]) -> None:
        values = {f"{what}/{k}": v for k, v in line.items() if k not in ("step", "epoch") and v is not None}
        for tracker in self._trackers:
            tell(tracker, "log", values, line["step"])

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError:
            if error is None:
                raise


class Display:
    """The progress of a run: a bar on a terminal, else a line every `every` steps; on standard error."""

    def __init__(self, total: int, done: int, every: int) -> None:
        self.total, self.every = total, every
        self._bars = Bars({"steps": "Training"})
        self._bars("steps", done, total)

    def step(self, line: dict[str, Any], left: float) -> None:
        """Show one step; `left`: seconds until the end at this pace."""
        text = f"epoch {line['epoch']}  loss {line['loss']:.4f}"
        self._bars("steps", line["step"], self.total, text)
        if not self._bars.shown and (line["step"] % self.every == 0 or line["step"] == self.total):
            left_text = f"{int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}"
            self.say(
                f"step {line['step']}/{self.total}  {text} (video {line['loss_vsum']:.4f}, text "
                f"{line['loss_tsum']:.4f})  lr {line['lr']:.2e}  gradient {line['grad_norm']:.3f}  left {left_text}"
            )

    def say(self, text: str) -> None:
        """A line that stays."""
        self._bars.say(text)

    def __enter__(self) -> Display:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)


class Silent:
    """The display of the ranks that show nothing."""

    def step(self, line: dict[str, Any], left: float) -> None:
        return

    def say(self, text: str) -> None:
        return

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *raised: object) -> None:
        return
