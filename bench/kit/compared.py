"""What tables and plots of any op's contests share: who was ahead, where it was measured, what a cell says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.kit.plot import Panel, seconds
from bench.kit.record import COPY, OURS, PRODUCT

Records = Sequence[dict[str, Any]]
#: One contest: its records by contestant.
Held = dict[str, dict[str, Any]]

PASSES = {
    "fwd": "forward",
    "fwd_recorded": "forward, recorded for autograd",
    "bwd": "backward",
    "fwd+bwd": "forward + backward",
}
DTYPES = ("float32", "float16", "bfloat16")
NOTHING = "Not measured yet."


def any_of(held: Held) -> dict[str, Any]:
    return next(iter(held.values()))


def columns_of(contests: Sequence[Held]) -> list[tuple[str, str]]:
    """(dtype, pass) of everything measured, in a fixed order."""
    there = {(any_of(held)["dtype"], any_of(held)["pass"]) for held in contests}
    return [(dtype, direction) for dtype in DTYPES for direction in PASSES if (dtype, direction) in there]


def time_of(held: Held | None, name: str) -> float | None:
    """The median, in microseconds; None where there is none."""
    record = held.get(name) if held else None
    return float(record["time_us"]["p50"]) if record and record["status"] == "ok" else None


def best(held: Held, names: Sequence[str]) -> dict[str, Any] | None:
    """The fastest of these with right numbers."""
    times = [held[name] for name in names if name in held and held[name]["status"] == "ok"]
    return min(times, key=lambda r: r["time_us"]["p50"], default=None)


def best_rival(held: Held) -> dict[str, Any] | None:
    """The fastest of those with right numbers."""
    return best(held, [name for name in held if name not in (COPY, PRODUCT) and not name.startswith(OURS)])


def ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def standing(record: dict[str, Any] | None) -> str:
    """A contestant's time and the most memory beside the inputs, or why there is none."""
    if record is None:
        return ""
    if record["status"] != "ok":
        return str(record["status"])
    memory = "" if not record["peak_mib"] else f", {record['peak_mib']:.3g} MiB"
    return seconds(record["time_us"]["p50"] / 1e6) + memory


def machine(contests: Sequence[Held], shape: str) -> str:
    """Where the newest of these was measured."""
    last = max((any_of(held) for held in contests), key=lambda r: r["run"])
    threads = f"{last['threads']} thread{'s' * (last['threads'] != 1)}"
    where = (
        f"{last['device']}, {threads}, torch {last['versions']['torch']}, commit {last['commit']}, {last['run'][:10]}"
    )
    return f"{where}; medians{shape}."


def panel(contests: Sequence[Held], column: tuple[str, str], key: str, label: str) -> Panel:
    """Times of everyone in one dtype and pass, against one of the shape's sizes."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for held in contests:
        for name, record in held.items():
            if (record["dtype"], record["pass"]) == column and record["status"] == "ok":
                lines.setdefault(name, []).append((record["shape"][key], record["time_us"]["p50"] / 1e6))
    return Panel(f"{column[0]} {PASSES[column[1]]}", label, lines)


def aim_row(aim: str, measured: float | None, limit: float, least: bool = False) -> list[str]:
    """An aim, the figure, and whether it was reached."""
    if measured is None:
        return [aim, "not measured", ""]
    reached = measured >= limit if least else measured <= limit
    return [aim, f"{measured:.2f}", "yes" if reached else "**no**"]
