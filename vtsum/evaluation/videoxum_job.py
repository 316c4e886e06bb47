"""One evaluation's videos in fixed batches: generating for them, and measuring what needs their features at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vtsum import plugins
from vtsum.data.collate import Batch, collate
from vtsum.data.videoxum import VideoXumDataset, VideoXumItem, join_sentences
from vtsum.errors import VTSumError
from vtsum.evaluation.boundaries import boundary_record
from vtsum.evaluation.clip_score import vt_clipscore
from vtsum.evaluation.videoxum_frames import (
    choose_frames,
    clip_frames,
    evenly_spaced,
    f1_scores,
    frame_measures,
    summary_length,
)
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.model import VTSum
from vtsum.model.clip_text import ClipText
from vtsum.protocols import Metric

_OF_FRAMES = ("f1", "kendall", "spearman")


class Measuring:
    """One evaluation: the videos in fixed batches, and what is measured of each by itself."""

    def __init__(self, settings: EvaluationSettings, dataset: VideoXumDataset, clip: ClipText | None) -> None:
        self.settings, self.dataset, self.clip = settings, dataset, clip
        self.clip_path = str(settings.clip_source) if clip else None
        self.count = min(len(dataset), settings.limit or len(dataset))
        self.batches = [
            list(range(first, min(first + settings.batch_size, self.count)))
            for first in range(0, self.count, settings.batch_size)
        ]
        self.references = [join_sentences(a.tsum) for a in dataset.annotations[: self.count]]
        self.others = other_videos(self.count, settings.random_draws, settings.seed)
        self.metrics: list[Metric] = [plugins.make("metric", name) for name in settings.metrics]
        if len({metric.name for metric in self.metrics}) < len(self.metrics):
            names = ", ".join(metric.name for metric in self.metrics)
            raise VTSumError(f"evaluate: metrics must have names of their own, got {names}")
        self._features: dict[str, tuple[np.ndarray, bool]] = {}

    def measure(self, index: int, item: VideoXumItem, text: str, logits: np.ndarray) -> dict[str, Any]:
        """The record of one video; `logits` [T] are its frames' scores."""
        protocol, labels, length = self.settings.protocol, item.vsum_labels.numpy(), len(logits)
        if not np.isfinite(logits).all():
            raise VTSumError(
                f"evaluate: saliency of {item.video_id} must be finite, got NaN or infinity from the model"
            )
        found = frame_measures(logits, labels, protocol)
        even = np.zeros(length, bool)
        even[evenly_spaced(length, int(choose_frames(logits, protocol).sum()))] = True
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
            "random": {name: [getattr(one, name) for one in chances] for name in _OF_FRAMES},
            # Evenly spaced frames are a choice without an order: no rank correlation, which counts as 0.
            "uniform": {"f1": float(f1_scores(even, labels).mean()), "kendall": 0.0, "spearman": 0.0},
            "random_videos": [int(other[index]) for other in self.others],
        }
        if self.clip is not None and item.clip_vision is not None:
            vision = item.clip_vision.numpy()
            features, record["text_cut"] = self._text(text)
            record["vt_clipscore"] = vt_clipscore(vision, features, clip_frames(logits, protocol))
            spaced = evenly_spaced(length, summary_length(length))
            record["uniform"]["vt_clipscore"] = vt_clipscore(vision, features, spaced)
            if self.others:
                record["random"]["vt_clipscore"] = [
                    vt_clipscore(vision, self._text(self.references[other[index]])[0], clip_frames(noise, protocol))
                    for noise, other in zip(noises, self.others, strict=True)
                ]
        if self.metrics:
            args = (logits, labels, text, self.references[index])
            record["own_metrics"] = {metric.name: float(metric.measure(*args)) for metric in self.metrics}
            if bad := [name for name, value in record["own_metrics"].items() if not np.isfinite(value)]:
                raise VTSumError(f"evaluate: {bad[0]} of {item.video_id} must be finite, got NaN or infinity")
        record["saliency_logits"] = [float(f"{value:.9g}") for value in logits]
        return record

    def could_be(self, number: int, records: list[Any]) -> bool:
        """Whether records that were read may be those of a batch: of its videos, with all that is counted on later."""
        if not 0 <= number < len(self.batches) or len(records) != len(self.batches[number]):
            return False
        return all(map(self._could_be, self.batches[number], records))

    def _could_be(self, index: int, record: Any) -> bool:
        given = {"video_id": self.dataset.video_ids[index], "index": index, "reference": self.references[index]}
        given["random_videos"] = [int(other[index]) for other in self.others]
        if not isinstance(record, dict) or any(record.get(name) != value for name, value in given.items()):
            return False
        random, uniform, own = (record.get(name, {}) for name in ("random", "uniform", "own_metrics"))
        if not (isinstance(record.get("text"), str) and all(isinstance(part, dict) for part in (random, uniform, own))):
            return False
        names = [*_OF_FRAMES, *(["vt_clipscore"] if self.clip is not None else [])]
        numbers = [part.get(name) for part in (record, uniform) for name in names]
        numbers += [own.get(metric.name) for metric in self.metrics]
        numbers += [value for name, value in record.items() if name.startswith("boundary_") and value is not None]
        draws = dict.fromkeys(_OF_FRAMES, self.settings.random_draws)
        if self.clip is not None and self.others:
            draws["vt_clipscore"] = len(self.others)
        for name, count in draws.items():
            drawn = random.get(name)
            if not isinstance(drawn, list) or len(drawn) != count:
                return False
            numbers += drawn
        return all(type(value) in (int, float) for value in numbers)

    def _text(self, text: str) -> tuple[np.ndarray, bool]:
        assert self.clip is not None  # `measure` asks only where there is one
        if text not in self._features:
            self._features[text] = self.clip.encode(text)
        return self._features[text]


