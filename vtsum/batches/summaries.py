"""Summaries as the work of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vtsum.batches.results import Job
from vtsum.reuse import keep_models
from vtsum.summary.staging import sweep


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
