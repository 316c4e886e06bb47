"""Summaries as the work of a batch."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtsum.batches.results import Job
from vtsum.files import strangers
from vtsum.reuse import keep_models
from vtsum.summary.staging import OURS, is_temporary

_UNFINISHED = re.compile(rf"{OURS.pattern}|(keyframes/)?\.[^/]{{1,64}}\.[0-9a-f]{{16}}\.part")


@dataclass(frozen=True)
class Summaries:
    """A summary of each video. `options`: of `vtsum.summarize`, values that can be pickled."""

    options: Mapping[str, Any]

    def begin(self, threads: int | None) -> Callable[[Job], tuple[str, ...]]:
        import torch

        from vtsum.summary.pipeline import load_model, summarize

        if threads is not None:
            torch.set_num_threads(threads)
        keep_models()
        named, guesses = self.options.get("model", "embedded"), self.options.get("captioner") == "embedded"
        model = load_model(named, text=guesses, device=self.options.get("device", "auto"))
        return lambda job: tuple(summarize(job.source, job.output, **{**self.options, "model": model}).warnings)

    def sweep(self, job: Job) -> None:
        sweep(job.output)


def sweep(output: Path) -> None:
    """Remove the temporary folders of a summary whose process was killed: what is called as they are and holds nothing
    but a summary's files, some half-written."""
    for left in list(output.parent.iterdir()):
        if is_temporary(left.name, output.name) and left.is_dir() and not left.is_symlink():
            with contextlib.suppress(OSError):
                if not strangers(left, _UNFINISHED.fullmatch):
                    shutil.rmtree(left, ignore_errors=True)
