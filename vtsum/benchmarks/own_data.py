"""Videos of one's own in the field's h5 layout, from their features and what raters said (`vtsum data ratings`).

The layout counts frames and has features at every 15th of them. Its frames here are fifteenths of the features' steps,
whatever the videos' own are: with two features a second thirty.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtsum.data.feature_files import feature_file
from vtsum.data.features import read_extracted
from vtsum.data.ratings import Rating
from vtsum.data.rules import read_matrix, too_many_raters
from vtsum.data.tvsum import TVSumVideo
from vtsum.enhance.event_segmentation import segment
from vtsum.errors import VTSumError
from vtsum.evaluation.fscore import machine_summary
from vtsum.files import check_new, plain, written
from vtsum.shown import reason

STEP = 15
_LEAST = 0.2
"""What the lowest score is worth where a user's summary is made, of 1: as TVSum's 1 of 5. Shots worth nothing would be
left out even where there is room for them."""


@dataclass(frozen=True)
class Made:
    """What was written: `raters` is the least and the greatest number of a video's; `unrated` have features alone."""

    videos: int
    raters: tuple[int, int]
    seconds: float
    shots: int
    unrated: tuple[str, ...]


def write_h5(
    ratings: Mapping[str, Mapping[str, Rating]], features: Path, output: Path, *, overwrite: bool = True
) -> Made:
    """Write video_1, video_2 ... in the order of `ratings`: features, shots by KTS, what each rater said (user_scores),
    the 15% summary of whole shots by each one's scores (user_summary) and by the mean (gtsummary), and the mean itself,
    from 0 for the lowest score that any rater gave to 1 for the highest (gtscore).

    Args:
        features: a folder that `vtsum extract` made. overwrite: replace a file that is there in the end.
    Raises:
        VTSumError: there is one and it is not to be replaced; a video has no features, fewer than 2 raters or 2
            frames, or a rating beyond its end; all scores are the same; the file cannot be written.
    """
    import h5py

    known = read_extracted(features, "ratings")
    scores = [rating.scores for raters in ratings.values() for rating in raters.values()]
    low, high = (float(pick(map(pick, scores))) for pick in (min, max))
    if low == high:
        raise VTSumError(f"ratings: scores must differ, got {low:g} throughout")
    raters, seconds, shots = [], 0.0, 0
    try:
        # In memory first: HDF5 ends the process where a file has no room.
        memory = io.BytesIO()
        with h5py.File(memory, "w") as file:
            for i, (name, said) in enumerate(ratings.items(), 1):
                if not known.frames.get(name):
                    held = ", ".join(sorted(known.frames)[:3]) or "none"
                    raise VTSumError(f"ratings: {name} must have features in {features}, got those of {held}")
                duration = known.duration[name]
                matrix = read_matrix(feature_file(features, name), "features", None)
                video = _video(f"video_{i}", name, matrix, known.fps, duration, said, low, high)
                _write(file.create_group(video.key), video)
                raters.append(len(said))
                seconds += duration
                shots += len(video.change_points)
        check_new("ratings", output, overwrite)  # somebody may have put it there meanwhile
        with written(output) as part:
            part.write_bytes(memory.getbuffer())
    except OSError as error:
        raise VTSumError(f"ratings: output {plain(output)} must be writable: {reason(error)}") from None
    unrated = tuple(sorted(known.frames.keys() - ratings.keys()))
    return Made(len(ratings), (min(raters), max(raters)), seconds, shots, unrated)


def _video(
    key: str,
    name: str,
    features: np.ndarray,
    fps: float,
    duration: float,
    said: Mapping[str, Rating],
    low: float,
    high: float,
) -> TVSumVideo:
    if len(said) < 2 or len(features) < 2:
        raise VTSumError(
            f"ratings: {name} must have at least 2 raters and 2 frames of features, got {len(said)} and {len(features)}"
        )
    for rater, rating in said.items():
        if rating.starts[-1] >= duration:
            raise VTSumError(
                f"ratings: {name}: {rater:.80}: start must lie within the video's {duration:g} seconds, got "
                f"{rating.starts[-1]:g}"
            )
    picks = np.arange(len(features)) * STEP
    n_frames = max(round(duration * fps * STEP), int(picks[-1]) + 1)
    if told := too_many_raters(len(said), n_frames):
        raise VTSumError(f"ratings: {name}: {told}")
    starts = np.array([found.start for found in segment(features, "kts", fps=fps, duration=duration)]) * STEP
    lengths = np.diff(starts, append=n_frames)
    scores = np.stack([rating.at(np.arange(n_frames) / (fps * STEP)) for rating in said.values()])
    worth = (scores[:, picks] - low) / (high - low)
    video = TVSumVideo(
        dataset="TVSum",
        key=key,
        name=name,
        title="",
        category="",
        fps=fps * STEP,
        n_frames=n_frames,
        picks=picks,
        features=features,
        user_scores=scores,
        user_summary=np.zeros(scores.shape, bool),
        change_points=np.stack([starts, starts + lengths - 1], axis=1),
        n_frame_per_seg=lengths,
        gtscore=worth.mean(axis=0).astype(np.float32),
    )
    kept = [machine_summary(_LEAST + (1 - _LEAST) * own, video) for own in worth]
    return replace(video, user_summary=np.stack(kept))


def _write(group: object, video: TVSumVideo) -> None:
    worth = _LEAST + (1 - _LEAST) * video.gtscore
    fields = {
        "features": video.features,
        "gtscore": video.gtscore,
        "gtsummary": machine_summary(worth, video)[video.picks].astype(np.float32),
        "user_summary": video.user_summary.astype(np.float32),
        "user_scores": video.user_scores,
        "change_points": video.change_points,
        "n_frame_per_seg": video.n_frame_per_seg,
        "n_frames": video.n_frames,
        "n_steps": len(video.picks),
        "picks": video.picks,
        "fps": video.fps,
        "video_name": video.name,
    }
    for name, value in fields.items():
        packed = {"compression": "gzip"} if name in ("user_summary", "user_scores") else {}
        group.create_dataset(name, data=value, **packed)  # type: ignore[attr-defined]
