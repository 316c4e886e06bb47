"""Validation while training: losses and the eight measures on the val split, the best model so far, early stopping.

    RUN/validation.jsonl    a line a validation
    RUN/best/               the model that was best by `best_by`, as `VTSum.from_pretrained` reads it; its config.json
                            holds the line

No file of the test split is opened.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum.data.collate import collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.videoxum_figures import figures
from vtsum.evaluation.videoxum_job import Job
from vtsum.evaluation.videoxum_run import open_clip
from vtsum.evaluation.videoxum_scores import MEASURES
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.files import write_text
from vtsum.model import VTSum
from vtsum.model.clip_text import ClipText
from vtsum.processes import Group, Place
from vtsum.reading import read_json
from vtsum.training.records import read_metrics
from vtsum.training.settings import TrainSettings

VALIDATION, BEST = "validation.jsonl", "best"
_LOSSES = ("loss", "loss_vsum", "loss_tsum", "loss_boundary")


class Validation:
    """Measures a run's model on the videos of the val split, which all ranks share out.

    Args:
        settings: of the run. train: its videos, none of which may be among the val split's. place: of this process.
    Raises:
        VTSumError: there is no val split, it shares videos with the train split, or `best_by` cannot be measured.
    """

    def __init__(self, settings: TrainSettings, run: Path, train: VideoXumDataset, place: Place) -> None:
        self.settings, self.run, self.place = settings, run, place
        self.videos = VideoXumDataset(
            settings.data, "val", ann_root=settings.ann_root, video_embeddings_root=settings.video_embeddings_root
        )
        if shared := set(self.videos.video_ids) & set(train.video_ids):
            raise VTSumError(
                f"train: {self.videos.ann_file} must hold videos that training does not see, got {min(shared)}"
            )
        self.job_settings = EvaluationSettings(
            checkpoint=str(run / "model"),
            data=settings.data or "",
            split="val",
            caption_tokenizer=settings.val_caption_tokenizer,
            batch_size=settings.batch_size,
            min_length=min(10, settings.model.max_text_length - 1),
            resamples=1,
            random_draws=1,
        )
        self.clip: ClipText | None = None
        self.no_clip: str | None = "needs --data, which names one folder for all"
        if settings.data is not None and settings.video_embeddings_root is None:
            self.videos, self.clip, self.no_clip = open_clip(self.job_settings, self.videos, "cpu")
        reasons = {"meteor": java.why_not(), "vt_clipscore": self.no_clip}
        if settings.val_caption_tokenizer == "ptb" and reasons["meteor"]:
            raise VTSumError(f"train: val_caption_tokenizer must be plain here: ptb {reasons['meteor']}")
        if reason := reasons.get(settings.best_by):
            raise VTSumError(f"train: best_by must be something that can be measured, {settings.best_by} {reason}")
        self.lines: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def begin(self, done: int) -> None:
        """Take up what a run that goes on after step `done` found; what lies beyond is found again. Nothing is
        written: see `drop_later`."""
        path, held = self.run / VALIDATION, self.run / BEST / "config.json"
        self.lines = [line for line in read_metrics(path) if line["step"] <= done] if path.exists() else []
        if held.exists():
            found: Any = read_json(held, dict, "train")
            for name in ("facts", "training", "validation"):
                found = found.get(name) if isinstance(found, dict) else None
            self.best = found if isinstance(found, dict) else {}
            for name, kind in ((self.settings.best_by, float), ("step", int)):
                if type(self.best.get(name)) is not kind:
                    raise VTSumError(f"train: {held} must say what was measured of it, got no {name}")

    def drop_later(self) -> None:
        """Leave in the file what was taken up, and no more; by the first rank."""
        if (path := self.run / VALIDATION).exists():
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def due(self, step: int, per_epoch: int) -> bool:
        """Whether the model is to be measured after this step."""
        every = self.settings.val_every * per_epoch
        return step % every == 0 and not any(line["step"] == step for line in self.lines)

    @property
    def hopeless(self) -> bool:
        """Whether the last `patience` validations were none better than the best before them."""
        if not self.settings.patience or self.best is None:
            return False
        return sum(line["step"] > self.best["step"] for line in self.lines) >= self.settings.patience

    def measure(
        self, step: int, epoch: int, trained: VTSum, wish: Callable[[], int] = lambda: 0
    ) -> tuple[dict[str, Any], VTSum | None] | int:
        """Measure RUN/model, which all ranks read; the line, and on the first rank the model where it is the best. Or
        the number of a signal for which that was broken off.

        Args:
            wish: tells the number of the signal that asks this rank to stop, 0 where none does.
        """
        with _same_random_states():
            model = type(trained).load_checkpoint(self.run / "model").model.eval()
            model.own_loss = trained.own_loss
            device = "cuda" if torch.cuda.is_available() else "cpu"
            job = Job(self.job_settings, model.to(device), self.videos, self.clip, device)
            own = range(self.place.rank, len(job.batches), self.place.ranks)
            sums, found = np.zeros(5), dict[int, list[dict[str, Any]]]()
            for number in own:
                if wish():  # hours of work perhaps, after which whoever asked would have ended this process
                    break
                sums += self._losses(model, job.batches[number], device)
                found[number] = job.run(number)
            group = Group()
            records: dict[int, list[dict[str, Any]]] = {}
            totals, asked = np.zeros(5), 0
            for theirs, losses, signalled in group.everyone((found, sums, wish())):
                records |= theirs
                totals += losses
                asked = asked or signalled  # the same on all ranks
            if asked:
                return asked
            line: dict[str, Any] | None = None
            if self.place.first:
                videos = [video for number in sorted(records) for video in records[number]]
                measures = figures(videos, self.job_settings, self.no_clip)["measures"]
                line = {"step": step, "epoch": epoch, **self._means(totals)}
                line |= {name: measures[name]["value"] for name in MEASURES}  # type: ignore[call-overload]
            line = group.everyone(line)[0]
            assert line is not None  # the first rank's
        if not self._better(line):
            return line, None
        self.best = line
        return line, model if self.place.first else None

    def record(self, line: dict[str, Any]) -> None:
        """Write the line down, once the best model is in its place."""
        self.lines.append(line)
        if self.place.first:
            with open(self.run / VALIDATION, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")

    def describe_best(self) -> str:
        assert self.best is not None  # whoever asks has looked
        name = self.settings.best_by
        return f"the best on val by {name} ({self.best[name]:.4g}) is {self.run / BEST}, of step {self.best['step']}"

    def _better(self, line: dict[str, Any]) -> bool:
        if self.best is None:
            return True
        name = self.settings.best_by
        now, before = line[name], self.best[name]
        return bool(now < before if name.startswith("loss") else now > before)

    @torch.no_grad()
    def _losses(self, model: VTSum, batch: list[int], device: str) -> np.ndarray:
        """Sums over a batch of what is a mean over frames (saliency, boundaries) or words, and their numbers."""
        inputs = collate([self.videos[index] for index in batch]).to(device).model_inputs()
        counts = model.loss_counts(inputs.get("video_mask"), inputs.get("vsum_labels"), inputs["tsum_labels"])
        out = model(**inputs, counts=counts)
        means = [float(0.0 if value is None else value) for value in (out.loss_vsum, out.loss_boundary, out.loss_tsum)]
        frames, words = counts
        return np.array([means[0] * frames, means[1] * frames, means[2] * words, frames, words])

    def _means(self, totals: np.ndarray) -> dict[str, float]:
        vsum, boundary, tsum, frames, words = totals.tolist()
        vsum, boundary, tsum = vsum / max(1, frames), boundary / max(1, frames), tsum / max(1, words)
        m = self.settings.model
        loss = m.lambda_vsum * vsum + m.lambda_tsum * tsum + m.lambda_boundary * boundary
        return dict(zip(_LOSSES, (loss, vsum, tsum, boundary), strict=True))


def describe(line: dict[str, Any]) -> str:
    """A validation in one line."""
    shown = "  ".join(f"{k} {v:.4f}" for k, v in line.items() if k not in ("step", "epoch") and v is not None)
    return f"validation after epoch {line['epoch']}: {shown}"


@contextlib.contextmanager
def _same_random_states() -> Iterator[None]:
    """Training draws the same numbers whether it was validated meanwhile or not."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
