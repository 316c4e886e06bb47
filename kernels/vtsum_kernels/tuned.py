"""Sizes that were measured to be best, for a GPU and a kind of call: a file that the kernels read.

`VTSUM_KERNELS_TUNED` names the file; without it, it is `tuned.json` in the package, where there is one; empty: none is
read. It holds, as JSON,

    {"format": 1, "made_with": "triton 3.6.0",
     "triton": {"NVIDIA H200 fwd torch.bfloat16 D=64 narrow 2 2 many": ["tile", 64, 64, 4, 1]},
     "cuda": {"NVIDIA H200 fwd torch.bfloat16 D=64 keys=5 rows~2^20": 2}}

A Triton choice is a form of the kernels, rows, keys, warps and pipeline stages. One of a CUDA kernel is how many strips
each resident warp serves in turn, which makes the strips so much shorter. `python -m bench.gpu_check --tune` writes it.
A file that cannot be read is ignored with a warning: what is in it makes calls faster, and changes their results by no
more than rounding.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

ENVIRONMENT_VARIABLE = "VTSUM_KERNELS_TUNED"
FORMAT = 1
#: Beyond this, strips would be too short to be worth their halo.
MOST_WAVES = 64


class Tuned(NamedTuple):
    """Choices by their keys."""

    triton: dict[str, tuple[str, int, int, int, int]]
    cuda: dict[str, int]


def tuned_file() -> Path | None:
    """Where choices are read from; None where nobody wants any."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named is None:
        return Path(__file__).resolve().parent / "tuned.json"
    return Path(named) if named else None


def tuned() -> Tuned:
    """The choices of `tuned_file`, read once."""
    path = tuned_file()
    return Tuned({}, {}) if path is None else _read_once(path)


def read(path: Path) -> Tuned:
    """What a file holds; nothing where it is missing, and, with a warning, where it is broken."""
    try:
        held = json.loads(path.read_text())
        if held["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {held['format']!r}")
        return Tuned(
            {str(key): _sizes(entry) for key, entry in held["triton"].items()},
            {str(key): _waves(entry) for key, entry in held["cuda"].items()},
        )
    except FileNotFoundError:
        return Tuned({}, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"vtsum_kernels: ignoring the tuned choices of {path}: {error!r}", stacklevel=2)
        return Tuned({}, {})


def write(path: Path, choices: Tuned, made_with: str) -> None:
    """Replaces the file: under a temporary name first, so that no reader ever sees half of one.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(
        {"format": FORMAT, "made_with": made_with, "triton": choices.triton, "cuda": choices.cuda},
        indent=1,
        sort_keys=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(text + "\n")
    os.chmod(file.name, 0o644)  # a temporary file is its owner's alone
    try:
        os.replace(file.name, path)
    except OSError:
        Path(file.name).unlink(missing_ok=True)
        raise


_read_once = lru_cache(maxsize=8)(read)


def _sizes(entry: Any) -> tuple[str, int, int, int, int]:
    form, rows, keys, warps, stages = entry
    if not isinstance(form, str) or not all(type(size) is int for size in (rows, keys, warps, stages)):
        raise ValueError(f"{entry!r} is no choice")
    return form, rows, keys, warps, stages


def _waves(entry: Any) -> int:
    if type(entry) is not int or not 1 <= entry <= MOST_WAVES:
        raise ValueError(f"{entry!r} is no number of strips, 1 to {MOST_WAVES}")
    return entry
