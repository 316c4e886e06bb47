"""Writing files so that an interruption never leaves half of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Callable[[str], Path]]:
    """Several files of the folder `path` at once: each is written under a temporary name, and all are renamed, in the
    order in which they were asked for, when the block ends well; else none is."""
    path.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Path] = {}

    def ask(name: str) -> Path:
        return asked.setdefault(name, path / f".{name}.{os.getpid()}.tmp")

    try:
        yield ask
        for name, temporary in asked.items():
            os.replace(temporary, path / name)
    finally:
        for temporary in asked.values():
            temporary.unlink(missing_ok=True)


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `state` to `path` (safetensors), readable for whom the umask says: safetensors' own files are their owner's
    alone, and a model's folder is shared."""
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path, metadata)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """`write_safetensors` through a temporary name in the same folder."""
    with replacing(path.parent) as temporary:
        write_safetensors(state, temporary(path.name), metadata)
