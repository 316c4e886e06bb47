"""Tables, aims and plots of the sliding-window benchmark, from its records."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from bench.kit.plot import Picture, Style
from bench.kit.record import COPY, OURS
from bench.kit.tables import (
    NOTHING,
    Compared,
    Records,
    Tables,
    aim_row,
    any_of,
    at,
    best_rival,
    column_of,
    columns_of,
    compared_in,
    everyone,
    grid,
    heads_of,
    machine,
    on_both,
    ours_against,
    panel,
    ratio,
    records,
    table,
    time_of,
)

OP = "sliding_window_attention"
WINDOW = 5
BRIEF = (WINDOW, 33)
#: What was aimed at, at window 5 and the length at which all windows were measured.
FORWARD_TIMES_COPY, BOTH_TIMES_COPY, HALF_PRECISION, OVERHEAD, WIDEST_AHEAD = 1.15, 1.5, 1.6, 1.5, 65

STYLES = {
    OURS: Style("VTSum", "#000000", 2.8),
    "vtsum_triton": Style("VTSum, Triton", "#000000", 1.6, ":"),
    COPY: Style("copying the same bytes", "#888888", 1.8, "--"),
    "shifts_compiled": Style("sum of shifts, compiled", "#d55e00"),
    "shifts": Style("sum of shifts", "#d55e00", 1.6, "--"),
    "unfold_compiled": Style("unfold, compiled", "#0072b2"),
    "unfold": Style("unfold", "#0072b2", 1.6, "--"),
    "sdpa_blocks": Style("SDPA in blocks", "#009e73"),
    "sdpa_masked": Style("SDPA, masked", "#009e73", 1.6, "--"),
    "flex_compiled": Style("FlexAttention", "#cc79a7"),
    "local_attention": Style("local-attention", "#e69f00"),
    "natten": Style("NATTEN", "#56b4e9"),
    "flash_window": Style("flash attention of torch", "#7a3fb5"),
    "flash_attn": Style("flash-attn", "#7a3fb5", 1.6, "--"),
    "cudnn": Style("cuDNN", "#76b900"),
    "sdpa": Style("SDPA, no mask", "#009e73", 1.6, ":"),
}


def _case(name: str, device: str, lines: Records | None) -> list[Compared]:
    return compared_in(OP, (name,), device, lines, lambda one: (one["layout"], *one["shape"].values()))


def _plain(comparisons: Sequence[Compared], **shape: int) -> list[Compared]:
    """Those of these sizes, of tensors that are contiguous."""
    return [one for one in at(comparisons, **shape) if any_of(one)["layout"] == "bhtd"]


def _middle(comparisons: Sequence[Compared]) -> int:
    """The length at which most windows were measured."""
    windows: dict[int, set[int]] = {}
    for one in comparisons:
        shape = any_of(one)["shape"]
        windows.setdefault(shape["T"], set()).add(shape["window"])
    return max(windows, key=lambda frames: (len(windows[frames]), -frames), default=0)


def _shape(comparisons: Sequence[Compared]) -> str:
    shape = any_of(comparisons[0])["shape"] if comparisons else dict.fromkeys("BHD")
    return f", B {shape['B']}, H {shape['H']}, D {shape['D']}"


_cell = functools.partial(ours_against, share="share_of_copy", rivals=(None,), styles=STYLES)


def windows(device: str, lines: Records | None = None) -> str:
    """All windows at one length."""
    comparisons = _case("sweep", device, lines)
    chosen = _plain(comparisons, T=_middle(comparisons))
    label = f"window, T {_middle(comparisons)}"
    return grid(label, chosen, lambda one: str(one["shape"]["window"]), _cell, _shape(chosen))


def brief(device: str, lines: Records | None = None) -> str:
    """The README's: two windows at one length."""
    comparisons = _case("sweep", device, lines)
    chosen = [one for one in _plain(comparisons, T=_middle(comparisons)) if any_of(one)["shape"]["window"] in BRIEF]
    return grid("window", chosen, lambda one: str(one["shape"]["window"]), _cell, _shape(chosen))


def frames(device: str, lines: Records | None = None) -> str:
    """All lengths at one window, and the other layout."""
    chosen = at(_case("sweep", device, lines), window=WINDOW)
    names = {"bhtd": "", "bthd": ", stored as [B, T, H, D]"}
    return grid(
        f"T, window {WINDOW}",
        chosen,
        lambda one: f"{one['shape']['T']}{names[one['layout']]}",
        _cell,
        _shape(chosen),
    )


