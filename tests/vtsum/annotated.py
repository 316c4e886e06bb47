"""Annotated videos made up for the tests of the protocols."""

from __future__ import annotations

import numpy as np

from vtsum.data.tvsum import TVSumVideo


def make_video(
    shots: list[int], *, raters: int = 3, seed: int = 0, dataset: str = "TVSum", key: str = "video_1"
) -> TVSumVideo:
    """A video with shots of the given lengths, random ratings and random user summaries, 30 frames a second."""
    rng = np.random.default_rng(seed)
    n_frames = sum(shots)
    ends = np.cumsum(shots)
    picks = np.arange(0, n_frames, 15)
    return TVSumVideo(
        dataset=dataset,
        key=key,
        name="name",
        title="title",
        category="VT",
        fps=30.0,
        n_frames=n_frames,
        picks=picks,
        features=rng.random((len(picks), 6), dtype=np.float32),
        user_scores=rng.integers(1, 6, (raters, n_frames), dtype=np.uint8) if dataset == "TVSum" else None,
        user_summary=rng.random((raters, n_frames)) < 0.2,
        change_points=np.stack([ends - shots, ends - 1], axis=1),
        n_frame_per_seg=np.array(shots),
        gtscore=np.zeros(len(picks), np.float32),
    )
