"""Tables and plots of the memory benchmark, from its records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from bench.kit.compared import (
    NOTHING,
    PASSES,
    Held,
    Records,
    any_of,
    best,
    best_rival,
    columns_of,
    machine,
    panel,
    standing,
    time_of,
    two_digits,
)
from bench.kit.plot import Style, draw, seconds
from bench.kit.record import COPY, OURS, PRODUCT, RESULTS, newest_contests, read
from bench.kit.tables import table

OP = "memory_retrieval"
#: The contestants table and the plot against frames show banks of these sizes.
SHOWN_SLOTS, FEW_SLOTS = 1024, 256
SDPA = ("sdpa", "sdpa_compiled")

STYLES = {
    OURS: Style("VTSum", "#000000", 2.8),
    "vtsum_triton": Style("VTSum, Triton", "#000000", 1.6, "2 3"),
    "vtsum_product_keys": Style("VTSum, product keys", "#000000", 1.6, "6 3"),
    PRODUCT: Style("the work at a large product's speed", "#888888", 1.8, "7 4"),
    COPY: Style("copying the same bytes", "#888888", 1.8, "7 4"),
    "sdpa": Style("SDPA", "#009e73", 1.6, "4 3"),
    "sdpa_compiled": Style("SDPA, compiled", "#009e73"),
    "matmul": Style("matmul, softmax, matmul", "#e69f00", 1.6, "4 3"),
    "matmul_compiled": Style("matmul, softmax, matmul, compiled", "#e69f00"),
    "folded": Style("folded", "#0072b2", 1.6, "4 3"),
    "folded_compiled": Style("folded, compiled", "#0072b2"),
    "topk_bag": Style("matmul, topk, EmbeddingBag", "#d55e00"),
    "topk_bag_blocks": Style("the same by blocks of rows", "#d55e00", 1.6, "4 3"),
    "matmul_topk": Style("matmul, topk", "#cc79a7"),
    "matmul_topk_blocks": Style("matmul, topk by blocks of rows", "#cc79a7", 1.6, "4 3"),
    "faiss": Style("faiss", "#7a3fb5"),
    "embedding_bag": Style("EmbeddingBag", "#56b4e9"),
    "index_sum": Style("index, product", "#56b4e9", 1.6, "4 3"),
}
WHAT = {"fuse": "", "projected": ", projected queries, no cosine", "attention": ""}


def records() -> Records:
    return read(RESULTS / f"{OP}.jsonl")


def held_in(cases: Sequence[str], device: str, lines: Records | None) -> list[Held]:
    """The newest contests of these cases, in order of their sizes."""
    contests = newest_contests(records() if lines is None else lines, device)
    found = [held for held in contests if any_of(held)["case"] in cases]
    return sorted(found, key=lambda held: (cases.index(any_of(held)["case"]), _order(any_of(held)["shape"])))


def _order(shape: dict[str, int]) -> tuple[int, ...]:
    return shape["H"], -shape["C"], shape["N"], shape["S"], shape.get("k", 0)


def middle(contests: Sequence[Held]) -> tuple[int, int]:
    """The number of frames, and C, at which most sizes of a bank were measured with one head."""
    slots: dict[tuple[int, int], set[int]] = {}
    for held in contests:
        shape = any_of(held)["shape"]
        if shape["H"] == 1:
            slots.setdefault((shape["N"], shape["C"]), set()).add(shape["S"])
    return max(slots, key=lambda sizes: (len(slots[sizes]), -sizes[0]), default=(0, 0))


def _label(record: dict[str, Any]) -> str:
    shape = record["shape"]
    heads = f"{shape['H']} head{'s' * (shape['H'] != 1)}"
    return f"{shape['N']} x {shape['C']}, {heads}, {shape['S']} slots{WHAT[record['case']]}"


def cell(held: Held | None) -> str:
    """Our time, the share of a large product's speed, and how many times as long SDPA and the best rival take."""
    if held is None or OURS not in held:
        return ""
    ours = held[OURS]
    if ours["status"] != "ok":
        return str(ours["status"])
    parts = [seconds(ours["time_us"]["p50"] / 1e6)]
    if ours.get("share_of_product") is not None:
        parts.append(f"{ours['share_of_product']:.0%}")
    apart, rival = best(held, SDPA), best_rival(held)
    for one in [apart] + [rival] * (rival is not apart):
        if one is not None:
            times = one["time_us"]["p50"] / ours["time_us"]["p50"]
            parts.append(f"{two_digits(times)} x {STYLES[one['name']].label}")
    return " · ".join(parts)