def all_at_one_size(device: str, lines: Records | None = None) -> str:
    comparisons = _case("sweep", device, lines)
    middle = _middle(comparisons)
    shown = _plain(comparisons, T=middle, window=WINDOW)
    return everyone(f"T {middle}, window {WINDOW}", shown, STYLES, _shape(shown))


def overhead(device: str, lines: Records | None = None) -> str:
    """What a call costs where there is next to nothing to compute."""
    found = {column_of(one): one for one in _case("overhead", device, lines)}
    if not found:
        return NOTHING
    names = [name for name in STYLES if any(name in one for one in found.values())]
    shown = list(found.values())

    def cell(one: dict[str, Any]) -> str:
        return f"{one['time_us']['p50']:.1f} µs" if one["status"] == "ok" else str(one["status"])

    columns = columns_of(shown)
    rows = [[head, *(cell(found[c][n]) for n in names)] for head, c in zip(heads_of(columns), columns, strict=True)]
    shape = any_of(shown[0])["shape"]
    head = [f"T {shape['T']}, window {shape['window']}", *(STYLES[name].label for name in names)]
    return table(head, rows, machine(shown, _shape(shown)))


def aims(device: str, lines: Records | None = None) -> str:
    """A row an aim: the figure, and whether it was reached."""
    comparisons = _case("sweep", device, lines)
    if not comparisons:
        return NOTHING
    middle = _middle(comparisons)
    found = {column_of(one): one for one in _plain(comparisons, T=middle, window=WINDOW)}
    small = {column_of(one): one for one in _case("overhead", device, lines)}
    rows = []
    for direction, limit in (("fwd", FORWARD_TIMES_COPY), ("fwd+bwd", BOTH_TIMES_COPY)):
        plain = found.get(("float32", direction))
        aim = f"float32 {_said(direction)}: at most {limit} times copying the same bytes"
        rows.append(aim_row(aim, ratio(time_of(plain, OURS), time_of(plain, COPY)), limit))
    for direction in ("fwd", "fwd+bwd"):
        full, half = (time_of(found.get((dtype, direction)), OURS) for dtype in ("float32", "bfloat16"))
        aim = f"bfloat16 {_said(direction)}: at least {HALF_PRECISION} times as fast as float32"
        rows.append(aim_row(aim, ratio(full, half), HALF_PRECISION, least=True))
    for direction in ("fwd", "fwd_recorded", "fwd+bwd"):
        call = small.get(("float32", direction))
        aim = f"a call at T 32, {_said(direction)}: at most {OVERHEAD} times SDPA's own"
        rows.append(aim_row(aim, ratio(time_of(call, OURS), time_of(call, "sdpa")), OVERHEAD))
    closest = [
        times
        for one in _plain(comparisons, T=middle)
        if any_of(one)["shape"]["window"] <= WIDEST_AHEAD and (rival := best_rival(one))
        if (times := ratio(rival["time_us"]["p50"], time_of(one, OURS)))
    ]
    aim = f"ahead of every rival at every window up to {WIDEST_AHEAD}: the fastest rival takes at least 1 times as long"
    rows.append(aim_row(aim, min(closest, default=None), 1.0, least=True))
    return table([f"aim at window {WINDOW}, T {middle}", "measured", "reached"], rows)


def _said(direction: str) -> str:
    return {"fwd": "forward", "fwd_recorded": "forward that autograd records", "fwd+bwd": "forward and backward"}[
        direction
    ]


def pictures(lines: Records | None = None) -> dict[str, Picture]:
    """By file name, for every device that was measured."""
    made = {}
    for device in sorted({record["device_type"] for record in records(OP, lines)}):
        comparisons = _plain(_case("sweep", device, lines))
        middle = _middle(comparisons)
        for x, key, fixed, value in (("frames", "T", "window", WINDOW), ("window", "window", "T", middle)):
            chosen = _plain(comparisons, **{fixed: value})
            panels = [panel(chosen, column, key, "frames" if key == "T" else "window") for column in columns_of(chosen)]
            if panels := [one for one in panels if one.lines]:
                title = f"Sliding-window attention: time by {x} ({fixed} {value}, {any_of(chosen[0])['device']})"
                made[f"{OP}_{device}_{x}.svg"] = Picture(title, panels, STYLES)
    return made


TABLES: Tables = on_both(
    "sliding_window", windows=windows, brief=brief, frames=frames, all=all_at_one_size, overhead=overhead, aims=aims
)
