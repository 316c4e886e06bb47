"""Tables and aims of the memory attention benchmark, from its records; and what the tables of `memory_fuse` share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from bench.kit.plot import Picture, Style
from bench.kit.record import COPY, OURS, PRODUCT
from bench.kit.tables import (
    NOTHING,
    PASSES,
    Compared,
    Records,
    Tables,
    aim_row,
    any_of,
    best,
    compared_in,
    grid,
    machine,
    on_both,
    ours_against,
    ratio,
    standing,
    table,
    time_of,
)

OP = "memory_attention"
SDPA = ("sdpa", "sdpa_compiled")
#: What was aimed at: how many times as long the rivals should take at least, of so many slots.
TOPK, TOPK_RIVALS, TOPK_SLOTS = 3.0, ("topk_bag", "topk_bag_blocks"), 65536
#: Each further frame may take so many times its k weights, its k indices and the row that it reads.
MEMORY_BY_FRAME = 4.0
GATHER = 0.6

STYLES = {
    OURS: Style("VTSum", "#000000", 2.8),
    "vtsum_triton": Style("VTSum, Triton", "#000000", 1.6, ":"),
    "vtsum_product_keys": Style("VTSum, product keys", "#000000", 1.6, "--"),
    PRODUCT: Style("the work at a large product's speed", "#888888", 1.8, "--"),
    COPY: Style("copying the same bytes", "#888888", 1.8, "--"),
    "sdpa": Style("SDPA", "#009e73", 1.6, "--"),
    "sdpa_compiled": Style("SDPA, compiled", "#009e73"),
    "matmul": Style("matmul, softmax, matmul", "#e69f00", 1.6, "--"),
    "matmul_compiled": Style("matmul, softmax, matmul, compiled", "#e69f00"),
    "folded": Style("folded", "#0072b2", 1.6, "--"),
    "folded_compiled": Style("folded, compiled", "#0072b2"),
    "topk_bag": Style("matmul, topk, EmbeddingBag", "#d55e00"),
    "topk_bag_blocks": Style("the same by blocks of rows", "#d55e00", 1.6, "--"),
    "matmul_topk": Style("matmul, topk", "#cc79a7"),
    "matmul_topk_blocks": Style("matmul, topk by blocks of rows", "#cc79a7", 1.6, "--"),
    "faiss": Style("faiss", "#7a3fb5"),
    "embedding_bag": Style("EmbeddingBag", "#56b4e9"),
    "index_sum": Style("index, product", "#56b4e9", 1.6, "--"),
}


def newest(op: str, cases: Sequence[str], device: str, lines: Records | None) -> list[Compared]:
    """The newest comparisons of these cases, in order of their sizes."""

    def order(one: dict[str, Any]) -> tuple[int, ...]:
        return tuple(one["shape"].get(name, 0) * sign for name, sign in zip("HCNSk", (1, -1, 1, 1, 1), strict=True))

    return compared_in(op, cases, device, lines, order)


def label(record: dict[str, Any]) -> str:
    shape = record["shape"]
    heads = f"{shape['H']} head{'s' * (shape['H'] != 1)}"
    projected = ", projected queries, no cosine" if record["case"] == "projected" else ""
    return f"{shape['N']} x {shape['C']}, {heads}, {shape['S']} slots{projected}"


def dense(op: str, cases: Sequence[str], device: str, lines: Records | None = None) -> str:
    """A row for each size: what all slots are read for."""
    cell = functools.partial(ours_against, share="share_of_product", rivals=(SDPA, None), styles=STYLES)
    return grid("frames x C", newest(op, cases, device, lines), label, cell)


def ahead(compared: Compared | None, names: Sequence[str]) -> float | None:
    """How many times as long the fastest of these takes."""
    rival = best(compared, names) if compared else None
    return ratio(rival["time_us"]["p50"], time_of(compared, OURS)) if rival else None


def sparse(device: str, lines: Records | None = None) -> str:
    """The k best slots: reading them, finding them alone, and the weighted sum of their values alone."""
    parts = []
    for case, what in (("topk", "reading"), ("search", "finding"), ("gather", "weighted sum of")):
        comparisons = newest(OP, (case,), device, lines)
        if not comparisons:
            continue
        names = [name for name in STYLES if name != PRODUCT and any(name in one for one in comparisons)]
        rows = []
        for compared in comparisons:
            one = any_of(compared)
            shape = one["shape"]
            sizes = f"{shape['N']} x {shape['C']}, {shape['k']} of {shape['S']}"
            rows.append([f"{sizes}, {one['dtype']} {PASSES[one['pass']]}", *(standing(compared.get(n)) for n in names)])
        head = [f"{what} the best slots, frames x C", *(STYLES[name].label for name in names)]
        parts.append(table(head, rows, machine(comparisons, "")))
    return "\n\n".join(parts) or NOTHING


def aims(device: str, lines: Records | None = None) -> str:
    """A row an aim: the figure, and whether it was reached."""
    large = [one for one in newest(OP, ("topk",), device, lines) if any_of(one)["shape"]["S"] == TOPK_SLOTS]
    if not large:
        return NOTHING
    rows = []
    for direction in ("fwd", "fwd+bwd"):
        found = [times for one in large if any_of(one)["pass"] == direction if (times := ahead(one, TOPK_RIVALS))]
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
        shares = [
            one[OURS]["share_of_copy"]
            for one in newest(OP, ("gather",), device, lines)
            if any_of(one)["pass"] == "fwd" and time_of(one, OURS) and one[OURS]["share_of_copy"] is not None
        ]
        aim = f"gather of the values: at least {GATHER:g} of the speed of a copy"
        rows.append(aim_row(aim, min(shares, default=None), GATHER, least=True))
    return table(["aim", "measured", "reached"], rows)


def _memory_by_frame(comparisons: Sequence[Compared]) -> float | None:
    """From the fewest frames to the most, of the same bank and dtype; scores of all slots would take hundreds."""
    found: dict[tuple[object, ...], list[tuple[int, float, float]]] = {}
    for compared in comparisons:
        one = compared.get(OURS)
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


def pictures(lines: Records | None = None) -> dict[str, Picture]:
    """None: its cases are too few of a size for lines."""
    return {}


TABLES: Tables = on_both(OP, dense=functools.partial(dense, OP, ("attention",)), topk=sparse, aims=aims)
