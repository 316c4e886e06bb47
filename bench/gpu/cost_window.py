"""What the window op's CUDA kernels ask of a GPU: how their launches cut VIDEO, and what a turn of their loop takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.gpu.card import Asked, Card, Code, resident
from bench.gpu.predictions import VIDEO
from bench.gpu.sass import Function

ROW = VIDEO["D"] * 2  # bytes, of bfloat16
ROWS = VIDEO["B"] * VIDEO["H"] * VIDEO["T"]
OF = "sliding_window_attention"


class Work(NamedTuple):
    """How a launch cuts VIDEO on a card: runs of the loop by all warps together, the part of what is read that is read
    twice, and the share of all rounds of blocks that has work."""

    loops: int
    again: float
    busy: float


class Kernel(NamedTuple):
    """A kernel for a window: the file and the part of the mangled name that it is found by, how many tensors it reads
    and writes whole, bytes of shared memory a block, warps a block, how blocks on the card become work, and how many
    turns the loop that is counted takes in each turn of one around it."""

    what: str
    unit: str
    name: str
    window: int
    tensors: tuple[int, int]
    shared: int
    warps: int
    work: Callable[[Kernel, int], Work]
    turns: int = 1

    @property
    def facts(self) -> dict[str, Any]:
        return {"kernel": self.what, "window": self.window, "shape": VIDEO}

    def blocks(self, registers: int) -> int:
        """Blocks of it that a multiprocessor holds at once."""
        most = resident(registers, self.shared, self.warps)
        return min(most, 12) if self.work is strip else most  # strips are cut for at most so many

    def loop(self, function: Function) -> Code:
        """A turn of the longest loop, or of the one within that takes so many turns in each of its own."""
        outer, inner = Code.of(function.loop), Code.of(function.within)
        if self.turns == 1:
            return outer
        around = outer.plus(inner, -1)
        return inner.plus(around, 1 / self.turns)

    def asked(self, blocks: int, loop: Code, card: Card) -> Asked:
        work = self.work(self, blocks * card.processors)
        reads, writes = self.tensors
        moved = ROWS * ROW * (reads * (1 + work.again) + writes)
        return Asked(moved, loop.times(work.loops), work.busy)


def ring(kernel: Kernel, blocks: int) -> Work:
    """As `cut` of ring_plan.h: every warp has four strips of 8 lanes, and strips are as long as all warps can share."""
    halo, warps = kernel.window - 1, blocks * kernel.warps
    share = math.ceil(ROWS / (warps * 4))
    wanted = math.ceil(share / math.ceil(share / 512))
    rows = math.ceil((wanted + halo) / 8) * 8 - halo
    strips = math.ceil(VIDEO["T"] / rows)
    groups = math.ceil(VIDEO["B"] * VIDEO["H"] * strips / 4)
    return Work(groups * ((rows + halo) // 8), halo / rows, groups / (math.ceil(groups / warps) * warps))


def strip(kernel: Kernel, blocks: int) -> Work:
    """As `cut_walks` of strip.h: walks of one warp over 16-row units."""
    lines, units = VIDEO["B"] * VIDEO["H"], math.ceil(VIDEO["T"] / 16)
    extra = 3 if kernel.what == "strip forward" else 5  # 16-row blocks that a walk reads besides its own
    ways = []
    for per_warp in range(1, 9):
        count = min(max(per_warp * blocks // lines, 1), units)
        length = math.ceil(units / count)
        walks = lines * math.ceil(units / length)
        ways.append((math.ceil(walks / blocks) * (length + extra), length, walks))
    _, length, walks = min(ways)
    return Work(walks * (length + extra), extra / length, walks / (math.ceil(walks / blocks) * blocks))


def tile(kernel: Kernel, blocks: int) -> Work:
    """A block of four warps for 64 rows (or keys), which see steps of 64 keys (or rows), each in so many turns; L2
    holds what neighbours share."""
    tiles = VIDEO["B"] * VIDEO["H"] * math.ceil(VIDEO["T"] / 64)
    steps = 1 + 2 * math.ceil((kernel.window // 2) / 64)
    return Work(tiles * kernel.warps * steps * kernel.turns, 0.0, tiles / (math.ceil(tiles / blocks) * blocks))


_BF16 = "_kernelI13__nv_bfloat16"
_RING_FWD, _RING_BWD = f"{OF}/ring_fwd_bfloat16", f"{OF}/ring_bwd_bfloat16"
_FORWARD_BYTES, _BACKWARD_BYTES = 24576, 57344
KERNELS = (
    Kernel("ring forward", _RING_FWD, f"ring_fwd{_BF16}Li8ELi5ELb0E", 5, (3, 1), _FORWARD_BYTES, 2, ring),
    Kernel("ring backward", _RING_BWD, f"ring_bwd{_BF16}Li8ELi5ELb0E", 5, (4, 3), _BACKWARD_BYTES, 2, ring),
    Kernel("ring forward", _RING_FWD, f"ring_fwd{_BF16}Li8ELi9ELb0E", 9, (3, 1), _FORWARD_BYTES, 2, ring),
    Kernel("ring backward", _RING_BWD, f"ring_bwd{_BF16}Li8ELi9ELb0E", 9, (4, 3), _BACKWARD_BYTES, 2, ring),
    Kernel("strip forward", f"{OF}/strip_fwd", f"strip_fwd{_BF16}Li64ELi3E", 33, (3, 1), 10 * 16 * ROW, 1, strip),
    Kernel("strip backward", f"{OF}/strip_bwd", f"strip_bwd{_BF16}Li64ELi3E", 33, (4, 3), 16 * 16 * ROW, 1, strip),
    Kernel("tile forward", f"{OF}/tile_fwd", f"tile_fwd{_BF16}Li64E", 129, (3, 1), 57344, 4, tile, 2),
    Kernel("tile backward, dq", f"{OF}/tile_bwd", f"tile_bwd_rows{_BF16}Li64E", 129, (5, 1), 67072, 4, tile, 2),
    Kernel("tile backward, dk dv", f"{OF}/tile_bwd", f"tile_bwd_keys{_BF16}Li64E", 129, (4, 2), 67072, 4, tile, 4),
)
