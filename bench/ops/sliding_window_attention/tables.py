"""Tables and plots of the sliding-window benchmark, from its records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from bench.kit.compared import (
    NOTHING,
    PASSES,
    Held,
    Records,
    any_of,
    best_rival,
    columns_of,
    machine,
    panel,
    standing,
    two_digits,
)
from bench.kit.plot import Style, draw, seconds
from bench.kit.record import COPY, OURS, RESULTS, newest_contests, read
from bench.kit.tables import table

OP = "sliding_window_attention"
WINDOW = 5

STYLES = {
    OURS: Style("VTSum", "#000000", 2.8),
    "vtsum_triton": Style("VTSum, Triton", "#000000", 1.6, "2 3"),
    COPY: Style("copying the same bytes", "#888888", 1.8, "7 4"),
    "shifts_compiled": Style("sum of shifts, compiled", "#d55e00"),
    "shifts": Style("sum of shifts", "#d55e00", 1.6, "4 3"),
    "unfold_compiled": Style("unfold, compiled", "#0072b2"),
    "unfold": Style("unfold", "#0072b2", 1.6, "4 3"),
    "sdpa_blocks": Style("SDPA in blocks", "#009e73"),
    "sdpa_masked": Style("SDPA, masked", "#009e73", 1.6, "4 3"),
    "flex_compiled": Style("FlexAttention", "#cc79a7"),
    "local_attention": Style("local-attention", "#e69f00"),
    "natten": Style("NATTEN", "#56b4e9"),
    "flash_window": Style("flash attention of torch", "#7a3fb5"),
    "flash_attn": Style("flash-attn", "#7a3fb5", 1.6, "4 3"),
    "cudnn": Style("cuDNN", "#76b900"),
    "sdpa": Style("SDPA, no mask", "#009e73", 1.6, "1 3"),
}


def records() -> Records:
    return read(RESULTS / f"{OP}.jsonl")


def _sweep(lines: Records, device: str) -> list[Held]:
    return [held for held in newest_contests(lines, device) if any_of(held)["case"] == "sweep"]


def _middle(contests: Sequence[Held]) -> int:
    """The length at which most windows were measured."""
    windows: dict[int, set[int]] = {}
    for held in contests:
        shape = any_of(held)["shape"]
        windows.setdefault(shape["T"], set()).add(shape["window"])
    return max(windows, key=lambda frames: (len(windows[frames]), -frames))


def cell(held: Held | None) -> str:
    """Our time, the share of copy's speed, and how many times as long the best rival takes."""
    if held is None or OURS not in held:
        return ""
    ours = held[OURS]
    if ours["status"] != "ok":
        return str(ours["status"])
    parts = [seconds(ours["time_us"]["p50"] / 1e6)]
    if ours["share_of_copy"] is not None:
        parts.append(f"{ours['share_of_copy']:.0%}")
    rival = best_rival(held)
    if rival is not None:
        ratio = rival["time_us"]["p50"] / ours["time_us"]["p50"]
        parts.append(f"{two_digits(ratio)} x {STYLES[rival['name']].label}")
    return " · ".join(parts)


def _machine(contests: Sequence[Held]) -> str:
    """Where the newest of these was measured."""
    shape = any_of(contests[0])["shape"]
    return machine(contests, f", B {shape['B']}, H {shape['H']}, D {shape['D']}")


def _grid(label: str, rows: list[tuple[str, list[Held]]], contests: list[Held]) -> str:
    columns = columns_of(contests)
    lines = []
    for name, some in rows:
        found = {(any_of(held)["dtype"], any_of(held)["pass"]): held for held in some}
        lines.append([name, *(cell(found.get(column)) for column in columns)])
    head = [label, *(f"{dtype} {PASSES[direction]}" for dtype, direction in columns)]
    return f"{table(head, lines)}\n\n{_machine(contests)}"


def windows(device: str, lines: Records | None = None) -> str:
    """All windows at one length."""
    contests = _sweep(records() if lines is None else lines, device)
    if not contests:
        return NOTHING
    middle = _middle(contests)
    chosen = [held for held in contests if any_of(held)["shape"]["T"] == middle and any_of(held)["layout"] == "bhtd"]
    rows: dict[int, list[Held]] = {}
    for held in chosen:
        rows.setdefault(any_of(held)["shape"]["window"], []).append(held)
    return _grid(f"window, T {middle}", [(str(window), rows[window]) for window in sorted(rows)], chosen)


