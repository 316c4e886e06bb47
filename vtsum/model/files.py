"""Weights as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vtsum.files import written


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `state` to `path` through `written`, which also makes it readable for whom the umask says: safetensors' own
    files are their owner's alone, and a model's folder is shared."""
    with written(path) as part:
        write_safetensors(state, part, metadata)


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `state` to a file of `written` or `replacing`."""
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path, metadata)
