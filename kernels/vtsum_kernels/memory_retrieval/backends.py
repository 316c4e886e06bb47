"""The backends of both memory ops: which calls each can serve, and why not the others."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import library
from . import cpu as _cpu  # noqa: F401  (registers the dense ops on the CPU)
from . import search as _search  # noqa: F401  (registers memory_topk on the CPU)

HAS_TRITON = importlib.util.find_spec("triton") is not None
#: Triton's interpreter runs its kernels on the CPU, for tests.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

#: Suffix of the names of the registered ops by which a backend is called.
SUFFIX = {"cpp": "", "cuda": "", "triton": "_triton"}

SPARSE_OPS = ("memory_topk", "memory_gather", "memory_gather_dot", "memory_scatter")
DENSE_OPS = ("memory_weights_fwd", "memory_weights_bwd", "memory_flash_fwd", "memory_flash_bwd", "memory_join_fwd")


def _cpp_can_run(x: Tensor, sparse: bool) -> str | None:
    if x.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {x.device}"
    if library.refusal("_cpu") is not None:
        return f"the compiled CPU kernels are not loaded: {library.refusal('_cpu')}"
    return None


def _cuda_can_run(x: Tensor, sparse: bool) -> str | None:
    if x.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {x.device}"
    if library.refusal("_cuda") is not None:
        return f"the compiled CUDA kernels are not loaded: {library.refusal('_cuda')}"
    if x.dtype == torch.float64:
        return "it takes float32, float16 and bfloat16"
    missing = [op for op in (SPARSE_OPS if sparse else DENSE_OPS) if not _has_cuda(op)]
    return f"it has no form of {', '.join(missing)}" if missing else None


def _has_cuda(op: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{library.NAMESPACE}::{op}", "CUDA")


def _triton_can_run(x: Tensor, sparse: bool) -> str | None:
    if x.device.type != "cuda" and not (TRITON_INTERPRETED and x.device.type == "cpu"):
        return f"it runs on CUDA, the tensors are on {x.device}"
    if not HAS_TRITON:
        return "the package triton is not installed"
    if x.dtype == torch.float64:
        return "it takes float32, float16 and bfloat16"
    return "it has no form of the ops that top_k needs" if sparse else None


_PREDICATES = {"cpp": _cpp_can_run, "cuda": _cuda_can_run, "triton": _triton_can_run}


def predicates(of: Callable[[Any], tuple[Tensor, bool]]) -> dict[str, Callable[[Any], str | None]]:
    """Every backend's predicate on a checked call; `of` gives its x, and whether it reads the k best slots alone."""

    def of_call(predicate: Callable[[Tensor, bool], str | None]) -> Callable[[Any], str | None]:
        return lambda call: predicate(*of(call))

    return {**{name: of_call(p) for name, p in _PREDICATES.items()}, "reference": lambda call: None}
