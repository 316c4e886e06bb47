"""What the machine itself can do, measured in the run: copying as many bytes, and a large matrix product.

Bytes are counted read and written. The larger of a computation's bytes at the copy's speed and its operations at the
product's speed is the time no implementation goes below: its roofline.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.kit.clock import Call, CudaClock, WallClock
from bench.kit.comparison import GIB, Comparison, Entry, Limits, compare
from bench.kit.record import COPY, PRODUCT

#: Triton's interpreter runs our Triton kernels on the CPU, slowly: to try the benchmark out, not to measure.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: The copy beside a comparison goes over and over this much memory where the tensors are larger.
COPY_BYTES = GIB // 2
#: Rows and columns of the matrices whose product is the roofline: large enough for the library's full speed.
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
#: Of a whole GPU: bytes of the tensor that is copied, a multiple of the L2 cache of any card; rows of the products.
#: float32's is without TensorFloat-32, as our kernels multiply.
CARD_BYTES, CARD_SIZES = 4 * GIB, {"bfloat16": 8192, "float32": 4096}
TINY_BYTES, TINY_SIZE = 1 << 20, 64


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


def product_size(device: str, work: int) -> int:
    """How large a product it takes for comparing that many operations with: beside tiny work, as in a dry run, a large
    one would take all the time, minutes where a processor has no product in 16 bits."""
    return TINY_SIZE if work <= 2 * TINY_SIZE**3 else PRODUCT_SIZE[device]


def product_entry(device: str, dtype: str, size: int) -> Entry:
    """A square matrix product of that dtype and size, by the library that torch carries."""

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


@dataclass(frozen=True)
class Roofline:
    """Bytes a second of the copy, and operations a second of the product by dtype."""

    copy: float
    product: dict[str, float]

    def seconds(self, moved: int, flops: int, dtype: str) -> float:
        """The least time for so many bytes and operations. 16-bit types are multiplied alike."""
        rate = self.product.get("float32" if dtype == "float32" else "bfloat16", 0.0)
        return max(moved / self.copy, flops / rate if rate else 0.0)

    def facts(self) -> dict[str, Any]:
        return {"copy_bytes_a_second": self.copy, "product_flops": self.product}

    @staticmethod
    def of(facts: dict[str, Any]) -> Roofline | None:
        """What `facts` held; None where nothing was measured."""
        copy = facts.get("copy_bytes_a_second")
        return Roofline(float(copy), dict(facts["product_flops"])) if copy else None


def measure(device: str, tiny: bool, say: Callable[[str, str], None]) -> Roofline:
    """Measures a whole card, and says of each what it is and how fast.

    Raises:
        RuntimeError: the copy or a product fails.
    """

    def timed(dtype: str, entry: Entry, moved: int) -> float:
        facts = {"case": "roofline", "pass": "fwd", "dtype": dtype, "shape": {}}
        clock = (lambda: CudaClock(1, fill=5e-3)) if device == "cuda" else WallClock
        comparison = Comparison(facts, (entry.name,), moved, lambda: [entry], clock, entry.flops)
        record = next(iter(compare(comparison, Limits(0.5, 10.0), {}, random.Random(0), lambda _: None)))
        if record["status"] != "ok":
            raise RuntimeError(
                f"roofline: the {entry.name} in {dtype} must run, got {record['status']}: {record['reason']}"
            )
        return float(record["time_us"]["p50"]) / 1e6

    half = TINY_BYTES if tiny else CARD_BYTES
    rate = 2 * half / timed("uint8", copy_entry(device, 2 * half, 1, half), 2 * half)
    say("copy bandwidth", f"{rate / 1e12:.3g} TB/s read and written, {half / GIB:.3g} GiB")
    products = {}
    sizes = dict.fromkeys(CARD_SIZES, TINY_SIZE) if tiny else CARD_SIZES
    for dtype, size in sizes.items():
        entry = product_entry(device, dtype, size)
        products[dtype] = entry.flops / timed(dtype, entry, 0)
    told = ", ".join(f"{dtype} {flops / 1e12:.3g} TFLOP/s" for dtype, flops in products.items())
    say("large product", f"{told}, n {', '.join(str(n) for n in sizes.values())}")
    return Roofline(rate, products)
