"""Whether a run may go on from a checkpoint: with the same engine, settings and videos, it is the same run."""

from __future__ import annotations

import dataclasses
from typing import Any

from vtsum.errors import VTSumError
from vtsum.training.checkpoints import Checkpoint
from vtsum.training.settings import TrainSettings, leaves

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
    "ckpt_freq",
    "ckpt_steps",
    "keep_checkpoints",
    "print_freq",
    "resume",
    "gradient_checkpointing",
}


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


def _compare_settings(found: Checkpoint, settings: TrainSettings) -> None:
    """Refuse to resume with settings that would make it another run."""
    # A setting that the checkpoint does not know yet had its default's effect.
    try:
        before = {**{name: default for name, _, default, _ in leaves()}, **_flat(found.facts["settings"])}
    except RecursionError:
        raise VTSumError(
            f"train: settings in {found.folder} must be those of a run, got some nested without end"
        ) from None
    now = _flat(dataclasses.asdict(settings))
    for name in sorted(set(before) | set(now)):
        if name.split(".")[0] not in _MAY_CHANGE and before.get(name) != now.get(name):
            raise VTSumError(
                f"train: {name} must be {before.get(name)!r} to resume {found.folder}, got {now.get(name)!r}; "
                "another --output_dir starts a run of its own"
            )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
