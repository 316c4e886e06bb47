"""CUDA C++ and Triton against each other: the same choice of dropout, the same rows seen, numbers a rounding apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels.conftest import needs_library
from tests.kernels.pretended_gpu import large
from tests.kernels.test_properties import TOLERANCE

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda")]
DTYPES = [torch.float32, torch.bfloat16]
#: B, H, K, T, D and options; with cu_seqlens B is 1.
WINDOWS: dict[str, tuple[tuple[int, int, int, int, int], dict[str, Any]]] = {
    "ring": ((2, 4, 4, 1000, 64), {"window_size": 5}),
    "strip": ((1, 4, 2, 700, 64), {"window_size": (10, 12), "key_padding_mask": True}),
    "wide": ((1, 2, 2, 500, 64), {"window_size": (100, 30), "key_padding_mask": True}),
    "unbounded": ((1, 2, 2, 300, 32), {"window_size": (-1, 3)}),
    "dropout": ((2, 3, 3, 300, 40), {"window_size": 9, "dropout_p": 0.4}),
    "options": (
        (1, 4, 2, 500, 24),
        {"window_size": (3, 2), "dilation": 2, "border": "shift", "bias": True, "ends": True, "dropout_p": 0.2},
    ),
}


def apart(name: str, ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    assert torch.equal(ours.isinf(), theirs.isinf()), name
    mine, other = (x.masked_fill(x.isinf(), 0.0).double() for x in (ours, theirs))
    assert (mine - other).abs().max() <= TOLERANCE[dtype] * other.abs().max().clamp_min(1.0), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(dtype: torch.dtype, name: str) -> None:
    needs_library("triton")
    (batch, heads, key_heads, frames, dim), options = WINDOWS[name]
    options, frames = dict(options), large(frames)
    inputs = [torch.randn(batch, n, frames, dim).to(dtype) for n in (heads, key_heads, key_heads)]
    if options.pop("ends", False):
        options["cu_seqlens"] = torch.tensor([0, frames // 3, frames // 3 + 1, frames])
        inputs = [x[0].transpose(0, 1) for x in inputs]
    if options.get("key_padding_mask"):
        options["key_padding_mask"] = torch.rand(batch, frames) > 0.2
    if options.get("bias"):
        options["bias"] = torch.randn(heads, 11, requires_grad=True)
    leaves = [x.requires_grad_() for x in inputs]
    asked = leaves + ([options["bias"]] if "bias" in options else [])
    results = []
    for backend in ("cuda", "triton"):
        torch.manual_seed(5)
        out, lse = vk.sliding_window_attention(*leaves, **options, return_lse=True, backend=backend)
        total = out.float().square().sum() + lse.masked_fill(lse.isinf(), 0.0).sum()
        results.append([out, lse, *torch.autograd.grad(total, asked)])
    for part, ours, theirs in zip(("out", "lse", "dq", "dk", "dv", "dbias"), *results, strict=False):
        apart(f"{name} {part}", ours, theirs, dtype)


READS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"normalize": True, "scale": 8.0, "num_heads": 2, "query_mask": True},
    "flash": {"slots": 1500, "slot_bias": True},
    "folded": {"fold": True, "num_heads": 2},
    "unfolded": {"fold": False},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", READS)
def test_reads(dtype: torch.dtype, name: str) -> None:
    needs_library("triton")
    options = dict(READS[name])
    frames, slots = large(1000), large(options.pop("slots", 200))
    leaves = [torch.randn(rows, 64).to(dtype) for rows in (frames, slots, slots)]
    if "fold" in options:
        leaves.append((0.2 * torch.randn(48, 128)).to(dtype))
    if options.get("query_mask"):
        options["query_mask"] = torch.rand(frames) > 0.2
    if options.get("slot_bias"):
        options["slot_bias"] = torch.randn(slots).where(torch.rand(slots) > 0.2, torch.tensor(-torch.inf))
    leaves = [x.requires_grad_() for x in leaves]
    results = []
    for backend in ("cuda", "triton"):
        op = vk.memory_fuse if "fold" in options else vk.memory_attention
        out, usage = op(*leaves, **options, return_usage=True, backend=backend)
        total = out.float().square().sum() + 0.01 * usage.square().sum()
        results.append([out, usage, *torch.autograd.grad(total, leaves)])
    for n, (ours, theirs) in enumerate(zip(*results, strict=True)):
        apart(f"{name} {n}", ours, theirs, dtype)
