"""Writing weights so that an interruption never leaves half a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `state` to `path` (safetensors) through a temporary name in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in state.items()}, metadata))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
