"""What is tried of a build for the Hugging Face kernels hub, where it is built: each op against plain PyTorch.

The builder runs it beside the package alone (kernels/hub_layout.py), so it imports nothing else of this tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor

pytestmark = pytest.mark.kernels_ci

BACKENDS = {"_cpu": ("cpp", "cpu"), "_cuda": ("cuda", "cuda")}


def window(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, backend: str) -> Any:
    return vk.sliding_window_attention(q, k, v, (4, 2), dilation=2, bias=bias, return_lse=True, backend=backend)


def read(x: Tensor, keys: Tensor, values: Tensor, backend: str) -> Any:
    return vk.memory_attention(x, keys, values, num_heads=2, normalize=True, return_usage=True, backend=backend)


def best(x: Tensor, keys: Tensor, values: Tensor, backend: str) -> Any:
    return (vk.memory_attention(x, keys, values, num_heads=2, top_k=5, backend=backend),)


def fuse(x: Tensor, bank: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Any:
    return (vk.memory_fuse(x, bank, None, weight, bias, normalize=True, backend=backend),)


CASES: dict[Callable[..., Any], list[tuple[int, ...]]] = {
    window: [(2, 3, 37, 16), (2, 3, 37, 16), (2, 3, 37, 16), (3, 7)],
    read: [(2, 37, 16), (2, 11, 8), (2, 11, 12)],
    best: [(2, 37, 16), (2, 200, 8), (2, 200, 12)],
    fuse: [(2, 37, 16), (11, 16), (24, 32), (24,)],
}


@pytest.fixture(params=["_cpu", pytest.param("_cuda", marks=pytest.mark.gpu)])
def compiled(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A backend that the build has, and its device."""
    library = vk.build_info()["libraries"][request.param]
    backend, device = BACKENDS[request.param]
    if not library["loaded"]:
        pytest.skip(f"compiled {device.upper()} kernels: {library['reason']}")
    if device == "cuda" and not torch.cuda.is_available():  # the builder knows no mark gpu
        pytest.skip("needs a CUDA device")
    return backend, device


def inputs(op: Callable[..., Any], device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator) for shape in CASES[op]]
    return [x.to(device, dtype).requires_grad_() for x in made]


def with_gradients(op: Callable[..., Any], tensors: list[Tensor], backend: str) -> list[Tensor]:
    results = [result for result in op(*tensors, backend) if result is not None]
    total = sum((result.double().sin().sum() for result in results), torch.zeros(()))
    return [*results, *torch.autograd.grad(total, tensors)]


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.__name__)
def test_results_and_gradients_are_those_of_plain_pytorch(op: Callable[..., Any], compiled: tuple[str, str]) -> None:
    backend, device = compiled
    got = with_gradients(op, inputs(op, device), backend)
    for x, exact in zip(got, with_gradients(op, inputs(op, "cpu", torch.float64), "reference"), strict=True):
        torch.testing.assert_close(x.cpu().double(), exact.double(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.__name__)
def test_the_ops_compile_whole(op: Callable[..., Any], compiled: tuple[str, str]) -> None:
    backend, device = compiled
    if device == "cuda" and os.environ.get("VTSUM_PRETENDED_GPU") == "1":
        pytest.skip("torch compiles nothing for a pretended GPU")
    tensors = inputs(op, device)
    whole = torch.compile(op, fullgraph=True, backend="aot_eager")
    for x, plain in zip(with_gradients(whole, tensors, backend), with_gradients(op, tensors, backend), strict=True):
        torch.testing.assert_close(x, plain)
