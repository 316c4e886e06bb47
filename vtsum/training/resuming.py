"""Whether a run may go on in a folder and from a checkpoint: with the same engine, settings and videos, it is the same
run."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import IO, Any

from vtsum.errors import VTSumError
from vtsum.files import check_inputs, check_no_links, check_path, unfinished
from vtsum.model.checkpoint import FILES as MODEL_FILES
from vtsum.model.checkpoint import finish
from vtsum.reading import said_of
from vtsum.training.checkpoints import Checkpoint, any_finished, begun, checkpoint_folder
from vtsum.training.checkpoints import check as check_checkpoints
from vtsum.training.records import METRICS, read_metrics
from vtsum.training.settings import TrainSettings, leaves, read_yaml
from vtsum.training.validation import BEST, VALIDATION

CONFIG, LOCK = "config.yaml", ".lock"

# May differ between a checkpoint and the run that resumes it; the data are compared by their content.
_MAY_CHANGE = {
    "data",
    "ann_root",
    "video_embeddings_root",
    "output_dir",
    "tokenizer",
    "pretrained",
    "deepspeed",
    "num_workers",
    "rank_timeout",
    "sequence_parallel_size",
    "max_epoch",  # but not to fewer
    "ckpt_freq",
    "ckpt_steps",
    "keep_checkpoints",
    "print_freq",
    "resume",
    "seeds",
    "val_every",
    "patience",
    "gradient_checkpointing",
    "trackers",
    "callbacks",
}


def check_folder(run: Path, settings: TrainSettings) -> None:
    """Refuse an output folder in which a run would write or sweep over anything but an older part of its own."""
    check_path("train", run)
    if run.exists() and not run.is_dir():
        raise VTSumError(f"train: output_dir must be a folder, got the file {run}")
    if not run.is_dir() or all(_empty(path) or path in unfinished(run, [CONFIG]) for path in run.iterdir()):
        return
    if not settings.resume:
        raise VTSumError(
            f"train: output_dir must be new or empty, got {run} with files in it; --resume goes on with that run"
        )
    own = [run / name for name in (METRICS, "tensorboard", "wandb", "checkpoints", "model", "validation.jsonl", "best")]
    written = [run / folder / name for folder in ("model", BEST) for name in MODEL_FILES]  # at the end, of hours
    check_no_links("train", run / CONFIG, run / LOCK, *own, *written)
    for path in (run / name for name in (LOCK, CONFIG, METRICS, "validation.jsonl")):
        if os.path.lexists(path) and not path.is_file():
            raise VTSumError(f"train: {path} must be a regular file, got something else; move it away")
    for path in (run / name for name in ("tensorboard", "wandb")):
        if os.path.lexists(path) and not path.is_dir():
            raise VTSumError(f"train: {path} must be a folder, got something else; move it away")
    s = settings
    inputs = [s.data, s.ann_root, s.video_embeddings_root, s.pretrained, s.tokenizer, s.deepspeed]
    for path in own:
        check_inputs("train", path, inputs)
    if not begun(run) and not _begun(run):
        raise VTSumError(
            f"train: output_dir must be new, empty or a run to go on with, got {run} without {CONFIG} and {METRICS} "
            "of a training"
        )
    check_checkpoints(run)


def _empty(path: Path) -> bool:
    """Whether it is what a training leaves that found no room for a word."""
    found = path.lstat()
    return path.name in (LOCK, METRICS) and stat.S_ISREG(found.st_mode) and found.st_size == 0


def _begun(run: Path) -> bool:
    """Whether a run began here, if it came to no checkpoint: other programs give their files the same names."""
    try:
        settings, _ = read_yaml(run / CONFIG)
        lines = read_metrics(run / METRICS)
    except VTSumError:
        return False
    return {name for name, *_ in leaves()} <= set(settings) and all("loss_tsum" in line for line in lines)


def check_anew(run: Path) -> None:
    """Refuse to start anew where a run has finished checkpoints, none of which is whole, or a model made after one.

    Raises:
        VTSumError: naming what would be lost.
    """
    model = run / "model"
    if (unusable := any_finished(run)) or os.path.lexists(model):
        got = "got none to go on with" if unusable else "got none"
        raise VTSumError(
            f"train: --resume must find a whole checkpoint in {checkpoint_folder(run)}, {got}, and a new training "
            f"would replace {'what is there' if unusable else model}; move {run if unusable else 'it'} away or give "
            "another --output_dir"
        )


def claim(run: Path, settings: TrainSettings) -> IO[bytes]:
    """A file that keeps every other process from training in `run` as long as it is open.

    Raises:
        VTSumError: another one does, and what it writes would be swept away; or one has done so since the folder was
            looked at.
    """
    handle = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    file = open(handle, "r+b")  # noqa: SIM115  # open as long as the run goes on
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: readers of features would inherit it, and live on
    except OSError as error:  # others than these: some network file systems have no locks
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            raise VTSumError(
                f"train: output_dir must be one training's at a time, got {run}, in which another is at work"
            ) from None
    try:
        check_folder(run, settings)
    except BaseException:
        file.close()
        raise
    return file


def sweep(run: Path) -> None:
    """Remove what a process that was killed has left half-written of a run's own files; for who has claimed it."""
    names = {".": (CONFIG, METRICS, VALIDATION), "model": MODEL_FILES, BEST: MODEL_FILES}
    for folder, files in names.items():
        with contextlib.suppress(OSError):
            finish(run / folder)
        for path in unfinished(run / folder, files):
            with contextlib.suppress(OSError):
                path.unlink()


