"""Tables in Markdown from records, and what the tables and plots of every op's comparisons share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.kit import record
from bench.kit.plot import Panel, Style, seconds
from bench.kit.record import COPY, OURS, PRODUCT

Records = Sequence[dict[str, Any]]
#: One comparison: its records by implementation.
Compared = dict[str, dict[str, Any]]
#: A page's tables by their marks.
Tables = Mapping[str, Callable[[], str]]

PASSES = {
    "fwd": "forward",
    "fwd_recorded": "forward, recorded for autograd",
    "bwd": "backward",
    "fwd+bwd": "forward + backward",
}
DTYPES = ("float32", "float16", "bfloat16")
NOTHING = "Not measured yet."


def table(head: Sequence[str], rows: Sequence[Sequence[str]], below: str = "") -> str:
    """The table, and a paragraph below it; NOTHING where there is no row."""
    if not rows:
        return NOTHING
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{text}\n\n{below}" if below else text


def formatted(columns: Mapping[str, str], lines: Iterable[Mapping[str, Any]], below: str = "") -> str:
    """A row for each record: by head, how `str.format` writes a column from the record's values."""
    rows = [[column.format_map(line) for column in columns.values()] for line in lines]
    return table(list(columns), rows, below)


def records(name: str, lines: Records | None = None) -> Records:
    """The records of results/NAME.jsonl, unless others are given."""
    return record.read(record.RESULTS / f"{name}.jsonl") if lines is None else lines


def newest(lines: Records, *keys: str, **wanted: Any) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By the values of `keys`, the last record of those that have the `wanted` values, in the order of their firsts."""

    def value(r: dict[str, Any], key: str) -> Any:
        found = r.get(key)
        return tuple(found.values()) if isinstance(found, dict) else found

    chosen = [r for r in lines if all(r.get(key) == wish for key, wish in wanted.items())]
    return {tuple(value(r, key) for key in keys): r for r in chosen}


def change(pair: Sequence[float], digits: int, scale: float = 1) -> str:
    """A difference and its standard error."""
    return f"{scale * pair[0]:+.{digits}f} ± {scale * pair[1]:.{digits}f}"


def any_of(compared: Compared) -> dict[str, Any]:
    return next(iter(compared.values()))


def compared_in(
    op: str, cases: Sequence[str], device: str, lines: Records | None, order: Callable[[dict[str, Any]], Any]
) -> list[Compared]:
    """The newest comparisons of these cases, one case after the other."""
    found = [one for one in record.newest_comparisons(records(op, lines), device) if any_of(one)["case"] in cases]
    return sorted(found, key=lambda one: (cases.index(any_of(one)["case"]), order(any_of(one))))


def at(comparisons: Sequence[Compared], **shape: int) -> list[Compared]:
    """Those of these sizes."""
    return [one for one in comparisons if shape.items() <= any_of(one)["shape"].items()]


def on_both(prefix: str, **made: Callable[[str], str]) -> Tables:
    """An op's tables by their marks: each for the CPU and for a GPU."""
    return {
        f"{prefix}_{on}_{name}": functools.partial(make, on) for on in ("cpu", "cuda") for name, make in made.items()
    }


def column_of(compared: Compared) -> tuple[str, str]:
    return any_of(compared)["dtype"], any_of(compared)["pass"]


def columns_of(comparisons: Sequence[Compared]) -> list[tuple[str, str]]:
    """(dtype, pass) of everything measured, in a fixed order."""
    there = {column_of(compared) for compared in comparisons}
    return [(dtype, direction) for dtype in DTYPES for direction in PASSES if (dtype, direction) in there]


