"""How Triton kernels are launched: tensors by name, on their device, in sizes measured at first use."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor
from triton.errors import TritonError
from triton.runtime.errors import OutOfResources

from .tuning import Config, Tuner, elsewhere, milliseconds, wanted

R = TypeVar("R")
TUNER = Tuner(f"triton {triton.__version__}")


def on_its_device(op: Callable[..., R]) -> Callable[..., R]:
    """Triton launches on the current device; this makes the first tensor's the current one."""

    @functools.wraps(op)
    def call(*inputs: Any) -> R:
        device = next(tensor for tensor in inputs if tensor is not None).device
        if device.type != "cuda" or device.index == torch.cuda.current_device():
            return op(*inputs)
        with torch.cuda.device(device):
            return op(*inputs)

    return call


def options(config: Config) -> dict[str, int]:
    """What Triton's compiler is told of a config."""
    found = {"num_warps": config.warps, "num_stages": config.stages}
    if config.registers and torch.version.hip is None:
        found["maxnreg"] = config.registers
    return found


def start(kernel: Any, grid: tuple[int], arguments: dict[str, Any], config: Config) -> None:
    """Every launch there is: who counts or records launches takes this one's place."""
    kernel[grid](**arguments, **options(config))


def launch(kernel: Any, programs: int, config: Config, values: dict[str, Any], **others: Any) -> None:
    """Runs a kernel with those of the values that it takes."""
    names = tuple(kernel.arg_names)
    start(kernel, (programs,), dict(zip(names, _taking(names)({**values, **others}), strict=True)), config)


@functools.cache
def _taking(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """What takes the values of these arguments out of all, in C."""
    take = operator.itemgetter(*names)
    return take if len(names) > 1 else lambda values: (take(values),)


def strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    """Strides of x's first dimensions as a kernel's arguments; 0 where the dimension is one element, or x is None."""
    if x is None:
        return {f"{name}_{axis}": 0 for axis in axes}
    return strides_of(name, x.shape, x.stride(), axes)


@functools.lru_cache(maxsize=4096)
def strides_of(name: str, shape: Sequence[int], strides: Sequence[int], axes: str) -> dict[str, int]:
    """`strides` of a tensor of this shape and these strides."""
    sizes = zip(axes, shape, strides, strict=False)
    return {f"{name}_{axis}": stride if size > 1 else 0 for axis, size, stride in sizes}


def mask_arguments(mask: Tensor | None, axes: str) -> dict[str, Any]:
    """A bool mask as bytes."""
    pointer = None if mask is None else mask.view(torch.uint8)
    return {"mask_ptr": pointer, "HAS_MASK": mask is not None, **strides("mask", mask, axes)}


@functools.cache
def cached_bytes(device: torch.device) -> int:
    """Bytes that the L2 cache of a GPU holds; of the CPU's, where the interpreter runs, an H100's."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 50 << 20


def aligned(name: str, count: int, *others: int) -> dict[str, int]:
    """A count, and as ALIGN_NAME the largest power of two up to 16 that divides it and others: what loads rely on."""
    return {name: count, f"ALIGN_{name.upper()}": math.gcd(16, count, *others)}


def aligned_strides(name: str, x: Tensor, axes: str) -> dict[str, int]:
    """`strides`, and as ALIGN_NAME what divides all of them."""
    found = strides(name, x, axes)
    return {**found, f"ALIGN_{name.upper()}": math.gcd(16, *found.values())}


def cdiv(count: int, step: int) -> int:
    """Steps that hold `count`. Triton's own takes a microsecond: it may meet constants of a kernel."""
    return -(-count // step)


def power_of_two(count: int, least: int = 16) -> int:
    """The sizes of a tile that holds `count`."""
    return max(1 << (count - 1).bit_length() if count > 1 else 1, least)


def run(
    words: Sequence[Any],
    device: torch.device,
    candidates: Sequence[Config],
    call: Callable[[Config], R],
    measured: Sequence[Config] = (),
) -> R:
    """Calls with the best of the candidates, or the first, as long as it has room on this GPU.

    Args:
        words: what the choice depends on, the kernel among it.
        measured: those of the candidates that are worth measuring; all where none is named.
    """
    if device.type == "cuda":
        key = _key(device, *words)
        worth = measured or candidates
        if wanted():
            may = not torch.cuda.is_current_stream_capturing()
            best = TUNER.choose(key, worth, lambda config: _time(lambda: call(config)), may)
        else:
            best = elsewhere(key, worth) or worth[0]
        candidates = [best, *candidates]
    for config in candidates[:-1]:
        try:
            return call(config)
        except OutOfResources:
            continue
    return call(candidates[-1])


@functools.lru_cache(maxsize=4096)
def _key(device: torch.device, *words: Any) -> str:
    return " ".join(map(str, (torch.cuda.get_device_name(device), *words)))


def _time(run: Callable[[], Any]) -> float | None:
    """As `Tuner.choose` wants it. What fails for good, as it is beyond this compiler, looks like what may pass."""
    try:
        return milliseconds(run)
    except OutOfResources:
        return math.inf
    except (TritonError, RuntimeError):  # the first candidate's error is raised later
        return None
