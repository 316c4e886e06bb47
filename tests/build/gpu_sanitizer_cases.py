"""Small, odd calls of every CUDA and Triton kernel, for a run under compute-sanitizer: see test_gpu_sanitizer.py.

compute-sanitizer --tool memcheck python -m tests.build.gpu_sanitizer_cases cuda
"""

from __future__ import annotations

import argparse
import os

# Every tensor by an allocation of its own, that ends where it ends: the caching allocator would hide a read past it.
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
os.environ.setdefault("VTSUM_KERNELS_AUTOTUNE", "0")

from collections.abc import Callable, Iterator
from typing import Any

import torch
import vtsum_kernels as vk
from torch import Tensor

FLOAT, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
#: B, H, K, T, D; dtype; options. Several blocks of each family of kernels, sizes that fill none of them.
WINDOWS: list[tuple[tuple[int, int, int, int, int], torch.dtype, dict[str, Any]]] = [
    ((2, 2, 2, 83, 64), BRAIN, {"window_size": 5}),
    ((1, 3, 1, 61, 32), FLOAT, {"window_size": (1, 2), "mask": True, "dilation": 3}),
    ((1, 2, 2, 70, 64), HALF, {"window_size": 17, "mask": True}),
    ((1, 2, 1, 45, 128), BRAIN, {"window_size": (20, 12), "bias": True}),
    ((1, 2, 2, 150, 64), BRAIN, {"window_size": (70, 9)}),
    ((1, 1, 1, 67, 96), HALF, {"window_size": (-1, -1), "mask": True}),
    ((2, 2, 2, 37, 40), FLOAT, {"window_size": 9, "border": "shift", "bias": True, "dropout_p": 0.3}),
    ((1, 2, 2, 71, 64), BRAIN, {"window_size": 5, "ends": [0, 30, 30, 31, 71]}),
    ((1, 2, 2, 71, 24), FLOAT, {"window_size": (40, 3), "ends": [0, 3, 70, 71], "dropout_p": 0.2, "dilation": 2}),
    ((1, 1, 1, 1, 7), HALF, {"window_size": 3}),
]
#: frames, slots, D, heads; dtype; options. `weight`: through memory_fuse.
READS: list[tuple[tuple[int, int, int, int], torch.dtype, dict[str, Any]]] = [
    ((37, 70, 48, 2), BRAIN, {"query_mask": True, "slot_bias": True}),
    ((61, 33, 24, 1), FLOAT, {"normalize": True}),
    ((45, 600, 32, 1), HALF, {}),
    ((70, 1100, 40, 1), BRAIN, {"slot_bias": True, "query_mask": True}),
    ((50, 1030, 24, 1), FLOAT, {}),
    ((50, 90, 32, 2), BRAIN, {"weight": True, "fold": True, "query_mask": True}),
    ((33, 20, 16, 1), FLOAT, {"weight": True, "fold": False}),
    ((40, 300, 33, 1), FLOAT, {"top_k": 9}),
    ((40, 500, 64, 2), BRAIN, {"top_k": 33, "query_mask": True, "weight": True, "fold": True}),
]


def windows(backend: str) -> Iterator[tuple[str, Callable[[], None]]]:
    for (batch, heads, key_heads, frames, dim), dtype, options in WINDOWS:
        rest = dict(options)
        inputs = [torch.randn(batch, n, frames, dim).to(dtype) for n in (heads, key_heads, key_heads)]
        if rest.pop("mask", False):
            rest["key_mask"] = torch.rand(batch, frames) > 0.3
        if (ends := rest.pop("ends", None)) is not None:
            rest["cu_seqlens"], inputs = torch.tensor(ends), [x[0].transpose(0, 1).contiguous() for x in inputs]
        leaves = [x.requires_grad_() for x in inputs]
        if rest.get("bias"):
            size = rest["window_size"]
            reach = sum(size) if isinstance(size, tuple) else size - 1
            rest["bias"] = torch.randn(heads, (2 if "border" in rest else 1) * reach + 1, requires_grad=True)

        def call(leaves: list[Tensor] = leaves, rest: dict[str, Any] = rest) -> None:
            out, lse = vk.sliding_window_attention(*leaves, **rest, return_lse=True, backend=backend)
            (out.float().square().sum() + lse.masked_fill(lse.isinf(), 0.0).sum()).backward()

        yield f"window {[batch, heads, key_heads, frames, dim]} {dtype} {options}", call


def reads(backend: str) -> Iterator[tuple[str, Callable[[], None]]]:
    for (frames, slots, dim, heads), dtype, options in READS:
        rest = dict(options)
        if backend == "triton" and "top_k" in rest:
            continue
        leaves = [torch.randn(rows, dim).to(dtype) for rows in (frames, slots, slots)]
        if rest.pop("weight", False):
            leaves.append((0.2 * torch.randn(20, 2 * dim)).to(dtype))
        if rest.get("query_mask"):
            rest["query_mask"] = torch.rand(frames) > 0.3
        if rest.get("slot_bias"):
            rest["slot_bias"] = torch.randn(heads, slots, requires_grad=True)
        leaves = [x.requires_grad_() for x in leaves]

        def call(leaves: list[Tensor] = leaves, rest: dict[str, Any] = rest, heads: int = heads) -> None:
            op = vk.memory_fuse if len(leaves) == 4 else vk.memory_attention
            out, usage = op(*leaves, **rest, num_heads=heads, return_usage=True, backend=backend)
            (out.float().square().sum() + usage.square().sum()).backward()

        yield f"read {[frames, slots, dim, heads]} {dtype} {options}", call


def main() -> None:
    parser = argparse.ArgumentParser(description="Small calls of every kernel, to be run under compute-sanitizer.")
    parser.add_argument("backend", choices=["cuda", "triton"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--as", dest="instead", help="another backend in its place, to try this program without a GPU")
    told = parser.parse_args()
    torch.manual_seed(0)
    with torch.device(told.device):
        backend = told.instead or told.backend
        for name, call in (*windows(backend), *reads(backend)):
            print(name, flush=True)  # the last line says where a report comes from
            call()
    if told.device == "cuda":
        torch.cuda.synchronize()
    print("all is well")


if __name__ == "__main__":
    main()
