"""How long the strips of the CUDA kernels are, where that was measured: how many each resident warp serves in turn.

More of them are shorter: a slow one delays less, and more halos are read. Without a choice the kernels make their own
guess. Choices come from the file of `vtsum_kernels.tuned`, and are handed to the compiled library before the first call
on a GPU. They are one process's, and change no result: a row is computed alike in a strip of any length.
"""

from __future__ import annotations

import re
import warnings

import torch

from .. import library
from ..tuned import tuned

NAME = "sliding_window_attention_waves"
#: Windows of more keys are served by kernels without strips.
MOST_KEYS = 33
PASSES = {"fwd": False, "bwd": True}
KEY = re.compile(
    r"(?P<gpu>.+) (?P<pass>fwd|bwd) torch\.(?P<dtype>\w+) D=(?P<dim>\d+) keys=(?P<keys>\d+) rows~2\^(?P<log>\d+)"
)

library.LIB.define(f"{NAME}(bool backward, ScalarType dtype, int dim, int keys, int rows_log2, int waves) -> ()")

_applied: set[int] = set()


def key_of(gpu: str, direction: str, dtype: torch.dtype, dim: int, keys: int, rows: int) -> str:
    """What a choice is remembered for.

    Args:
        direction: "fwd" or "bwd". keys: of a window. rows: B H T; they count by powers of two.
    """
    return f"{gpu} {direction} {dtype} D={dim} keys={keys} rows~2^{max(rows - 1, 1).bit_length()}"


def choose(key: str, waves: int) -> None:
    """Hands a choice to the compiled kernels, whatever GPU the key names; 0 takes it back.

    Raises:
        ValueError: `key` is none of `key_of`.
        RuntimeError: the CUDA kernels are not loaded, or have no room for another choice.
    """
    found = KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{NAME}: key must be as key_of makes it, got {key!r}")
    if library.refusal("_cuda") is not None:
        raise RuntimeError(f"{NAME}: the compiled CUDA kernels are not loaded: {library.refusal('_cuda')}")
    torch.ops.vtsum_kernels.sliding_window_attention_waves(
        PASSES[found["pass"]],
        getattr(torch, found["dtype"]),
        int(found["dim"]),
        int(found["keys"]),
        int(found["log"]),
        waves,
    )


def apply(device: torch.device) -> None:
    """Hands over all choices for the GPU of that device, once."""
    index = torch.cuda.current_device() if device.index is None else device.index
    if index in _applied:
        return
    _applied.add(index)
    gpu = torch.cuda.get_device_name(index)
    for key, waves in tuned().cuda.items():
        if key.startswith(f"{gpu} "):
            try:
                choose(key, waves)
            except (ValueError, RuntimeError, AttributeError) as error:
                warnings.warn(f"vtsum_kernels: ignoring a tuned choice: {error}", stacklevel=2)
