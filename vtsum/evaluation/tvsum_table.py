"""The baselines on TVSum as a markdown table: `python -m vtsum.evaluation.tvsum_table --shared DIR`.

DIR holds tvsum/tvsum.h5, tvsum/splits.json, tvsum/frames/ and tvsum/teacher/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vtsum.data.frames import FRAME_INDEX_RATE, read_frames, read_teacher
from vtsum.data.tvsum import TVSumVideo, load_folds, load_tvsum
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import (
    Evaluation,
    TimedFeatures,
    evaluate_features,
    evaluate_folds,
    evaluate_human,
    evaluate_mean_rating,
    evaluate_random,
    every_fifth,
    paired_difference,
)
from vtsum.evaluation.features import color_histogram
from vtsum.shown import last_words, say


def stored_features(videos: list[TVSumVideo]) -> dict[str, TimedFeatures]:
    """The features of the h5 file, at the picks."""
    return {video.key: (video.picks / video.fps, video.features) for video in videos if video.features is not None}


def teacher_features(videos: list[TVSumVideo], folder: Path) -> dict[str, TimedFeatures]:
    """The teacher's features of the stored frames, 1.5 a second."""
    loaded = {video.key: read_teacher(folder / f"{video.name}.npz") for video in videos}
    return {key: (index / FRAME_INDEX_RATE, features) for key, (index, features) in loaded.items()}


def histogram_features(videos: list[TVSumVideo], folder: Path) -> dict[str, TimedFeatures]:
    """Colour, gradient and layout histograms of the stored frames, 1.5 a second."""
    features = {}
    for video in videos:
        index, images = read_frames(folder / f"{video.name}.zip")
        features[video.key] = (index / FRAME_INDEX_RATE, color_histogram(images))
    return features


def table(rows: list[tuple[str, str, Evaluation]], reference: tuple[str, str]) -> str:
    """Markdown: one row a method and split, with standard errors over videos.

    The last column is rho minus that of the reference row (method and split), paired by video, for rows on the same
    videos with a training split.
    """
    base = next(evaluation for method, split, evaluation in rows if (method, split) == reference)
    lines = ["| method | split | videos | F | tau | rho | rho, paired difference |", "|---|---|---|---|---|---|---|"]
    for method, split, evaluation in rows:
        same = evaluation.per_video.keys() == base.per_video.keys() and evaluation is not base
        cells = [method, split, str(len(evaluation.per_video)), f"{100 * evaluation.f:.1f}"]
        cells += [f"{evaluation.mean(m):.3f} ± {evaluation.standard_error(m):.3f}" for m in ("tau", "rho")]
        if same:
            difference = paired_difference(evaluation, base)
            cells.append(f"{difference.mean:+.3f} ± {difference.standard_error:.3f}")
        else:
            cells.append("reference" if evaluation is base else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vtsum.evaluation.tvsum_table", description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR", help="folder that holds tvsum/")
    root = parser.parse_args(argv).shared / "tvsum"
    try:
        print(_results(root))
    except VTSumError as error:
        say(str(error))
        return 2
    except Exception as error:
        return last_words(error)
    return 0


def _results(root: Path) -> str:
    videos = load_tvsum(root / "tvsum.h5")
    disjoint, random = (load_folds(root / "splits.json", name, videos) for name in ("disjoint_folds", "random_splits"))
    stored = stored_features(videos)
    teacher = teacher_features(videos, root / "teacher")
    histograms = histogram_features(videos, root / "frames")
    fixed = every_fifth(videos)
    rows = [
        ("random, 5 draws", "none", evaluate_random(videos)),
        ("human, one against each other", "none", evaluate_human(videos)),
        ("ceiling: mean rating", "none", evaluate_mean_rating(videos)),
        ("ridge, h5 features", "disjoint folds", evaluate_folds(stored, videos, disjoint)),
        ("ridge, h5 features", "random splits", evaluate_folds(stored, videos, random)),
    ]
    for name, features in (("teacher features, 1.5 fps", teacher), ("colour histograms, 1.5 fps", histograms)):
        rows.append((f"ridge, {name}", "disjoint folds", evaluate_folds(features, videos, disjoint)))
        rows.append((f"ridge, {name}", "every fifth", evaluate_features(features, videos, fixed.train, fixed.test)))
    heading = "TVSum, Otani et al. 2019 (tau-b, rho at every 15th frame) and keyshot F; ± standard error over videos.\n"
    return f"{heading}\n{table(rows, reference=('ridge, h5 features', 'disjoint folds'))}"


if __name__ == "__main__":
    sys.exit(main())
