"""What the card itself can do, measured in the run: copying from its memory to its memory, and a large product.

    python -m bench.gpu.roofline --device cuda

Bytes are counted read and written. The larger of a computation's bytes at the copy's speed and its operations at the
product's speed is the time no implementation goes below: its roofline.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.gpu.stage import Line

#: Bytes of the tensor that is copied, a multiple of the L2 cache of any card; of a dry run's.
COPY_BYTES, TINY_BYTES = 4 << 30, 1 << 20
#: Rows of the product; float32's is without TensorFloat-32, as our kernels multiply.
SIZES = {"bfloat16": 8192, "float32": 4096}
TINY_SIZE = 64


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


def measure(device: str, dry_run: bool, say: Callable[[Line], None]) -> Roofline:
    """Measures, and says a line for each.

    Raises:
        RuntimeError: the copy or the bfloat16 product fails.
    """
    from bench.kit.clock import CudaClock, WallClock
    from bench.kit.comparison import Contest, Limits, hold
    from bench.kit.record import COPY, PRODUCT
    from bench.kit.roofline import copy_entry, product_entry

    def held(name: str, dtype: str, entry: Any, moved: int) -> dict[str, Any]:
        facts = {"case": "roofline", "pass": "fwd", "dtype": dtype, "shape": {}}
        clock = (lambda: CudaClock(1, fill=5e-3)) if device == "cuda" else WallClock
        contest = Contest(facts, (name,), moved, lambda: [entry], clock, entry.flops)
        record = next(iter(hold(contest, Limits(0.5, 10.0, 1 << 62), {}, random.Random(0), lambda _: None)))
        if record["status"] != "ok":
            raise RuntimeError(f"roofline: the {name} in {dtype} must run, got {record['status']}: {record['reason']}")
        return dict(record)

    half = TINY_BYTES if dry_run else COPY_BYTES
    copied = held(COPY, "uint8", copy_entry(device, 2 * half, 1, half), 2 * half)
    rate = 2 * half / copied["time_us"]["p50"] * 1e6
    say(Line("copy bandwidth", "ok", f"{rate / 1e12:.3g} TB/s read and written, {half / 2**30:.3g} GiB"))
    products: dict[str, float] = {}
    sizes = dict.fromkeys(SIZES, TINY_SIZE) if dry_run else SIZES
    for dtype, size in sizes.items():
        entry = product_entry(device, dtype, size)
        took = held(PRODUCT, dtype, entry, 0)["time_us"]["p50"]
        products[dtype] = entry.flops / took * 1e6
    told = ", ".join(f"{dtype} {flops / 1e12:.3g} TFLOP/s" for dtype, flops in products.items())
    say(Line("large product", "ok", f"{told}, n {', '.join(str(n) for n in sizes.values())}"))
    return Roofline(rate, products)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options = parser.parse_args()
    measure(options.device, options.device == "cpu", lambda line: print(f"{line.check}: {line.detail}"))


if __name__ == "__main__":
    main()
