"""Evaluating a model on VideoXum's layout, by every measure: generation in batches, then the figures.

Batches are fixed by the settings, not by the number of processes, and dealt out whole: padding, and with it the last
digits, are the same however many processes there are. Each video is evaluated once, under every protocol (the published
evaluation counts some twice where their number does not divide by the number of processes). Positions of videos longer
than the model's table are stretched over each video's own length; under "videoxum-released" and "videoxum-top15" over
the longest video of the batch, as the published evaluation does, so that batch_size is part of what is measured there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtsum import plugins
from vtsum.data.feature_files import feature_file
from vtsum.data.rules import read_matrix
from vtsum.data.videoxum import CLIP_FEATURES, VideoXumDataset
from vtsum.devices import device_of, memory_told
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.clip_score import load_clip_text
from vtsum.evaluation.videoxum_figures import Progress, boundary_figures, figures, own_figures
from vtsum.evaluation.videoxum_file import FORMAT, PartFile, is_written, part_files, write_evaluation
from vtsum.evaluation.videoxum_frames import REVISIONS, STRICT
from vtsum.evaluation.videoxum_job import Job, Measuring
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.extras import version_of
from vtsum.files import check_inputs, check_new
from vtsum.model import VTSum
from vtsum.model.clip_text import ClipText
from vtsum.processes import Group


@memory_told("evaluate", "take a smaller batch_size")
def evaluate(
    settings: EvaluationSettings,
    output: str | Path | None = None,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
    finish: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any] | None:
    """Evaluate a model and write the evaluation file; under torchrun, this process's share of it.

    An evaluation that was interrupted resumes from the part files beside `output`.

    Args:
        settings: what to evaluate and how.
        output: the file. None: nothing is written (and nothing resumes).
        device: "cpu", "cuda", "cuda:1"; "auto": this process's GPU where there is one.
        overwrite: replace an older file, and begin anew.
        progress: told ("videos", done, all), of the whole run as far as this process knows, and ("texts", done, all).
        finish: told the content once it is written; where that is broken off, the same evaluation takes it up again.
    Returns:
        dict | None: the file's content (see `vtsum.evaluation.videoxum_file`); None on processes other than the first.
    Raises:
        VTSumError: a setting, a file or the data that cannot be used; another process of the run that ended.
    """
    settings.check()
    start = time.monotonic()
    with Group() as group:
        path = Path(output) if output is not None else None
        if path is not None:
            check_inputs("evaluate", path, settings.inputs)
            # One beside its own part file was written by a process that was killed before it came to its end.
            check_new("evaluate", path, overwrite or bool(part_files(path)))
        check_captions(settings)
        where = device_of(device, "evaluate", group.place.local_rank)
        model, checkpoint = load_model(settings)
        model.position_embeddings.over = "video" if settings.protocol == STRICT else "batch"
        model = model.to(where).fold_()
        dataset, clip, reason = open_clip(settings, VideoXumDataset(settings.data, settings.split), where)
        if dataset.width != model.config.width:
            dataset.check_width()  # a single file may be to blame
            raise VTSumError(
                f"evaluate: features of {settings.data} must have the model's width {model.config.width}, "
                f"got {dataset.width}"
            )
        job = Job(settings, model, dataset, clip, where)
        identity = {
            "data": data_of(settings, job),
            "checkpoint": {
                "path": settings.checkpoint,
                "name": checkpoint_name(settings.checkpoint),
                "sha256": checkpoint,
            },
            "clip": {"path": job.clip_path, "sha256": clip.sha256} if clip else None,
        }
        part = PartFile(path, group.place.rank, group.place.ranks, _binding(settings, identity, job)) if path else None
        content: dict[str, Any] | None = None
        with contextlib.closing(part) if part else contextlib.nullcontext():
            videos = _all_videos(job, group, part, overwrite, progress)
            if group.place.first:
                content = contents(settings, identity, videos, reason, progress)
                content["settings"]["max_length"] = job.max_length
                content["notes"] += _notes(model, clip, videos, content.get("boundaries"))
                content["timings"] = {
                    "seconds": time.monotonic() - start,
                    "processes": group.place.ranks,
                    "device": where,
                }
                if path and (overwrite or not is_written(content, path)):
                    check_new("evaluate", path, overwrite)  # somebody may have put it there meanwhile
                    write_evaluation(content, path)
                if finish:
                    finish(content)
        group.everyone(None)  # the file is there: what led to it may go
        if part:
            part.remove()
        return content


def check_captions(settings: EvaluationSettings) -> None:
    """Raise VTSumError where the tokenizer of captions cannot run."""
    if settings.caption_tokenizer == "ptb" and (missing := java.why_not()):
        raise VTSumError(
            f"evaluate: the PTB tokenizer {missing}; or --caption_tokenizer plain, whose figures are not "
            "comparable with published ones"
        )


def data_of(settings: EvaluationSettings, job: Measuring) -> dict[str, Any]:
    """ "data" of the evaluation file."""
    return {
        "path": settings.data,
        "name": Path(os.path.abspath(settings.data)).name,
        "annotations_sha256": _sha256(job.dataset.ann_file),
        "videos": job.count,
    }


def contents(
    settings: EvaluationSettings,
    identity: dict[str, Any],
    videos: list[dict[str, Any]],
    no_clip: str | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """The evaluation file but for its timings, from the records of all videos."""
    boundaries = boundary_figures(videos, settings)
    return {
        "format": FORMAT,
        "protocol": settings.protocol,
        "protocol_revision": REVISIONS[settings.protocol],
        "split": settings.split,
        **identity,
        "settings": asdict(settings),
        **figures(videos, settings, no_clip, progress),
        **({"boundaries": boundaries} if boundaries else {}),
        **({"own_metrics": own_figures(videos, settings)} if settings.metrics else {}),
        "notes": [],
        "software": {n: version_of(n) for n in ("vtsum", "torch", "transformers", "pycocoevalcap")},
    }


def load_model(settings: EvaluationSettings) -> tuple[VTSum, str]:
    """The model in evaluation mode and the SHA-256 of its weights: from a model folder, a run's folder, or a .pth."""
    source, named = Path(settings.checkpoint), settings.architecture
    kind: type[VTSum] = VTSum if named is None else plugins.find_class("architecture", named, VTSum)
    if source.is_file():
        if settings.tokenizer is None:
            raise VTSumError(f"evaluate: --tokenizer must name the vocabulary that belongs to {source}")
        model = kind.from_videoxum(
            source, settings.tokenizer, kernel_size=settings.kernel_size, max_text_length=settings.max_length or 128
        )
        return model.eval(), _sha256(source)
    if not source.is_dir():
        raise VTSumError(f"evaluate: checkpoint must be a model folder, a run's folder or a .pth file, got {source}")
    if settings.tokenizer is not None or settings.kernel_size != "auto":
        raise VTSumError(f"evaluate: --tokenizer and --kernel_size belong to .pth files, {source} has its own")
    if not (source / "config.json").is_file() and (source / "model").is_dir():
        source /= "model"
    loaded = kind.load_checkpoint(source)
    return loaded.model.eval(), loaded.weights_sha256


