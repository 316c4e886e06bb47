"""A file of settings in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.reading import named
from vtsum.yaml_file import read_yaml


def read_mapping(path: str | Path, op: str = "train", *, words: bool = False) -> dict[Any, Any]:
    """The mapping in a YAML file.

    Args:
        op: begins the message. words: see `read_yaml`.
    Raises:
        VTSumError: it is not readable or no such mapping, or a name stands twice in one.
    """
    where = f"{op}: --config {path}"
    data = read_yaml(path, f"{op}: --config", where, words=words)
    if not isinstance(data, dict | None):
        raise VTSumError(f"{where} must hold settings by name, got {named(data)}")
    return data or {}
