"""The table of docs/protocols.md: one saliency, measured under each protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.summary.protocols import compare
from bench.summary.tables.protocols import protocols
from tests.vtsum.videoxum_corpus import write_corpus
from vtsum.data.videoxum import VideoXumDataset
from vtsum.evaluation.videoxum_frames import PROTOCOLS, RELEASED, STRICT, frame_measures


def test_one_saliency_under_every_protocol(tmp_path: Path) -> None:
    data = write_corpus(tmp_path, videos=5, clip=False)
    annotations = VideoXumDataset(data, "test").annotations
    scores = [a.labels.mean(0) + np.linspace(0, 0.01, a.labels.shape[1]) for a in annotations]  # what annotators like
    videos = [{"video_id": a.video_id, "saliency_logits": s.tolist()} for a, s in zip(annotations, scores, strict=True)]
    about = {"data": {"name": "drawn"}, "split": "test", "checkpoint": {"name": "liked"}, "videos": videos}
    made = compare(data, [about]) | {"commit": "abc"}
    liked, random = made["rows"]
    for protocol in PROTOCOLS:
        f1 = [frame_measures(s, a.labels, protocol).f1 for s, a in zip(scores, annotations, strict=True)]
        assert liked["f1"][protocol] == pytest.approx([np.mean(f1), np.std(f1, ddof=1) / 5**0.5])
    assert random["chosen"][RELEASED][0] > 2.5 * random["chosen"][STRICT][0] > 0.25
    head, _, first, second, _, below = protocols([made]).splitlines()
    assert head.startswith(
        "| scores | F1, videoxum-released | F1, videoxum-top15 | F1, videoxum-strict | frames chosen"
    )
    mean, error = (100 * value for value in liked["f1"][RELEASED])
    assert first.startswith(f"| liked | {mean:.1f} ± {error:.1f} | ")
    assert second.endswith(f" | {100 * random['chosen'][STRICT][0]:.0f}% |")
    assert below.startswith("Split test of drawn, 5 videos; ")
    assert "revisions: videoxum-released 2, videoxum-top15 1, videoxum-strict 2" in below
