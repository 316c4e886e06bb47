"""Fetching what lies in a folder, in the hub's local cache or on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vtsum.errors import VTSumError


def from_pretrained(kind: Any, source: str, what: str) -> Any:
    """`kind.from_pretrained(source)` from a folder, the local cache or the hub; one clear line if it cannot be had."""
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise VTSumError(
            f"load: {what} must be a transformers checkpoint in a folder, in the local cache or on the hub, "
            f"got {source!r}: {first_line(error)}"
        ) from None


def snapshot(name: str, files: list[str]) -> Path:
    """The folder of a hub repository's `files`, from the local cache, or fetched into it.

    Raises:
        VTSumError: if the hub cannot be reached and the cache does not hold it, or there is no such repository.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (OSError, ValueError, RuntimeError) as error:
        raise VTSumError(
            f"from_pretrained: {name!r} must be a folder, or a repository on the hub or in its local cache, "
            f"got: {first_line(error)}"
        ) from None


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """A digest of names and values; the same for the same weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if value.is_floating_point():
            digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