class Job(Measuring):
    """One evaluation of a model, which generates what is measured."""

    def __init__(
        self,
        settings: EvaluationSettings,
        model: VTSum,
        dataset: VideoXumDataset,
        clip: ClipText | None,
        device: str,
    ) -> None:
        super().__init__(settings, dataset, clip)
        self.model, self.device = model, device
        self.max_length = settings.max_length or model.config.max_text_length
        longest = model.config.text.max_positions
        if not settings.min_length < self.max_length <= longest:
            raise VTSumError(
                f"evaluate: max_length must be above min_length ({settings.min_length}) and at most {longest}, "
                f"got {self.max_length}"
            )

    def run(self, number: int) -> list[dict[str, Any]]:
        """Generate for a batch and measure its videos."""
        items = [self.dataset[index] for index in self.batches[number]]
        batch = collate(items).to(self.device)
        try:
            with torch.inference_mode():
                texts, _, logits = self.model.generate(
                    batch.video_embeddings,
                    batch.video_mask,
                    num_beams=self.settings.num_beams,
                    max_length=self.max_length,
                    min_length=self.settings.min_length,
                    repetition_penalty=self.settings.repetition_penalty,
                )
        except torch.OutOfMemoryError:
            raise VTSumError(
                f"evaluate: batch_size must fit the memory of {self.device}, got {self.settings.batch_size} "
                f"(videos of up to {batch.video_embeddings.shape[1]} frames)"
            ) from None
        rows = logits.float().cpu().numpy()
        records = [
            self.measure(index, item, text, row[: len(item.features)])
            for index, item, text, row in zip(self.batches[number], items, texts, rows, strict=True)
        ]
        if self.model.boundary_head is not None:
            for item, record, row in zip(items, records, self._boundaries(batch), strict=True):
                record |= boundary_record(row[: len(item.features)], item.vsum_labels.numpy())
        return records

    @torch.inference_mode()
    def _boundaries(self, batch: Batch) -> np.ndarray:
        x, mask = batch.video_embeddings, batch.video_mask
        return self.model.boundary_logits(x, self.model.encode(x, mask), mask).float().cpu().numpy()


def other_videos(videos: int, draws: int, seed: int) -> list[np.ndarray]:
    """For each draw and video another video at random, each serving once a draw; none where there is one video."""
    made = []
    for draw in range(draws if videos > 1 else 0):
        order = np.random.default_rng([seed, draw]).permutation(videos)
        other = np.empty(videos, np.int64)
        other[order] = np.roll(order, 1)
        made.append(other)
    return made
