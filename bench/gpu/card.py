"""A card of compute capability 9.0, and the least time that it takes for what a launch asks of it.

Source: NVIDIA's data sheets of H100 SXM and H200 (multiprocessors, bandwidth, peak, from which the clock); Luo et al.,
"Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking", arXiv 2402.13499 (mma.sync).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from bench.gpu.predictions import COPY

#: Of a multiprocessor; of its shared memory 1 KiB a block is the system's.
SCHEDULERS, SPECIAL, REGISTERS, SHARED, WARPS, BLOCKS = 4, 4, 65536, 228 * 1024, 64, 32
#: The share of the tensor cores' peak that mma.sync reaches, and the operations of one such instruction.
MMA, FLOPS_OF_MMA = 0.62, 2 * 16 * 8 * 16


class Card(NamedTuple):
    """A GPU: multiprocessors, bytes a second that a copy reads and writes, bfloat16 operations a second at its peak."""

    processors: int
    copy: float
    peak: float

    @property
    def clock(self) -> float:
        return self.peak / (self.processors * 4096)


#: The H100's copy has the same share of its data sheet's bandwidth as the H200's, which was measured.
CARDS = {"H100": Card(132, COPY * 3.35 / 4.8, 989.4e12), "H200": Card(132, COPY, 989.4e12)}


class Code(NamedTuple):
    """Instructions of a piece of code: all, tensor products (HMMA), special functions (MUFU)."""

    instructions: float
    products: float
    specials: float

    @classmethod
    def of(cls, names: list[str]) -> Code:
        return cls(len(names), sum(n.startswith("HMMA") for n in names), sum(n.startswith("MUFU") for n in names))

    def times(self, count: float) -> Code:
        return Code(*(count * one for one in self))

    def plus(self, other: Code, times: float) -> Code:
        return Code(*(a + times * b for a, b in zip(self, other, strict=True)))


class Asked(NamedTuple):
    """What a launch asks of a card: bytes to and from memory, the instructions of all warps together, and the share of
    the rounds of its blocks that has work."""

    moved: float
    code: Code
    busy: float


def resident(registers: int, shared: int, warps: int) -> int:
    """Blocks that a multiprocessor holds at once, of so many registers a thread, bytes of shared memory and warps."""
    of_registers = REGISTERS // (math.ceil(registers / 8) * 8 * 32 * warps)
    return min(of_registers, SHARED // (shared + 1024), WARPS // warps, BLOCKS)


def predicted(asked: Asked, card: Card) -> dict[str, Any]:
    """The least times by what a launch may be bound by, in seconds, and the prediction."""
    code, schedulers = asked.code, card.processors * SCHEDULERS
    times = {
        "memory": asked.moved / card.copy,
        "issue": code.instructions / schedulers / card.clock,
        "tensor": code.products * FLOPS_OF_MMA / (MMA * card.peak),
        "special": code.specials * 32 / SPECIAL / schedulers / card.clock,
    }
    bound = max(times, key=times.__getitem__)
    return {"times": times, "bound": bound, "predicted_s": times[bound] / asked.busy}
