"""What the protocols of `vtsum evaluate` make of one and the same saliency: F1, and how many frames each chooses.

Part of `python -m bench.summary.walkthrough`, which leaves evaluation files and the data that they are of; beside their
saliency stand random scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.videoxum import VideoXumDataset
from vtsum.evaluation.videoxum_frames import PROTOCOLS, REVISIONS, choose_frames, f1_scores

DRAWS = 20
"""Of random scores."""


def mean(values: Sequence[float]) -> list[float]:
    """The mean over videos and its standard error."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)]


def row(name: str, scores: Sequence[Sequence[np.ndarray]], labels: Sequence[np.ndarray]) -> dict[str, Any]:
    """By protocol, F1 and the share of frames chosen: `scores` holds [T] or several such for each video, `labels`
    [A, T]."""
    made: dict[str, Any] = {"name": name, "f1": {}, "chosen": {}}
    for protocol in PROTOCOLS:
        f1, chosen = [], []
        for several, marks in zip(scores, labels, strict=True):
            masks = [choose_frames(one, protocol) for one in several]
            f1.append(float(np.mean([f1_scores(mask, marks).mean() for mask in masks])))
            chosen.append(float(np.mean(masks)))
        made["f1"][protocol], made["chosen"][protocol] = mean(f1), mean(chosen)
    return made


def compare(data: Path, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A record: a row for each evaluation of `data`, of any protocol, and one for random scores."""
    about = {"data": evaluations[0]["data"]["name"], "split": evaluations[0]["split"]}
    labels = {a.video_id: a.labels for a in VideoXumDataset(data, about["split"]).annotations}
    videos = [(v["video_id"], len(v["saliency_logits"])) for v in evaluations[0]["videos"]]
    marks = [labels[name][:, :frames] for name, frames in videos]
    rows = []
    for one in evaluations:
        scores = {v["video_id"]: np.array(v["saliency_logits"], np.float32) for v in one["videos"]}
        rows.append(row(one["checkpoint"]["name"], [[scores[name]] for name, _ in videos], marks))
    noise = [np.random.default_rng([0, i]).random((DRAWS, m.shape[1]), np.float32) for i, m in enumerate(marks)]
    rows.append(row("random", [list(draws) for draws in noise], marks))
    return {**about, "videos": len(videos), "revisions": REVISIONS, "rows": rows}
