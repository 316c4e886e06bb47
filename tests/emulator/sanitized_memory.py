"""Runs odd calls of memory attention through a sanitized library; test_memory_sanitizers.py starts it.

Every tensor ends where its allocation ends, so that a read past it is found.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import torch

from tests.emulator.memory import Library

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def softmax(lib: Library, slots: int, dtype: torch.dtype) -> None:
    scores, factor = torch.randn(2, 1, 3, slots), torch.rand(2, 1, 3)
    bias, mask = torch.randn(1, 1, slots), torch.tensor([[True, False, True], [True, True, True]])
    weights, lse, usage = lib.softmax(scores, factor, bias, mask, dtype)
    lib.softmax_backward(weights, lse, usage, weights, factor, mask, dtype)


def weights(lib: Library, slots: int, width: int, dtype: torch.dtype) -> None:
    x, keys = torch.randn(2, 37, 1, width).to(dtype), torch.randn(2, 1, slots, width).to(dtype)
    mask = torch.rand(2, 37) > 0.5
    lib.weights(x, keys, torch.rand(2, 1, 37), torch.randn(2, 1, slots), mask, dtype)
    lib.weights(x, keys, torch.rand(2, 1, 37), None, None, torch.float32)


def join(lib: Library, frames: int, slots: int, width: int, dtype: torch.dtype) -> None:
    weights, bank = torch.randn(frames, slots).to(dtype), torch.randn(slots, width).to(dtype)
    lib.join(weights, bank, torch.randn(width).to(dtype), torch.randn(frames, width).to(dtype))


def sums(lib: Library, width: int, slots: int, dtype: torch.dtype) -> None:
    for frames, k in ((3, 9), (60, 10)):
        index = (torch.rand(1, 2, frames, k).square() * slots).int()
        table, rows = torch.randn(1, 2, slots, width).to(dtype), torch.randn(1, frames, 2, width).to(dtype)
        chosen = torch.randn(1, 2, frames, k)
        lib.gather(chosen, index, table)
        lib.gather_dot(rows, index, table)
        lib.scatter(chosen, index, rows, slots)
    lib.factor_backward(rows, rows.clone(), torch.rand(1, 2, frames), torch.rand(1, frames) > 0.5)


def main(path: Path) -> None:
    lib = Library(path)
    torch.manual_seed(0)
    # Each line says where a report that follows it comes from.
    wide = zip((1024, 2050, 4100, 8200), (*FLOATS, torch.bfloat16), strict=True)
    for slots, dtype in (*product((1, 6, 64, 129, 300, 516), FLOATS), *wide):
        print(f"softmax {slots} {dtype}", flush=True)
        softmax(lib, slots, dtype)
    for slots, width, dtype in ((4, 8, FLOATS[1]), (68, 40, FLOATS[2]), (256, 40, FLOATS[1]), (132, 8, FLOATS[2])):
        print(f"weights {slots} {width} {dtype}", flush=True)
        weights(lib, slots, width, dtype)
    for frames, slots, width in ((1, 8, 8), (64, 64, 64), (65, 72, 136), (20, 256, 72)):
        print(f"join {frames} {slots} {width}", flush=True)
        join(lib, frames, slots, width, FLOATS[1 + slots % 64 // 8 % 2])
    for (width, slots), dtype in product(((1, 700), (6, 1), (8, 700), (264, 1)), FLOATS):
        print(f"sums {width} {slots} {dtype}", flush=True)
        sums(lib, width, slots, dtype)
    for slots, k in ((3, 5), (130, 130), (2100, 40), (2049, 1024)):
        print(f"topk {slots} {k}", flush=True)
        lib.topk(torch.randn(1, 1, 2, slots), torch.ones(1, 1, 2), torch.randn(1, 1, slots), k, [slots])
    print("all is well")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
