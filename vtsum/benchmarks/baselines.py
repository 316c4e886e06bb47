"""Rows that learn nothing: what chance, even spacing, one more human and the raters' own mean score."""

from __future__ import annotations

import zlib

import numpy as np

from vtsum.data.tvsum import TVSumVideo
from vtsum.evaluation.baselines import VideoScore, score_human, score_video
from vtsum.evaluation.fscore import SUMMARY_SHARE


def random(video: TVSumVideo, seed: int) -> VideoScore:
    """A score for each pick, uniform from 0 to 1."""
    rng = np.random.default_rng([seed, zlib.crc32(video.key.encode())])
    return score_video(rng.random(len(video.picks)), video)


def uniform(video: TVSumVideo, seed: int) -> VideoScore:
    """1 for every seventh pick or so, evenly spaced, as many as a summary keeps; 0 for the others."""
    steps = len(video.picks)
    kept = max(1, int(SUMMARY_SHARE * steps))
    scores = np.zeros(steps)
    scores[((np.arange(kept) + 0.5) * steps / kept).astype(np.int64)] = 1
    return score_video(scores, video)


def human(video: TVSumVideo, seed: int) -> VideoScore:
    """Each rater against each other, the mean."""
    return score_human(video)


def ceiling(video: TVSumVideo, seed: int) -> VideoScore:
    """The raters' mean against each of them: no scores of any origin rank much better."""
    return score_video(video.gtscore if video.ratings is None else video.ratings.mean(axis=0), video)
