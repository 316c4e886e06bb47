"""The measures of predictions that another program made: frames' scores and texts from a file.

    {"v_abc": {"saliency": [0.1, 2.5, ...], "text": "a dog runs"}, ...}

One entry for each video of the split, one score for each frame (one a second, as the labels; give or take 2, the longer
one is cut). Any finite numbers will do: only their order counts, but under the protocols that say otherwise
(docs/protocols.md). What `vtsum evaluate` writes is understood, too: its "videos" have saliency_logits and a text.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum.data.feature_files import feature_file
from vtsum.data.rules import SLACK, read_matrix
from vtsum.data.videoxum import VideoXumDataset, VideoXumItem, join_sentences
from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_figures import Progress
from vtsum.evaluation.videoxum_file import write_evaluation
from vtsum.evaluation.videoxum_job import Measuring
from vtsum.evaluation.videoxum_run import check_captions, contents, data_of, open_clip
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.files import check_inputs, check_new
from vtsum.model.clip_text import ClipText
from vtsum.reading import as_said, parse_json, read_file

_LIMIT = 1 << 30  # bytes, as an evaluation file has at most
Prediction = tuple[np.ndarray, str]


class Predicted(Measuring):
    """One evaluation whose texts and scores are there already."""

    def __init__(
        self,
        settings: EvaluationSettings,
        dataset: VideoXumDataset,
        clip: ClipText | None,
        predictions: dict[str, Prediction],
    ) -> None:
        super().__init__(settings, dataset, clip)
        self.predictions = predictions
        wanted = dataset.video_ids[: self.count]
        missing = [video for video in wanted if video not in predictions]
        if missing:
            raise VTSumError(
                f"score: {settings.checkpoint} must hold each of the {len(wanted)} videos, got none of {missing[0]}"
                + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            )
        if unknown := sorted(set(predictions) - set(dataset.video_ids)):
            raise VTSumError(f"score: {settings.checkpoint} must hold videos of the split alone, got {unknown[0]}")

    def run(self, number: int) -> list[dict[str, Any]]:
        """Measure the videos of a batch."""
        return [self._one(index) for index in self.batches[number]]

    def _one(self, index: int) -> dict[str, Any]:
        about = self.dataset.annotations[index]
        scores, text = self.predictions[about.video_id]
        if abs(len(scores) - about.length) > SLACK:
            raise VTSumError(
                f"score: saliency of {about.video_id} must have a number for each of {about.length} frames, give or "
                f"take {SLACK}, got {len(scores)}"
            )
        length, vision = min(len(scores), about.length), None
        if self.clip is not None and self.dataset.clip_root is not None:
            read = read_matrix(feature_file(self.dataset.clip_root, about.video_id), "vision", about.length)
            length = min(length, len(read))
            vision = torch.from_numpy(read[:length])
        item = VideoXumItem(
            video_id=about.video_id,
            duration=about.duration,
            features=torch.empty(length, 0),
            vsum_labels=torch.from_numpy(about.labels[:, :length].astype(np.float32)),
            tsum=self.references[index],
            clip_vision=vision,
        )
        return self.measure(index, item, text, scores[:length])


def score(
    settings: EvaluationSettings,
    output: str | Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure predictions and write the evaluation file, as `vtsum.evaluation.videoxum_run.evaluate` does for a model.

    Args:
        settings: `checkpoint` is the file of predictions. output: the evaluation file.
        name: what made the predictions is called; None: the file's name.
        overwrite: replace an older file. progress: told ("videos", done, all) and ("texts", done, all).
    Returns:
        dict: the evaluation file's content.
    Raises:
        VTSumError: predictions that cannot be read or do not fit the split, or whatever `evaluate` refuses.
    """
    settings.check()
    start, path, source = time.monotonic(), Path(output), Path(settings.checkpoint)
    check_inputs("score", path, settings.inputs)
    check_new("score", path, overwrite)
    check_captions(settings)
    content, predictions = read_predictions(source)
    dataset, clip, reason = open_clip(settings, VideoXumDataset(settings.data, settings.split, features=False), "cpu")
    job = Predicted(settings, dataset, clip, predictions)
    videos: list[dict[str, Any]] = []
    for number in range(len(job.batches)):
        videos += job.run(number)
        if progress:
            progress("videos", len(videos), job.count)
    identity = {
        "data": data_of(settings, job),
        "checkpoint": {
            "path": settings.checkpoint,
            "name": name or source.stem,
            "sha256": hashlib.sha256(content).hexdigest(),
        },
        "clip": {"path": job.clip_path, "sha256": clip.sha256} if clip else None,
    }
    made = contents(settings, identity, videos, reason, progress)
    made["timings"] = {"seconds": time.monotonic() - start, "processes": 1, "device": "cpu"}
    check_new("score", path, overwrite)
    write_evaluation(made, path)
    return made


def read_predictions(path: Path) -> tuple[bytes, dict[str, Prediction]]:
    """The file's bytes, and for each video its scores, float32 [T], and its text, cleaned as the references are.

    Raises:
        VTSumError: it is no JSON of this form, a score is no finite number, or a text has no word.
    """
    content = read_file(path, "score", _LIMIT)
    data = parse_json(content, dict, f"score: {path}")
    if "videos" in data and isinstance(data["videos"], list):
        found = [(entry.get("video_id"), entry) for entry in data["videos"] if isinstance(entry, dict)]
    else:
        found = list(data.items())
    made: dict[str, Prediction] = {}
    for video, entry in found:
        if not isinstance(entry, dict) or not isinstance(video, str):
            raise VTSumError(f"score: {path}: {video!r:.80} must hold saliency and text, got {as_said(entry)}")
        scores = entry.get("saliency", entry.get("saliency_logits"))
        numbers = isinstance(scores, list) and all(type(value) in (int, float) for value in scores)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told
            array = np.array(scores if numbers else [], np.float64).astype(np.float32)
        if not len(array) or not np.isfinite(array).all():
            raise VTSumError(f"score: {path}: saliency of {video} must be finite numbers, got {as_said(scores)}")
        text = entry.get("text")
        if not isinstance(text, str) or not join_sentences([text]):
            raise VTSumError(f"score: {path}: text of {video} must hold a word, got {as_said(text)}")
        made[video] = array, join_sentences([text])
    return content, made