def heads_of(columns: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{dtype} {PASSES[direction]}" for dtype, direction in columns]


def grid(
    label: str,
    comparisons: Sequence[Compared],
    row: Callable[[dict[str, Any]], str],
    cell: Callable[[Compared | None], str],
    shape: str = "",
) -> str:
    """A row for each name that `row` gives a comparison, a column for each dtype and pass."""
    rows: dict[str, dict[tuple[str, str], Compared]] = {}
    for compared in comparisons:
        rows.setdefault(row(any_of(compared)), {})[column_of(compared)] = compared
    columns = columns_of(comparisons)
    body = [[name, *(cell(found.get(column)) for column in columns)] for name, found in rows.items()]
    return table([label, *heads_of(columns)], body, machine(comparisons, shape) if comparisons else "")


def everyone(label: str, shown: Sequence[Compared], styles: Mapping[str, Style], shape: str = "") -> str:
    """All at one size: the time and the most memory beside the inputs, or why there is none."""
    by_column = {column_of(compared): compared for compared in shown}
    columns = columns_of(shown)
    names = [name for name in styles if name != PRODUCT and any(name in compared for compared in shown)]
    rows = [[styles[name].label, *(standing(by_column[c].get(name)) for c in columns)] for name in names]
    return table([label, *heads_of(columns)], rows, machine(shown, shape) if shown else "")


def time_of(compared: Compared | None, name: str) -> float | None:
    """The median, in microseconds; None where there is none."""
    found = compared.get(name) if compared else None
    return float(found["time_us"]["p50"]) if found and found["status"] == "ok" else None


def best(compared: Compared, names: Sequence[str]) -> dict[str, Any] | None:
    """The fastest of these with right numbers."""
    times = [compared[name] for name in names if name in compared and compared[name]["status"] == "ok"]
    return min(times, key=lambda r: r["time_us"]["p50"], default=None)


def best_rival(compared: Compared) -> dict[str, Any] | None:
    """The fastest of those with right numbers."""
    return best(compared, [name for name in compared if name not in (COPY, PRODUCT) and not name.startswith(OURS)])


def ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def ours_against(compared: Compared | None, share: str, rivals: Sequence[Sequence[str] | None], styles: Any) -> str:
    """Our time, the share of a roofline, and how many times as long the best of some rivals (None: of all) take."""
    if compared is None or OURS not in compared:
        return ""
    ours = compared[OURS]
    if ours["status"] != "ok":
        return str(ours["status"])
    parts = [seconds(ours["time_us"]["p50"] / 1e6)]
    if ours.get(share) is not None:
        parts.append(f"{ours[share]:.0%}")
    shown: list[Any] = []
    for names in rivals:
        rival = best_rival(compared) if names is None else best(compared, names)
        if rival is not None and rival not in shown:
            shown.append(rival)
            times = rival["time_us"]["p50"] / ours["time_us"]["p50"]
            parts.append(f"{two_digits(times)} x {styles[rival['name']].label}")
    return " · ".join(parts)


def standing(found: dict[str, Any] | None) -> str:
    """An implementation's time and the most memory beside the inputs, or why there is none."""
    if found is None:
        return ""
    if found["status"] != "ok":
        return str(found["status"])
    memory = "" if not found["peak_mib"] else f", {found['peak_mib']:.3g} MiB"
    return seconds(found["time_us"]["p50"] / 1e6) + memory


def machine(comparisons: Sequence[Compared], shape: str) -> str:
    """Where these were measured: the newest, and each other machine and commit that some are of."""
    found: list[str] = []
    for last in sorted(map(any_of, comparisons), key=lambda r: str(r["run"]), reverse=True):
        threads, torch = last["threads"], last["versions"]["torch"]
        where = f"{last['device']}, {threads} thread{'s' * (threads != 1)}, torch {torch}"
        found.append(f"{where}, commit {last['commit']}, {last['run'][:10]}")
    return f"{'; in part '.join(dict.fromkeys(found))}; medians{shape}."


def panel(comparisons: Sequence[Compared], column: tuple[str, str], key: str, label: str) -> Panel:
    """Times of everyone in one dtype and pass, against one of the shape's sizes."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for compared in comparisons:
        for name, found in compared.items():
            if (found["dtype"], found["pass"]) == column and found["status"] == "ok":
                lines.setdefault(name, []).append((found["shape"][key], found["time_us"]["p50"] / 1e6))
    return Panel(f"{column[0]} {PASSES[column[1]]}", label, lines)


def aim_row(aim: str, measured: float | None, limit: float, least: bool = False) -> list[str]:
    """An aim, the figure, and whether it was reached."""
    if measured is None:
        return [aim, "not measured", ""]
    reached = measured >= limit if least else measured <= limit
    return [aim, f"{measured:.2f}", "yes" if reached else "**no**"]
