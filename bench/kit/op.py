"""What a benchmark of an op is asked to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Empty choices leave the choice to the op's benchmark."""

    device: str
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    passes: tuple[str, ...]
    rivals: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]]
    """For each of the op's NUMBERS."""
    words: Mapping[str, tuple[str, ...]]
    """For each of the op's WORDS."""
    quick: bool = False