def dense(device: str, cases: Sequence[str], lines: Records | None = None) -> str:
    """A row for each size: what all slots are read for."""
    contests = held_in(cases, device, lines)
    if not contests:
        return NOTHING
    rows: dict[str, dict[tuple[str, str], Held]] = {}
    for held in contests:
        one = any_of(held)
        rows.setdefault(_label(one), {})[one["dtype"], one["pass"]] = held
    columns = columns_of(contests)
    head = ["frames x C", *(f"{dtype} {PASSES[direction]}" for dtype, direction in columns)]
    made = [[label, *(cell(found.get(column)) for column in columns)] for label, found in rows.items()]
    return f"{table(head, made)}\n\n{machine(contests, '')}"


def contestants(device: str, lines: Records | None = None) -> str:
    """Everyone at one size: the time and the most memory beside the inputs, or why there is none."""
    contests = held_in(("fuse",), device, lines)
    sizes, shown = middle(contests), {}
    for held in contests:
        one = any_of(held)
        if (one["shape"]["N"], one["shape"]["C"], one["shape"]["S"], one["shape"]["H"]) == (*sizes, SHOWN_SLOTS, 1):
            shown[one["dtype"], one["pass"]] = held
    if not shown:
        return NOTHING
    columns = columns_of(list(shown.values()))
    names = [name for name in STYLES if name != PRODUCT and any(name in held for held in shown.values())]
    rows = [[STYLES[name].label, *(standing(shown[column].get(name)) for column in columns)] for name in names]
    head = [
        _label(any_of(next(iter(shown.values())))),
        *(f"{dtype} {PASSES[direction]}" for dtype, direction in columns),
    ]
    return f"{table(head, rows)}\n\n{machine(list(shown.values()), '')}"


def sparse(device: str, lines: Records | None = None) -> str:
    """The k best slots: reading them, finding them alone, and the weighted sum of their values alone."""
    parts = []
    for case, what in (("topk", "reading"), ("search", "finding"), ("gather", "weighted sum of")):
        contests = held_in((case,), device, lines)
        if not contests:
            continue
        names = [name for name in STYLES if name != PRODUCT and any(name in held for held in contests)]
        rows = []
        for held in contests:
            one = any_of(held)
            shape = one["shape"]
            sizes = f"{shape['N']} x {shape['C']}, {shape['k']} of {shape['S']}"
            rows.append([f"{sizes}, {one['dtype']} {PASSES[one['pass']]}", *(standing(held.get(n)) for n in names)])
        head = [f"{what} the best slots, frames x C", *(STYLES[name].label for name in names)]
        parts.append(f"{table(head, rows)}\n\n{machine(contests, '')}")
    return "\n\n".join(parts) or NOTHING


def plots(lines: Records | None = None) -> dict[str, str]:
    """SVG by file name, for every device that was measured: time by slots, and by frames, with one head."""
    lines = records() if lines is None else lines
    made = {}
    for device in sorted({record["device_type"] for record in lines}):
        contests = [held for held in held_in(("fuse",), device, lines) if any_of(held)["shape"]["H"] == 1]
        tokens, dim = middle(contests)
        contests = [held for held in contests if any_of(held)["shape"]["C"] == dim]
        for name, key, fixed, value in (("slots", "S", "N", tokens), ("frames", "N", "S", FEW_SLOTS)):
            chosen = [held for held in contests if any_of(held)["shape"][fixed] == value]
            if len({any_of(held)["shape"][key] for held in chosen}) < 2:
                continue
            panels = []
            for column in columns_of(chosen):
                one = panel(chosen, column, key, name)
                one.lines.pop(PRODUCT, None)  # it took its time for another amount of work
                roofline = _roofline(chosen, column, key)
                if one.lines:
                    panels.append(one._replace(lines={**one.lines, **({PRODUCT: roofline} if roofline else {})}))
            if panels:
                said = {"N": f"{value} frames", "S": f"{value} slots"}[fixed]
                title = f"Memory retrieval joined to the frame: time by {name} ({said}, C {dim}, one head)"
                made[f"{OP}_{device}_{name}.svg"] = draw(title, panels, STYLES)
    return made


def _roofline(contests: Sequence[Held], column: tuple[str, str], key: str) -> list[tuple[float, float]]:
    points = []
    for held in contests:
        one = any_of(held)
        if (one["dtype"], one["pass"]) == column and time_of(held, PRODUCT) and time_of(held, OURS):
            points.append((one["shape"][key], held[OURS]["flops"] / (held[PRODUCT]["gflop_s"] * 1e9)))
    return points


TABLES: dict[str, Callable[[], str]] = {
    f"memory_retrieval_{device}_{name}": functools.partial(make, device)
    for device in ("cpu", "cuda")
    for name, make in (
        ("fuse", functools.partial(dense, cases=("fuse", "projected"))),
        ("attention", functools.partial(dense, cases=("attention",))),
        ("topk", sparse),
        ("contestants", contestants),
    )
}
