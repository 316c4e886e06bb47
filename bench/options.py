"""What a benchmark of an op is asked to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Empty choices leave the choice to the op's benchmark."""

    device: str
    case: str = "all"
    dtypes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    passes: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    quick: bool = False
