"""What the memory ops' CUDA kernels ask of a GPU, for BANK's 16,384 frames of 768 features in bfloat16.

Not here: what reads from L2 that which another kernel has just left there (the merge of the k best, the scatter, the
softmax of a few slots), as nothing is known of the speed of that, and the products, which are a BLAS's.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from bench.gpu.card import Asked, Card, Code, resident
from bench.gpu.predictions import BANK, BEST, GATHERED, SLOTS
from bench.gpu.sass import Function

FRAMES, WIDTH = BANK["N"], BANK["C"]
OF = "memory_attention"
#: The most slots that one kernel gives the weights of, or joins.
MANY = 256


class Turns(NamedTuple):
    """Of a warp: turns of the longest loop; or, where that goes from block to block, of the longest one within, and of
    the innermost in each of these."""

    loop: float = 1
    within: float = 0
    inner: float = 1


class Kernel(NamedTuple):
    """A kernel and a call of it: the file and the part of the mangled name that it is found by, the call's shape, the
    bytes it moves, those of shared memory a block, warps a block, all warps, and each one's turns; `measured`: the op
    and the case of its benchmark that are this kernel alone, forward."""

    what: str
    unit: str
    name: str
    shape: dict[str, int]
    moved: float
    shared: int
    warps: int
    all_warps: int
    turns: Turns
    measured: tuple[str, str] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        return {"kernel": self.what, "shape": {**BANK, **self.shape}}

    def blocks(self, registers: int) -> int:
        return resident(registers, self.shared, self.warps)

    def loop(self, function: Function) -> Code:
        """All that a warp does."""
        whole, loop, within, inner = map(Code.of, (function.names, function.loop, function.within, function.inner))
        if not self.turns.within:
            return whole.plus(loop, self.turns.loop - 1)
        return whole.plus(within, self.turns.within - 1).plus(inner, self.turns.within * (self.turns.inner - 1))

    def asked(self, blocks: int, loop: Code, card: Card) -> Asked:
        launched = self.all_warps / self.warps
        rounds = math.ceil(launched / card.processors)
        return Asked(self.moved, loop.times(self.all_warps), launched / (rounds * card.processors))


def _join(slots: int) -> Kernel:
    """A block of 4 warps has 64 frames and 64 columns; the residual, y and the weights once."""
    return Kernel(
        f"join of {slots} slots",
        f"{OF}/join",
        "join_kernelI13__nv_bfloat16",
        {"S": slots},
        FRAMES * (2 * WIDTH + slots) * 2,
        32768,
        4,
        FRAMES // 64 * (WIDTH // 64) * 4,
        Turns(slots // 64),
    )


_CHOSEN = {"S": SLOTS, "k": BEST}
_RING = 8 * 256 * 16
KERNELS = (
    Kernel(
        f"sum of {BEST} of {SLOTS} slots",
        f"{OF}/gather",
        "gather_kernelI13__nv_bfloat16Li8E",
        _CHOSEN,
        GATHERED,
        _RING,
        8,
        FRAMES * WIDTH // 8 // 32,
        Turns(within=BEST // 8),
        ("memory_attention", "gather"),
    ),
    Kernel(
        f"products with {BEST} of {SLOTS} slots",
        f"{OF}/gather_dot",
        "gather_dot_kernelI13__nv_bfloat16Li8ELi32E",
        _CHOSEN,
        GATHERED,  # of the products the weights are written, and rows read in the place of results
        _RING,
        8,
        FRAMES,
        Turns(within=BEST // 8, inner=WIDTH // 8 // 32),
    ),
    # A block of 8 warps has 128 frames and all slots; frames and weights once, the slots from L2.
    Kernel(
        f"weights of {MANY} slots",
        f"{OF}/weights",
        f"weights_fwd_kernelI13__nv_bfloat16S3_Li{MANY}E",
        {"S": MANY},
        FRAMES * (WIDTH * 2 + MANY * 2 + 8),
        4 * (128 + MANY) * 32 * 2 + MANY * 4,
        8,
        FRAMES // 128 * 8,
        Turns(WIDTH // 32),
    ),
    _join(64),
    _join(MANY),
)
