"""Summaries as the work of a batch."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtsum.batches.results import Job
from vtsum.files import OLD, strangers
from vtsum.reuse import keep_models
from vtsum.summary.staging import OURS, temporaries

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
        sweep([job.output])


def sweep(outputs: Iterable[Path]) -> None:
    """Remove the temporary folders of summaries whose processes were killed: what is called as they are and holds
    nothing but a summary's files, some half-written. An older summary stays until there is another in its place.

    Args:
        outputs: of the summaries, in one folder.
    """
    places = {output.name: output for output in outputs}
    for folder in {output.parent for output in places.values()}:
        for left, names in temporaries(folder, places):
            if left.name.endswith(OLD) and not all(places[name].is_dir() for name in names):
                continue
            with contextlib.suppress(OSError):
                if not strangers(left, _UNFINISHED.fullmatch):
                    shutil.rmtree(left, ignore_errors=True)