def frames(device: str, lines: Records | None = None) -> str:
    """All lengths at one window, and the other layout."""
    contests = _sweep(records() if lines is None else lines, device)
    chosen = [held for held in contests if any_of(held)["shape"]["window"] == WINDOW]
    if not chosen:
        return NOTHING
    rows: dict[tuple[str, int], list[Held]] = {}
    for held in chosen:
        rows.setdefault((any_of(held)["layout"], any_of(held)["shape"]["T"]), []).append(held)
    names = {"bhtd": "", "bthd": ", stored as [B, T, H, D]"}
    return _grid(
        f"T, window {WINDOW}",
        [(f"{length}{names[layout]}", rows[layout, length]) for layout, length in sorted(rows)],
        chosen,
    )


def contestants(device: str, lines: Records | None = None) -> str:
    """Everyone at one length and window: the time and the most memory beside the inputs, or why there is none."""
    contests = _sweep(records() if lines is None else lines, device)
    if not contests:
        return NOTHING
    middle, shown = _middle(contests), {}
    for held in contests:
        one = any_of(held)
        if (one["shape"]["T"], one["shape"]["window"], one["layout"]) == (middle, WINDOW, "bhtd"):
            shown[one["dtype"], one["pass"]] = held
    if not shown:
        return NOTHING
    columns = columns_of(list(shown.values()))
    names = [name for name in STYLES if any(name in held for held in shown.values())]
    rows = [[STYLES[name].label, *(standing(shown[column].get(name)) for column in columns)] for name in names]
    head = [f"T {middle}, window {WINDOW}", *(f"{dtype} {PASSES[direction]}" for dtype, direction in columns)]
    return f"{table(head, rows)}\n\n{_machine(list(shown.values()))}"


def overhead(device: str, lines: Records | None = None) -> str:
    """What a call costs where there is next to nothing to compute."""
    contests = newest_contests(records() if lines is None else lines, device)
    held = [one for one in contests if any_of(one)["case"] == "overhead"]
    if not held:
        return NOTHING
    names = [name for name in STYLES if any(name in one for one in held)]
    rows = []
    for dtype, direction in columns_of(held):
        found = next(one for one in held if (any_of(one)["dtype"], any_of(one)["pass"]) == (dtype, direction))
        times = [
            f"{found[n]['time_us']['p50']:.1f} µs" if found[n]["status"] == "ok" else found[n]["status"] for n in names
        ]
        rows.append([f"{dtype} {PASSES[direction]}", *times])
    shape = any_of(held[0])["shape"]
    head = [f"T {shape['T']}, window {shape['window']}", *(STYLES[name].label for name in names)]
    return f"{table(head, rows)}\n\n{_machine(held)}"


def plots(lines: Records | None = None) -> dict[str, str]:
    """SVG by file name, for every device that was measured."""
    lines = records() if lines is None else lines
    made = {}
    for device in sorted({record["device_type"] for record in lines}):
        contests = [held for held in _sweep(lines, device) if any_of(held)["layout"] == "bhtd"]
        if not contests:
            continue
        middle = _middle(contests)
        for x, key, fixed, value in (("frames", "T", "window", WINDOW), ("window", "window", "T", middle)):
            chosen = [held for held in contests if any_of(held)["shape"][fixed] == value]
            panels = [panel(chosen, column, key, "frames" if key == "T" else "window") for column in columns_of(chosen)]
            panels = [one for one in panels if one.lines]
            if panels:
                title = f"Sliding-window attention: time by {x} ({fixed} {value}, {any_of(chosen[0])['device']})"
                made[f"{OP}_{device}_{x}.svg"] = draw(title, panels, STYLES)
    return made


TABLES: dict[str, Callable[[], str]] = {
    f"sliding_window_{device}_{name}": functools.partial(make, device)
    for device in ("cpu", "cuda")
    for name, make in (
        ("windows", windows),
        ("frames", frames),
        ("contestants", contestants),
        ("overhead", overhead),
    )
}
