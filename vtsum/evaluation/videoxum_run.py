"""Evaluating a model on VideoXum's layout, by every measure: generation in batches, then the figures.

Batches are fixed by the settings, not by the number of processes, and dealt out whole: padding, and with it the last
digits, are the same however many processes there are. Each video is evaluated once, under both protocols (the published
evaluation counts some twice where their number does not divide by the number of processes).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum.data.collate import collate
from vtsum.data.videoxum import CLIP_FEATURES, VideoXumDataset, VideoXumItem, join_sentences
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.clip_score import ClipText, load_clip_text, vt_clipscore
from vtsum.evaluation.ranks import Ranks
from vtsum.evaluation.videoxum_figures import figures
from vtsum.evaluation.videoxum_file import FORMAT, PartFile, write_evaluation
from vtsum.evaluation.videoxum_frames import (
    STRICT,
    check_protocol,
    clip_frames,
    evenly_spaced,
    f1_scores,
    frame_measures,
    summary_length,
)
from vtsum.extras import version_of
from vtsum.model import VTSum

Progress = Callable[[int, int], None]
"""progress(done, all): videos of the whole run, as far as this process knows."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation depends on, beside the checkpoint's and the data's content."""

    checkpoint: str
    data: str
    split: str = "test"
    protocol: str = STRICT
    tokenizer: str | None = None
    """Of a .pth: the vocabulary."""
    kernel_size: int | str | None = "auto"
    """Of a .pth: the local attention's window; None: the TT model."""
    clip: str | None = None
    """CLIP folder or vt_clip.pth; None: data/clip where it is there."""
    clip_tokenizer: str | None = None
    caption_tokenizer: str = "ptb"
    """"ptb" (needs Java), or "plain", whose figures are not comparable with published ones."""
    num_beams: int = 3
    max_length: int | None = None
    """In ids, the prompt included; None: what the model was trained with (a .pth: 128, as published)."""
    min_length: int = 10
    repetition_penalty: float = 1.0
    batch_size: int = 16
    limit: int | None = None
    """The first so many videos alone; the shortest ones come first."""
    seed: int = 0
    """Of the resamples and of the random baseline."""
    resamples: int = 1000
    random_draws: int = 5

    def check(self) -> None:
        """Raise VTSumError for a value out of its range."""
        check_protocol(self.protocol, "evaluate")
        if self.caption_tokenizer not in ("ptb", "plain"):
            raise VTSumError(f"evaluate: caption_tokenizer must be ptb or plain, got {self.caption_tokenizer!r}")
        for name in ("num_beams", "batch_size", "resamples", "random_draws"):
            if getattr(self, name) < 1:
                raise VTSumError(f"evaluate: {name} must be at least 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise VTSumError(f"evaluate: limit must be at least 1, got {self.limit}")
        if self.min_length < 0 or self.repetition_penalty <= 0 or self.seed < 0:
            raise VTSumError("evaluate: min_length and seed must be 0 or more and repetition_penalty above 0")


def evaluate(
    settings: EvaluationSettings,
    output: str | Path | None = None,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Evaluate a model and write the evaluation file; under torchrun, this process's share of it.

    An evaluation that was interrupted resumes from the part files beside `output`.

    Args:
        settings: what to evaluate and how.
        output: the file. None: nothing is written (and nothing resumes).
        device: "cpu", "cuda", "cuda:1"; "auto": this process's GPU where there is one.
        overwrite: replace an older file, and begin anew.
    Returns:
        dict | None: the file's content (see `vtsum.evaluation.videoxum_file`); None on processes other than the first.
    Raises:
        VTSumError: a setting, a file or the data that cannot be used; another process of the run that ended.
    """
    settings.check()
    start = time.monotonic()
    with Ranks() as ranks:
        path = Path(output) if output is not None else None
        if path is not None and path.exists() and not overwrite:
            raise VTSumError(f"evaluate: output {path} must not exist yet (--overwrite replaces it)")
        if settings.caption_tokenizer == "ptb" and (missing := java.why_not()):
            raise VTSumError(
                f"evaluate: the PTB tokenizer {missing}; or --caption_tokenizer plain, whose figures are not "
                "comparable with published ones"
            )
        where = ranks.device(device)
        model, checkpoint = load_model(settings)
        model = model.to(where)
        dataset, clip, reason = _data(settings, where)
        if dataset.width != model.config.width:
            raise VTSumError(
                f"evaluate: features of {settings.data} must have the model's width {model.config.width}, "
                f"got {dataset.width}"
            )
        job = _Job(settings, model, dataset, clip, where)
        identity = {
            "data": {
                "path": settings.data,
                "name": Path(os.path.abspath(settings.data)).name,
                "annotations_sha256": _sha256(dataset.ann_file),
                "videos": job.count,
            },
            "checkpoint": {
                "path": settings.checkpoint,
                "name": checkpoint_name(settings.checkpoint),
                "sha256": checkpoint,
            },
            "clip": {"path": job.clip_path, "sha256": clip.sha256} if clip else None,
        }
        part = PartFile(path, ranks.rank, ranks.world, _binding(settings, identity)) if path else None
        with contextlib.closing(part) if part else contextlib.nullcontext():
            videos = _all_videos(job, ranks, part, overwrite, progress)
        content: dict[str, Any] | None = None
        if ranks.rank == 0:
            content = {
                "format": FORMAT,
                "protocol": settings.protocol,
                "split": settings.split,
                **identity,
                "settings": asdict(settings) | {"max_length": job.max_length},
                **figures(videos, settings, reason),
                "notes": _notes(model, clip, videos),
                "software": {n: version_of(n) for n in ("vtsum", "torch", "transformers", "pycocoevalcap")},
                "timings": {"seconds": time.monotonic() - start, "processes": ranks.world, "device": where},
            }
            if path:
                write_evaluation(content, path)
        ranks.everyone(None)  # the file is there: what led to it may go
        if part:
            part.remove()
        return content


def load_model(settings: EvaluationSettings) -> tuple[VTSum, str]:
    """The model in evaluation mode and the SHA-256 of its weights: from a model folder, a run's folder, or a .pth."""
    from vtsum.model.checkpoint import load_checkpoint

    source = Path(settings.checkpoint)
    if source.is_file():
        if settings.tokenizer is None:
            raise VTSumError(f"evaluate: --tokenizer must name the vocabulary that belongs to {source}")
        model = VTSum.from_videoxum(
            source, settings.tokenizer, kernel_size=settings.kernel_size, max_text_length=settings.max_length or 128
        )
        return model.eval(), _sha256(source)
    if not source.is_dir():
        raise VTSumError(f"evaluate: checkpoint must be a model folder, a run's folder or a .pth file, got {source}")
    if settings.tokenizer is not None or settings.kernel_size != "auto":
        raise VTSumError(f"evaluate: --tokenizer and --kernel_size belong to .pth files, {source} has its own")
    if not (source / "config.json").is_file() and (source / "model").is_dir():
        source /= "model"
    loaded = load_checkpoint(source)
    return loaded.model.eval(), loaded.weights_sha256


def checkpoint_name(checkpoint: str | Path) -> str:
    """What a reader would call it: the folder's name, the run's for RUN/model, the file's for a .pth."""
    path = Path(os.path.abspath(checkpoint))
    if path.is_file():
        return path.stem
    return path.parent.name if path.name == "model" else path.name


class _Job:
    """One evaluation: the videos in fixed batches, and what is measured where their features are at hand."""

    def __init__(
        self,
        settings: EvaluationSettings,
        model: VTSum,
        dataset: VideoXumDataset,
        clip: ClipText | None,
        device: str,
    ) -> None:
        self.settings, self.model, self.dataset, self.clip, self.device = settings, model, dataset, clip, device
        self.clip_path = str(_clip_source(settings)) if clip else None
        self.count = min(len(dataset), settings.limit or len(dataset))
        self.max_length = settings.max_length or model.config.max_text_length
        longest = model.config.text.max_positions
        if not settings.min_length < self.max_length <= longest:
            raise VTSumError(
                f"evaluate: max_length must be above min_length ({settings.min_length}) and at most {longest}, "
                f"got {self.max_length}"
            )
        self.batches = [
            list(range(first, min(first + settings.batch_size, self.count)))
            for first in range(0, self.count, settings.batch_size)
        ]
        self.references = [join_sentences(a.tsum) for a in dataset.annotations[: self.count]]
        self.others = other_videos(self.count, settings.random_draws, settings.seed)
        self._features: dict[str, tuple[np.ndarray, bool]] = {}

    def run(self, number: int) -> list[dict[str, Any]]:
        """Generate for a batch and measure its videos."""
        items = [self.dataset[index] for index in self.batches[number]]
        batch = collate(items).to(self.device)
        with torch.inference_mode():
            texts, _, logits = self.model.generate(
                batch.video_embeddings,
                batch.video_mask,
                num_beams=self.settings.num_beams,
                max_length=self.max_length,
                min_length=self.settings.min_length,
                repetition_penalty=self.settings.repetition_penalty,
            )
        rows = logits.float().cpu().numpy()
        return [
            self._measure(index, item, text, row[: len(item.features)])
            for index, item, text, row in zip(self.batches[number], items, texts, rows, strict=True)
        ]

    def _measure(self, index: int, item: VideoXumItem, text: str, logits: np.ndarray) -> dict[str, Any]:
        protocol, labels, length = self.settings.protocol, item.vsum_labels.numpy(), len(logits)
        if not np.isfinite(logits).all():
            raise VTSumError(
                f"evaluate: saliency of {item.video_id} must be finite, got NaN or infinity from the model"
            )
        found = frame_measures(logits, labels, protocol)
        even = np.zeros(length, bool)
        even[evenly_spaced(length, summary_length(length, protocol))] = True
        noises = [
            np.random.default_rng([self.settings.seed, draw, index]).random(length, np.float32)
            for draw in range(self.settings.random_draws)
        ]
        chances = [frame_measures(noise, labels, protocol) for noise in noises]
        record: dict[str, Any] = {
            "video_id": item.video_id,
            "index": index,
            "duration": item.duration,
            "frames": length,
            "text": text,
            "reference": self.references[index],
            **found._asdict(),
            "random": {name: [getattr(one, name) for one in chances] for name in ("f1", "kendall", "spearman")},
            # Evenly spaced frames are a choice without an order: no rank correlation, which counts as 0.
            "uniform": {"f1": float(f1_scores(even, labels).mean()), "kendall": 0.0, "spearman": 0.0},
            "random_videos": [int(other[index]) for other in self.others],
        }
        if self.clip is not None and item.clip_vision is not None:
            vision = item.clip_vision.numpy()
            features, record["text_cut"] = self._text(text)
            record["vt_clipscore"] = vt_clipscore(vision, features, clip_frames(logits, protocol))
            spaced = evenly_spaced(length, summary_length(length, STRICT))
            record["uniform"]["vt_clipscore"] = vt_clipscore(vision, features, spaced)
            if self.others:
                record["random"]["vt_clipscore"] = [
                    vt_clipscore(vision, self._text(self.references[other[index]])[0], clip_frames(noise, protocol))
                    for noise, other in zip(noises, self.others, strict=True)
                ]
        record["saliency_logits"] = [float(f"{value:.9g}") for value in logits]
        return record

    def _text(self, text: str) -> tuple[np.ndarray, bool]:
        assert self.clip is not None  # _measure asks only where there is one
        if text not in self._features:
            self._features[text] = self.clip.encode(text)
        return self._features[text]


def other_videos(videos: int, draws: int, seed: int) -> list[np.ndarray]:
    """For each draw and video another video at random, each serving once a draw; none where there is one video."""
    made = []
    for draw in range(draws if videos > 1 else 0):
        order = np.random.default_rng([seed, draw]).permutation(videos)
        other = np.empty(videos, np.int64)
        other[order] = np.roll(order, 1)
        made.append(other)
    return made


def _all_videos(
    job: _Job, ranks: Ranks, part: PartFile | None, overwrite: bool, progress: Progress | None
) -> list[dict[str, Any]]:
    """Every video's record in the data set's order: those done before, and those of all processes."""
    if part and overwrite:
        part.remove()
        ranks.everyone(None)
    done: dict[int, list[dict[str, Any]]] = {}
    for found in ranks.everyone(part.read() if part else {}):
        done.update(found)
    left = [number for number in range(len(job.batches)) if number not in done]
    finished = sum(len(batch) for batch in done.values())
    if progress:
        progress(finished, job.count)
    own: dict[int, list[dict[str, Any]]] = {}
    for number in left[ranks.rank :: ranks.world]:
        own[number] = job.run(number)
        if part:
            part.append(number, own[number])
        if progress:
            known = sum(len(batch) for batch in own.values()) * ranks.world
            progress(min(finished + known, job.count), job.count)
    for found in ranks.everyone(own):
        done.update(found)
    if progress:
        progress(job.count, job.count)
    return [video for number in sorted(done) for video in done[number]]


def _clip_source(settings: EvaluationSettings) -> Path | None:
    if settings.clip is not None:
        return Path(settings.clip)
    beside = Path(settings.data) / "clip"
    return beside if beside.is_dir() else None


def _data(settings: EvaluationSettings, device: str) -> tuple[VideoXumDataset, ClipText | None, str | None]:
    """The videos, the text encoder of VT-CLIPScore, and why there is none."""
    source, features = _clip_source(settings), Path(settings.data) / CLIP_FEATURES
    reason = None
    if source is None:
        reason = f"needs a CLIP text encoder: --clip, or {Path(settings.data) / 'clip'}"
    elif settings.clip is None and not features.is_dir():
        reason = f"needs CLIP features of the frames in {features}"
    if reason is not None or source is None:
        return VideoXumDataset(settings.data, settings.split), None, reason
    dataset = VideoXumDataset(settings.data, settings.split, with_clip=True)
    clip = load_clip_text(source, settings.clip_tokenizer, device)
    vision = dataset[0].clip_vision
    if vision is not None and vision.shape[1] != clip.dim:
        raise VTSumError(
            f"evaluate: clip must be the model that made {features} (dimension {vision.shape[1]}), "
            f"got {source} of dimension {clip.dim}"
        )
    return dataset, clip, None


def _notes(model: VTSum, clip: ClipText | None, videos: list[dict[str, Any]]) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    if model.loading is not None and model.loading.missing:
        notes.append("parts of the model are untrained: " + "; ".join(model.loading.describe().splitlines()))
    cut = sum(bool(video.get("text_cut")) for video in videos)
    if clip is not None and cut:
        notes.append(f"{cut} texts are longer than the {clip.limit} tokens that CLIP reads and were cut for it")
    return notes


def _binding(settings: EvaluationSettings, identity: dict[str, Any]) -> dict[str, Any]:
    """What a batch's records depend on: a part file is of use to an evaluation with the same alone."""
    own = asdict(settings)
    for name in ("checkpoint", "data", "clip", "caption_tokenizer", "resamples", "tokenizer", "clip_tokenizer"):
        del own[name]
    clip = identity["clip"]
    return own | {
        "checkpoint": identity["checkpoint"]["sha256"],
        "data": identity["data"]["annotations_sha256"],
        "clip": clip["sha256"] if clip else None,
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
