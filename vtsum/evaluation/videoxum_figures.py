"""The figures of an evaluation: caption measures of all its texts, the baselines' rows, and intervals.

Two rows stand beside the model's. "random": uniform random scores and, as the text, another video's reference of the
same split, averaged over several draws. "uniform": evenly spaced frames, as many as the model chose, which have no
order and so no rank correlation (0); VT-CLIPScore, of 15% of the frames, then says what the model's own text owes to
the frames it chose; there is no such text, so the caption measures stay empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vtsum.evaluation import java
from vtsum.evaluation.captions import bleu_counts, cider, plain_tokenize, rouge_l
from vtsum.evaluation.videoxum_scores import MEASURES, interval, resamples, values_of, with_interval
from vtsum.evaluation.videoxum_settings import EvaluationSettings

Progress = Callable[[str, int, int], None]
"""progress(stage, done, all)"""
CAPTIONS = ("bleu4", "meteor", "rouge_l", "cider")
_NO_TEXT = "evenly spaced frames come with no text"
_ONE_VIDEO = "needs two videos or more"


def figures(
    videos: Sequence[Mapping[str, Any]],
    settings: EvaluationSettings,
    no_clip: str | None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any] | list[dict[str, Any]]]:
    """ "measures", "baselines" and "videos" of the evaluation file.

    Args:
        videos: records as `vtsum.evaluation.videoxum_run` makes them, all of the data set.
        no_clip: why VT-CLIPScore was not computed, or None.
        progress: told ("texts", done, all).
    """
    words = java.ptb_tokenize if settings.caption_tokenizer == "ptb" else _plain
    made, references = words([v["text"] for v in videos]), words([v["reference"] for v in videos])
    others = list(zip(*(v["random_videos"] for v in videos), strict=True))
    reasons = {"vt_clipscore": no_clip, "meteor": java.why_not()}
    captions, *chances = caption_values(
        [made, *([references[index] for index in other] for other in others)],
        references,
        not reasons["meteor"],
        progress,
    )
    own = [
        {k: v for k, v in video.items() if k not in ("random", "uniform", "random_videos", "index")} | of_text
        for video, of_text in zip(videos, captions, strict=True)
    ]
    weights = resamples(len(videos), settings.resamples, settings.seed)

    def row(columns: Mapping[str, list[np.ndarray]], missing: Mapping[str, str | None]) -> dict[str, Any]:
        cells: dict[str, dict[str, Any]] = {}
        for name in MEASURES:
            if columns.get(name):
                cells[name] = with_interval(name, columns[name], weights)
            else:
                cells[name] = {"value": None, "low": None, "high": None, "reason": missing.get(name) or "not measured"}
        return cells

    model = {name: [values] for name in MEASURES if (values := values_of(name, own)) is not None}
    random: dict[str, list[np.ndarray]] = {}
    for name in videos[0]["random"]:
        random[name] = list(np.array([video["random"][name] for video in videos]).T)
    for chance in chances:
        for name in CAPTIONS:
            if (values := values_of(name, chance)) is not None:
                random.setdefault(name, []).append(values)
    uniform = {n: [values] for n in MEASURES if (values := values_of(n, [v["uniform"] for v in videos])) is not None}
    alone = dict.fromkeys((*CAPTIONS, "vt_clipscore"), _ONE_VIDEO) if len(videos) == 1 else {}
    return {
        "measures": row(model, reasons),
        "baselines": {
            "random": row(random, alone | {k: v for k, v in reasons.items() if v}),
            "uniform": row(uniform, dict.fromkeys(CAPTIONS, _NO_TEXT) | {"vt_clipscore": no_clip}),
        },
        "videos": own,
    }


def own_figures(videos: Sequence[Mapping[str, Any]], settings: EvaluationSettings) -> dict[str, dict[str, float]]:
    """ "own_metrics" of the evaluation file: each measure of the user's own, the mean over videos with its interval."""
    weights = resamples(len(videos), settings.resamples, settings.seed)
    found = {}
    for name in videos[0].get("own_metrics", {}):
        values = np.array([video["own_metrics"][name] for video in videos])
        low, high = interval(weights @ values / len(videos))
        found[name] = {"value": float(values.mean()), "low": low, "high": high}
    return found


def boundary_figures(videos: Sequence[Mapping[str, Any]], settings: EvaluationSettings) -> dict[str, Any] | None:
    """ "boundaries" of the evaluation file: the boundary head's average precision, and what chance gives.

    Returns:
        dict | None: {"average_precision": {"value", "low", "high"}, "chance", "videos"}: the mean over the videos that
            have annotated boundaries, their mean share of frames with one, their number. None without a head, or where
            no video has any.
    """
    measured = [video for video in videos if video.get("boundary_average_precision") is not None]
    if not measured:
        return None
    values = np.array([video["boundary_average_precision"] for video in measured])
    low, high = interval(resamples(len(values), settings.resamples, settings.seed) @ values / len(values))
    return {
        "average_precision": {"value": float(values.mean()), "low": low, "high": high},
        "chance": float(np.mean([video["boundary_chance"] for video in measured])),
        "videos": len(measured),
    }


def caption_values(
    columns: Sequence[Sequence[str]],
    references: Sequence[str],
    with_meteor: bool,
    progress: Progress | None = None,
) -> list[list[dict[str, Any]]]:
    """For each column of N tokenized texts, N records: rouge_l, cider, bleu_counts and, if asked for, meteor_counts.

    Args:
        columns: texts to measure against the same references. references: N tokenized texts.
    """
    made: list[list[dict[str, Any]]] = []
    for texts in columns:
        scores = cider(texts, [[reference] for reference in references])
        made.append(
            [
                {
                    "rouge_l": rouge_l(text, [reference]),
                    "cider": float(score),
                    "bleu_counts": bleu_counts(text, [reference]).tolist(),
                }
                for text, reference, score in zip(texts, references, scores, strict=True)
            ]
        )
    if with_meteor:
        done, every = 0, len(columns) * len(references)
        if progress:
            progress("texts", done, every)
        with java.Meteor() as program:
            for texts, records in zip(columns, made, strict=True):
                for text, reference, record in zip(texts, references, records, strict=True):
                    counts = program.counts(text, [reference])
                    record["meteor"] = float(java.meteor(counts))
                    record["meteor_counts"] = counts.tolist()
                    done += 1
                    if progress:
                        progress("texts", done, every)
    return made


def _plain(texts: Sequence[str]) -> list[str]:
    return [plain_tokenize(text) for text in texts]
