"""DeepSpeed's shards, read without running what is in them.

They are pickles, and DeepSpeed reads them with weights_only=False: whoever wrote one could have any code run. So every
file is first read here, where nothing but tensors, plain data and `allowed` may be built; and while DeepSpeed reads
them itself, PyTorch is told to keep to the same, whatever DeepSpeed asks of it.

    python -m vtsum.training.shards ARGS        DeepSpeed's converter to the universal form, under the same rule
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vtsum.errors import VTSumError
from vtsum.model.files import read_pt
from vtsum.training.checkpoints import MARKER, Checkpoint

ZERO, UNIVERSAL = "zero", "universal"
"""Folders of a checkpoint: what DeepSpeed wrote, and the form of it that any number of ranks can load."""
_SHARD = re.compile(re.escape(ZERO + os.sep) + r"(?:bf16_)?zero_pp_rank_([0-9]{1,6})_mp_rank_00_optim_states\.pt")
_SPECIAL = re.compile(r"[][(){}*+?|^$\\]")
_PATTERNS = ("universal_checkpoint_info", "ds_autoep_layers", "autoep_layers")
"""Keys under which a file of DeepSpeed's for other models than ours has patterns, which its converter would search by,
for years if they are made for that."""
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def allowed() -> list[Any]:
    """What DeepSpeed writes beside tensors and plain data: three classes that hold numbers."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [fragment_address, LossScaler, ZeroStageEnum]


@contextmanager
def weights_only() -> Iterator[None]:
    """Within, torch.load builds nothing but tensors, plain data and `allowed`, in processes started meanwhile too."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(allowed()):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def check(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of which a file is not what DeepSpeed writes.

    Raises:
        VTSumError: naming the file: it is a link, its checkpoint does not list it, it holds code, or a name in it would
            lead the converter to another folder.
    """
    for place in (ZERO, UNIVERSAL):
        root = checkpoint.folder / place
        for path in [root, *sorted(root.rglob("*"))] if os.path.lexists(root) else []:
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise VTSumError(f"train: {path} must be a file of its own, got a link or a device")
            if path.is_dir():
                continue
            # The universal form is made later, from files that are listed.
            if place == ZERO and str(path.relative_to(checkpoint.folder)) not in checkpoint.facts["files"]:
                raise VTSumError(f"train: {path} must be listed in the checkpoint's marker, got a file that is not")
            _check_file(path)
    found = {int(match[1]) for name in checkpoint.facts["files"] if (match := _SHARD.fullmatch(name))}
    if checkpoint.facts.get("stage"):
        ranks = checkpoint.facts["ranks"]
        if len(found) != ranks or max(found) != ranks - 1:
            raise VTSumError(
                f"train: ranks of {checkpoint.folder / MARKER} must be those whose shards it lists, "
                f"{sorted(found)!s:.80}, got {ranks}"
            )


def _check_file(path: Path) -> None:
    with weights_only():
        # The pickle is looked at, the numbers are left for DeepSpeed.
        content = read_pt(path, "train", mmap=True)
    if name := _odd_name(content):
        raise VTSumError(f"train: {path} must name parameters, got {name[:80]!r}")


def _odd_name(content: Any) -> str | None:
    """A string that would lead out of a folder, for the converter names files after parameters, or a key that is a
    pattern or has patterns, for it searches by those."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and (os.sep in value or value in ("", ".", "..") or "\0" in value):
            return value
        if isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                if odd := [k for k in value if isinstance(k, str) and (k in _PATTERNS or _SPECIAL.search(k))]:
                    return odd[0]
                waiting += value.keys()
                waiting += (item for key, item in value.items() if key != "ds_config")  # which may name folders
            else:
                waiting += value
    return None


if __name__ in ("__main__", "__mp_main__"):  # processes that the converter starts anew import this file again
    os.environ[_FORCE] = "1"
    torch.serialization.add_safe_globals(allowed())

if __name__ == "__main__":
    from deepspeed.checkpoint.ds_to_universal import main, parse_arguments

    main(parse_arguments())