def checkpoint_name(checkpoint: str | Path) -> str:
    """What a reader would call it: the folder's name, the run's for RUN/model and RUN/best ("RUN seed 3" for
    RUN/seed-3), the file's for a .pth."""
    path = Path(os.path.abspath(checkpoint))
    if path.is_file():
        return path.stem
    path = path.parent if path.name in ("model", "best") else path
    seed = re.fullmatch(r"seed-([0-9]+)", path.name)
    return f"{path.parent.name} seed {seed[1]}" if seed else path.name


def _all_videos(
    job: Job, group: Group, part: PartFile | None, overwrite: bool, progress: Progress | None
) -> list[dict[str, Any]]:
    """Every video's record in the data set's order: those done before, and those of all processes."""
    if part and overwrite:
        part.remove(anew=True)
        group.everyone(None)
    done: dict[int, list[dict[str, Any]]] = {}
    for found in group.everyone(part.read() if part else {}):
        done.update(found)
    for number in done:
        if part and not job.could_be(number, done[number]):
            raise VTSumError(
                f"evaluate: {part.path} must hold batches of this evaluation, got another one as number {number}; "
                "--overwrite begins anew"
            )
    left = [number for number in range(len(job.batches)) if number not in done]
    if part and left:
        check_new("evaluate", part.output, overwrite)  # an older one lies beside what is not done yet
    finished = sum(len(batch) for batch in done.values())
    if progress:
        progress("videos", finished, job.count)
    own: dict[int, list[dict[str, Any]]] = {}
    for number in left[group.place.rank :: group.place.ranks]:
        own[number] = job.run(number)
        if part:
            part.append(number, own[number])
        if progress:
            known = sum(len(batch) for batch in own.values()) * group.place.ranks
            progress("videos", min(finished + known, job.count), job.count)
    for found in group.everyone(own):
        done.update(found)
    if progress:
        progress("videos", job.count, job.count)
    return [video for number in sorted(done) for video in done[number]]


