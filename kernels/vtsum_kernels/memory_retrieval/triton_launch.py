"""How the kernels of memory retrieval are launched: tensors by name, sizes measured at first use."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from triton.errors import TritonError
from triton.runtime.errors import OutOfResources

from ..sliding_window_attention.triton import TUNER
from ..sliding_window_attention.triton_tuning import Config, milliseconds, wanted

R = TypeVar("R")
#: float32 stays float32: the tensor cores' shorter formats would blur the weights.
PRECISION = "ieee"
#: Programs that fill the widest GPU twice. A constant, so that sums are cut alike on each.
ENOUGH_PROGRAMS = 264


def start(kernel: Any, grid: tuple[int], arguments: dict[str, Any], config: Config) -> None:
    kernel[grid](**arguments, num_warps=config.warps, num_stages=config.stages)


def on_its_device(op: Callable[..., R]) -> Callable[..., R]:
    """Triton launches on the current device; this makes the tensors' the current one."""

    @functools.wraps(op)
    def call(*inputs: Any) -> R:
        device = next(tensor for tensor in inputs if tensor is not None).device
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return op(*inputs)

    return call


def launch(kernel: Any, programs: int, config: Config, values: dict[str, Any], **others: Any) -> None:
    """Runs a kernel with those of the values that it takes."""
    values = {**values, **others}
    start(kernel, (programs,), {name: values[name] for name in kernel.arg_names}, config)


def dense(x: Tensor) -> Tensor:
    """x, its last dimension contiguous."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    """Strides of x's first dimensions as a kernel's arguments; 0 where the dimension is one element, or x is None."""
    if x is None:
        return {f"{name}_{axis}": 0 for axis in axes}
    sizes = zip(axes, x.shape, x.stride(), strict=False)
    return {f"{name}_{axis}": stride if size > 1 else 0 for axis, size, stride in sizes}


def mask_arguments(mask: Tensor | None) -> dict[str, Any]:
    """A bool mask [G, n] as bytes."""
    values: dict[str, Any] = {
        "mask_ptr": None if mask is None else mask.view(torch.uint8),
        "HAS_MASK": mask is not None,
    }
    return values | strides("mask", mask, "gn")


def cut(rows: int, block: int, programs: int) -> tuple[int, int]:
    """How many chunks the rows fall into so that `programs` times as many fill a GPU, and the rows of a chunk.

    Chunks are of whole blocks, and of four at least.
    """
    blocks = -(-rows // block)
    chunks = min(-(-ENOUGH_PROGRAMS // programs), max(blocks // 4, 1))
    size = -(-blocks // chunks)
    return -(-blocks // size), size * block


def _time(run: Callable[[], Any]) -> float:
    try:
        return milliseconds(run)
    except (TritonError, RuntimeError):  # no room, or beyond this compiler: the first candidate's error is raised later
        return math.inf


def run(words: Sequence[Any], device: torch.device, candidates: list[Config], call: Callable[[Config], R]) -> R:
    """Calls with the best of the candidates, or the first, as long as it has room on this GPU.

    Args:
        words (Sequence[Any]): what the choice depends on; those of different kernels differ.
    """
    if device.type == "cuda":
        key = " ".join(map(str, (torch.cuda.get_device_name(device), "memory", *words)))
        may = wanted() and not torch.cuda.is_current_stream_capturing()
        best = TUNER.choose(key, candidates, lambda config: _time(lambda: call(config)), may)
        candidates = [best, *candidates]
    for config in candidates[:-1]:
        try:
            return call(config)
        except OutOfResources:
            continue
    return call(candidates[-1])


def about(rows: int) -> str:
    """The kind of a number of rows that a choice is remembered for."""
    return f"rows~2^{max(rows - 1, 1).bit_length()}"
