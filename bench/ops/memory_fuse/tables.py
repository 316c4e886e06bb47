"""Tables, aims and plots of the benchmark of memory attention joined to the frame, from its records."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from bench.kit.plot import Picture
from bench.kit.record import OURS, PRODUCT
from bench.kit.tables import (
    DTYPES,
    NOTHING,
    Compared,
    Records,
    Tables,
    aim_row,
    any_of,
    at,
    column_of,
    columns_of,
    on_both,
    panel,
    records,
    table,
    time_of,
)
from bench.ops.memory_attention.tables import SDPA, STYLES, ahead, dense, newest

OP, CASES = "memory_fuse", ("fuse", "projected")
#: The plot against frames shows banks of this size.
FEW_SLOTS = 256
#: What was aimed at: how many times as long SDPA, cat and linear should take at least, by heads and slots, forward and
#: backward.
AHEAD_OF_SDPA = {1: {64: 2.0, 256: 2.0, 1024: 1.5, 4096: 1.1}, 12: {64: 1.2}}


def middle(comparisons: Sequence[Compared]) -> tuple[int, int]:
    """The number of frames, and C, at which most sizes of a bank were measured with one head."""
    slots: dict[tuple[int, int], set[int]] = {}
    for compared in comparisons:
        shape = any_of(compared)["shape"]
        if shape["H"] == 1:
            slots.setdefault((shape["N"], shape["C"]), set()).add(shape["S"])
    return max(slots, key=lambda sizes: (len(slots[sizes]), -sizes[0]), default=(0, 0))


def aims(device: str, lines: Records | None = None) -> str:
    """A row an aim: the figure, and whether it was reached."""
    fused = newest(OP, ("fuse",), device, lines)
    if not fused:
        return NOTHING
    tokens, dim = middle(fused)
    there = {column_of(one)[0] for one in fused}
    dtypes = [dtype for dtype in DTYPES if dtype in there]
    rows = []
    for heads, limits in AHEAD_OF_SDPA.items():
        for slots, limit in limits.items():
            found = {column_of(one): one for one in at(fused, N=tokens, C=dim, S=slots, H=heads)}
            for dtype in dtypes:
                compared = found.get((dtype, "fwd+bwd"))
                said = f"{slots} slots, {heads} head{'s' * (heads != 1)}, {dtype}"
                aim = f"{said}, forward and backward: SDPA, cat and linear take at least {limit:g} times as long"
                if compared is not None or dtype == dtypes[0]:
                    rows.append(aim_row(aim, ahead(compared, SDPA), limit, least=True))
    joined = newest(OP, CASES, device, lines)
    nearest = [times for one in joined if (times := ahead(one, ("folded",))) is not None]
    aim = "never slower than folded eager PyTorch: where it comes nearest, it takes at least 1 times as long"
    rows.append(aim_row(aim, min(nearest, default=None), 1.0, least=True))
    return table([f"aim at {tokens} frames, C {dim}", "measured", "reached"], rows)


def pictures(lines: Records | None = None) -> dict[str, Picture]:
    """By file name, for every device that was measured: time by slots, and by frames, with one head."""
    made = {}
    for device in sorted({record["device_type"] for record in records(OP, lines)}):
        comparisons = at(newest(OP, ("fuse",), device, lines), H=1)
        tokens, dim = middle(comparisons)
        for name, key, fixed, value in (("slots", "S", "N", tokens), ("frames", "N", "S", FEW_SLOTS)):
            chosen = at(comparisons, C=dim, **{fixed: value})
            if len({any_of(one)["shape"][key] for one in chosen}) < 2:
                continue
            panels = []
            for column in columns_of(chosen):
                one = panel(chosen, column, key, name)
                one.lines.pop(PRODUCT, None)  # it took its time for another amount of work
                if one.lines:
                    points = roofline(chosen, column, key)
                    panels.append(one._replace(lines={**one.lines, **({PRODUCT: points} if points else {})}))
            if panels:
                said = {"N": f"{value} frames", "S": f"{value} slots"}[fixed]
                title = f"Memory retrieval joined to the frame: time by {name} ({said}, C {dim}, one head)"
                made[f"{OP}_{device}_{name}.svg"] = Picture(title, panels, STYLES)
    return made


def roofline(comparisons: Sequence[Compared], column: tuple[str, str], key: str) -> list[tuple[float, float]]:
    """Seconds that our work would take at the speed of a large product."""
    return [
        (any_of(one)["shape"][key], one[OURS]["flops"] / (one[PRODUCT]["gflop_s"] * 1e9))
        for one in comparisons
        if column_of(one) == column and time_of(one, PRODUCT) and time_of(one, OURS)
    ]


TABLES: Tables = on_both(OP, dense=functools.partial(dense, OP, CASES), aims=aims)
