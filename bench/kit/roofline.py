"""What contestants are measured by: copying as many bytes, and the machine's own large matrix product."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from bench.kit.clock import Call
from bench.kit.comparison import GIB, Entry
from bench.kit.record import COPY, PRODUCT

#: Triton's interpreter runs our Triton kernels on the CPU, slowly: to try the benchmark out, not to measure.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: The copy that stands for the roofline goes over and over this much memory where the tensors are larger.
COPY_BYTES = GIB // 2
#: Rows and columns of the matrices whose product stands for the roofline: large enough for the library's full speed.
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}


def input_sets(device: str, set_bytes: int) -> int:
    """On a GPU, as many sets of inputs as are three times the L2 cache together; on the CPU one."""
    if device != "cuda" or not torch.cuda.is_available():
        return 1
    cache = int(torch.cuda.get_device_properties(0).L2_cache_size)
    return min(max(math.ceil(3 * cache / max(set_bytes, 1)), 1), 128)


def copy_entry(device: str, moved: int, sets: int, most: int = COPY_BYTES) -> Entry:
    """A copy reads and writes as many bytes, together, as the computation has to."""
    half = moved // 2
    size = min(half, most)

    def start() -> Call:
        pairs = [
            tuple(torch.full((size,), fill, dtype=torch.uint8, device=device) for fill in (1, 0)) for _ in range(sets)
        ]
        whole, rest = divmod(half, size)

        def copy(i: int) -> tuple[Tensor, ...]:
            source, target = pairs[i]
            for _ in range(whole):
                target.copy_(source)
            if rest:
                target[:rest].copy_(source[:rest])
            return ()

        return copy

    return Entry(COPY, start, limited=False)


def product_entry(device: str, dtype: str, size: int | None = None) -> Entry:
    """A large square matrix product of that dtype, by the library that torch carries."""
    size = PRODUCT_SIZE[device] if size is None else size

    def start() -> Call:
        generator = torch.Generator(device).manual_seed(0)
        kind = getattr(torch, dtype)
        a, b = (torch.randn(size, size, generator=generator, dtype=kind, device=device) for _ in range(2))
        into = torch.empty_like(a)

        def product(i: int) -> tuple[Tensor, ...]:
            torch.mm(a, b, out=into)
            return ()

        return product

    return Entry(PRODUCT, start, limited=False, flops=2 * size**3)