def check_resumable(found: Checkpoint, settings: TrainSettings, stage: int | None, data: str) -> None:
    """Refuse to go on from `found` with what would make it another run.

    Args:
        stage: of ZeRO; None for plain PyTorch.
        data: the fingerprint of the training videos.
    Raises:
        VTSumError: naming what differs; the number of ranks may.
    """
    engine = "plain" if stage is None else "deepspeed"
    if found.facts["engine"] != engine:
        remedy = "with" if engine == "plain" else "without"
        raise VTSumError(f"train: {found.folder} must be resumed {remedy} --deepspeed, as it was written")
    if stage is not None and found.facts.get("stage") != stage:
        raise VTSumError(
            f"train: zero_optimization.stage must be {found.facts.get('stage')} to resume {found.folder}, got {stage}"
        )
    _compare_settings(found, settings)
    if found.facts["data"] != data:
        raise VTSumError(f"train: data must be the videos that {found.folder} was trained on, got others")


def check_convertible(found: Checkpoint, settings: TrainSettings, stage: int, ranks: int) -> None:
    """Refuse to spread over other ranks what DeepSpeed would not: of stage 3 its universal form keeps one group's
    optimizer alone, and the others' would start anew without a word (seen with DeepSpeed 0.19)."""
    if stage == 3 and settings.parameter_groups:
        raise VTSumError(
            f"train: ranks must be {found.facts['ranks']} to resume {found.folder}, which has parameter_groups at "
            f"stage 3, got {ranks}; runs of stages 1 and 2, and of torchrun without --deepspeed, go on with any"
        )


def _compare_settings(found: Checkpoint, settings: TrainSettings) -> None:
    """Refuse to resume with settings that would make it another run."""
    # A setting that the checkpoint does not know yet had its default's effect, but for those whose default changed what
    # was done before there was a choice.
    try:
        known = _flat(found.facts["settings"])
        unknown = {name: default for name, _, default, _ in leaves()}
        unknown |= {"model.loss_mean": "released", "model.positions_over": "video" if known.get("packed") else "batch"}
        before = {**unknown, **known}
    except RecursionError:
        raise VTSumError(
            f"train: settings in {found.folder} must be those of a run, got some nested without end"
        ) from None
    now = _flat(dataclasses.asdict(settings))
    if isinstance(epochs := before.get("max_epoch"), int) and settings.max_epoch < epochs:
        raise VTSumError(
            f"train: max_epoch must be {epochs} or more to resume {found.folder}, got {settings.max_epoch}; another "
            "--output_dir starts a run of its own"
        )
    for name in sorted(set(before) | set(now)):
        if name.split(".")[0] not in _MAY_CHANGE and before.get(name) != now.get(name):
            raise VTSumError(
                f"train: {name} must be {said_of(before, name)} to resume {found.folder}, got {said_of(now, name)}; "
                "another --output_dir starts a run of its own"
            )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
