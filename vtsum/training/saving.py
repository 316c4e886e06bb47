"""What a run saves: checkpoints of all ranks, and the model as `VTSum.from_pretrained` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.processes import Place
from vtsum.training import checkpoints
from vtsum.training.engine import Engine
from vtsum.training.settings import TrainSettings
from vtsum.training.validation import BEST


class Saver:
    """Saves a run; every rank calls every method.

    Args:
        full: videos a step. data: the fingerprint of the training videos. saved: the step of the newest checkpoint.
    """

    def __init__(
        self, run: Path, settings: TrainSettings, place: Place, engine: Engine, full: int, data: str, saved: int
    ) -> None:
        self.run, self.settings, self.place, self.engine = run, settings, place, engine
        self.full, self.data = full, data
        self.saved, self.exported = saved, -1

    def save(self, step: int) -> Path:
        """A checkpoint, whose folder it gives, and RUN/model.

        Raises:
            VTSumError: it cannot be written; on the ranks that could, that another one could not.
        """
        part = checkpoints.part_of(self.run, step)
        self._together(lambda: checkpoints.begin(self.run, step) if self.place.first else None, part)
        self._together(lambda: self._write(part), part)
        facts = {
            **self.engine.facts,
            "ranks": self.place.ranks,
            "global_batch": self.full,
            "data": self.data,
            "settings": dataclasses.asdict(self.settings),
        }
        keep = self.settings.keep_checkpoints
        self._together(lambda: checkpoints.finish(self.run, step, facts, keep) if self.place.first else None, part)
        self.saved = step
        self.export(step)
        return checkpoints.checkpoint_folder(self.run) / checkpoints.name_of(step)

    def export(self, step: int) -> None:
        """RUN/model, from the weights of all ranks."""
        weights, target = self.engine.weights(), self.run / "model"
        about = {"training": self._about(step)}
        self._together(
            lambda: self.engine.model.save_pretrained(target, facts=about, state_dict=weights) if weights else None,
            target,
        )
        self.exported = step

    def keep_best(self, step: int, best: VTSum | None, line: dict[str, Any]) -> None:
        """RUN/best, where this validation found it, on the first rank."""
        target, about = self.run / BEST, self._about(step) | {"validation": line}
        self._together(lambda: best.save_pretrained(target, facts={"training": about}) if best else None, target)

    def _about(self, step: int) -> dict[str, Any]:
        return {"steps": step, "settings": dataclasses.asdict(self.settings)}

    def _write(self, part: Path) -> None:
        self.engine.save(part)
        checkpoints.save_random_states(part, self.place.rank)

    def _together(self, action: Callable[[], Any], path: Path) -> None:
        """Run a rank's part of writing; all ranks stop where one fails, so that none waits for it in vain."""
        problem: VTSumError | None = None
        try:
            action()
        except (OSError, RuntimeError, SafetensorError) as error:
            problem = checkpoints.explain(error, path)
        if self.engine.total(float(problem is not None)):
            checkpoints.sweep(self.run, None)
            raise problem or VTSumError(f"train: a checkpoint must fit into {path}, another rank could not write it")