def open_clip(
    settings: EvaluationSettings, videos: VideoXumDataset, device: str
) -> tuple[VideoXumDataset, ClipText | None, str | None]:
    """The videos, with what VT-CLIPScore needs of them where that can be measured, its text encoder, and why not."""
    source, features = settings.clip_source, Path(settings.data) / CLIP_FEATURES
    reason = None
    if source is None:
        reason = f"needs a CLIP text encoder: --clip, or {Path(settings.data) / 'clip'}"
    elif settings.clip is None and not features.is_dir():
        reason = f"needs CLIP features of the frames in {features}"
    if reason is not None or source is None:
        return videos, None, reason
    with_features = videos.video_embeddings_root is not None
    dataset = VideoXumDataset(settings.data, settings.split, with_clip=True, features=with_features)
    clip = load_clip_text(source, settings.clip_tokenizer, device)
    vision = read_matrix(feature_file(features, dataset.video_ids[0]), "vision", None)
    if vision.shape[1] != clip.dim:
        raise VTSumError(
            f"evaluate: clip must be the model that made {features} (dimension {vision.shape[1]}), "
            f"got {source} of dimension {clip.dim}"
        )
    return dataset, clip, None


def _notes(
    model: VTSum, clip: ClipText | None, videos: list[dict[str, Any]], boundaries: dict[str, Any] | None
) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    if model.loading is not None and model.loading.missing:
        notes.append("parts of the model are untrained: " + "; ".join(model.loading.describe().splitlines()))
    if boundaries:
        notes.append(
            f"event boundaries: average precision {boundaries['average_precision']['value']:.3f} "
            f"(chance {boundaries['chance']:.3f}) at frames where two annotators of ten begin or end a selection"
        )
    cut = sum(bool(video.get("text_cut")) for video in videos)
    if clip is not None and cut:
        notes.append(f"{cut} texts are longer than the {clip.limit} tokens that CLIP reads and were cut for it")
    return notes


def _binding(settings: EvaluationSettings, identity: dict[str, Any], job: Job) -> dict[str, Any]:
    """What a batch's records depend on: a part file is of use to an evaluation with the same alone."""
    own = asdict(settings) | {"metrics": list(settings.metrics)}  # as JSON gives it back
    for name in ("checkpoint", "data", "clip", "caption_tokenizer", "resamples"):
        del own[name]
    clip = identity["clip"]
    features = hashlib.sha256("".join(map(_sha256, job.dataset.files(job.count))).encode())
    return own | {
        "protocol_revision": REVISIONS[settings.protocol],
        "checkpoint": identity["checkpoint"]["sha256"],
        "data": identity["data"]["annotations_sha256"],
        "features": features.hexdigest(),
        "clip": clip["sha256"] if clip else None,
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
