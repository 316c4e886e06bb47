"""What was aimed at for memory retrieval, beside what its records say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from bench.kit.compared import NOTHING, PASSES, Held, Records, aim_row, any_of, best, ratio, time_of
from bench.kit.record import OURS
from bench.kit.tables import table
from bench.ops.memory_attention.tables import SDPA, held_in, middle

#: How many times as long SDPA, cat and linear should take at least, by slots: forward and backward, one head.
AHEAD_OF_SDPA = {64: 2.0, 256: 2.0, 1024: 1.5, 4096: 1.1}
#: With 12 heads no more is promised.
AHEAD_WITH_HEADS = {64: 1.2}
FOLDED = ("folded",)
TOPK, TOPK_RIVALS, TOPK_SLOTS = 3.0, ("topk_bag", "topk_bag_blocks"), 65536
#: Each further frame may take so many times its k weights, its k indices and the row that it reads.
MEMORY_BY_FRAME = 4.0
GATHER = 0.6


def _ahead(held: Held | None, names: Sequence[str]) -> float | None:
    """How many times as long the fastest of these takes."""
    rival = best(held, names) if held else None
    return ratio(rival["time_us"]["p50"], time_of(held, OURS)) if rival else None


def _at(contests: Sequence[Held], **wanted: object) -> Held | None:
    for held in contests:
        one = any_of(held)
        facts = {**one["shape"], "dtype": one["dtype"], "direction": one["pass"]}
        if all(facts[name] == value for name, value in wanted.items()):
            return held
    return None


def _dtypes(contests: Sequence[Held]) -> list[str]:
    there = {any_of(held)["dtype"] for held in contests}
    return [dtype for dtype in ("float32", "float16", "bfloat16") if dtype in there]


def aims(device: str, lines: Records | None = None) -> str:
    """A row an aim: the figure, and whether it was reached."""
    joined = held_in(("fuse", "projected"), device, lines)
    if not joined:
        return NOTHING
    fused = held_in(("fuse",), device, lines)
    tokens, dim = middle(fused)
    rows = []
    for heads, limits in ((1, AHEAD_OF_SDPA), (12, AHEAD_WITH_HEADS)):
        for slots, limit in limits.items():
            for dtype in _dtypes(fused):
                held = _at(fused, N=tokens, C=dim, S=slots, H=heads, dtype=dtype, direction="fwd+bwd")
                said = f"{slots} slots, {heads} head{'s' * (heads != 1)}, {dtype}"
                aim = f"{said}, forward and backward: SDPA, cat and linear take at least {limit:g} times as long"
                if held is not None or dtype == _dtypes(fused)[0]:
                    rows.append(aim_row(aim, _ahead(held, SDPA), limit, least=True))
    nearest = [times for held in joined if (times := _ahead(held, FOLDED)) is not None]
    aim = "never slower than folded eager PyTorch: where it comes nearest, it takes at least 1 times as long"
    rows.append(aim_row(aim, min(nearest, default=None), 1.0, least=True))
    rows += _sparse_aims(device, lines)
    return table([f"aim at {tokens} frames, C {dim}", "measured", "reached"], rows)


def _sparse_aims(device: str, lines: Records | None) -> list[list[str]]:
    large = [held for held in held_in(("topk",), device, lines) if any_of(held)["shape"]["S"] == TOPK_SLOTS]
    rows = []
    for direction in ("fwd", "fwd+bwd"):
        found = [times for held in large if any_of(held)["pass"] == direction if (times := _ahead(held, TOPK_RIVALS))]
        aim = (
            f"top-k of {TOPK_SLOTS} slots, {PASSES[direction]}: matmul, topk and EmbeddingBag take at least {TOPK:g} "
            "times as long"
        )
        rows.append(aim_row(aim, min(found, default=None), TOPK, least=True))
    aim = (
        "memory of its forward pass grows with frames times k alone: a further frame takes at most "
        f"{MEMORY_BY_FRAME:g} times its weights, indices and row"
    )
    rows.append(aim_row(aim, _memory_by_frame(large), MEMORY_BY_FRAME))
    if device == "cuda":
        gathers = held_in(("gather",), device, lines)
        shares = [
            held[OURS]["share_of_copy"]
            for held in gathers
            if any_of(held)["pass"] == "fwd" and time_of(held, OURS) and held[OURS]["share_of_copy"] is not None
        ]
        aim = f"gather of the values: at least {GATHER:g} of the speed of a copy"
        rows.append(aim_row(aim, min(shares, default=None), GATHER, least=True))
    return rows


def _memory_by_frame(contests: Sequence[Held]) -> float | None:
    """From the fewest frames to the most, of the same bank and dtype; scores of all slots would take hundreds."""
    found: dict[tuple[object, ...], list[tuple[int, float, float]]] = {}
    for held in contests:
        one = held.get(OURS)
        if one and one["pass"] == "fwd" and one["status"] == "ok" and one["peak_mib"] is not None:
            shape, size = one["shape"], {"float32": 4, "float16": 2, "bfloat16": 2}[one["dtype"]]
            needed = shape["k"] * (4 + 4) + shape["C"] * size
            key = (one["dtype"], shape["C"], shape["S"], shape["k"])
            found.setdefault(key, []).append((shape["N"], one["peak_mib"] * 2**20, needed))
    worst = [
        (most[1] - least[1]) / (most[0] - least[0]) / least[2]
        for sizes in found.values()
        if (least := min(sizes))[0] < (most := max(sizes))[0]
    ]
    return max(worst, default=None)


TABLES: dict[str, Callable[[], str]] = {
    f"memory_retrieval_{device}_aims": functools.partial(aims, device) for device in ("cpu", "cuda")
}
