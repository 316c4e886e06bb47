"""The table of what a training waits for and what padding costs, from its records."""

from __future__ import annotations

from bench.kit.plot import seconds
from bench.kit.tables import Records, Tables, records, table

WAYS = ("padded", "packed", "padded, by length", "packed, by length")
HEAD = [
    "videos of a step",
    "processor's time a step",
    "clock's",
    "waiting for data",
    "padding",
    "losses and padded ones",
]


def training_data(lines: Records | None = None) -> str:
    """A step's time and what it waits, by the way its videos are laid out; the newest record of each."""
    newest = {r["way"]: r for r in records("training_data", lines) if r["size"] == "base"}
    rows = [
        [
            way,
            seconds(r["cpu_s"]),
            seconds(r["step_s"]),
            f"{100 * r['waiting']:.2f}%",
            f"{100 * r['padding']:.0f}%",
            _apart(r["loss_apart"]),
        ]
        for way in WAYS
        if (r := newest.get(way)) is not None
    ]
    if not rows:
        return table(HEAD, rows, "")
    last = list(newest.values())[-1]
    shape, (least, most) = last["shape"], last["shape"]["frames"]
    return table(
        HEAD,
        rows,
        f"{shape['B']} videos a step of {least} to {most} frames, width {shape['C']}, texts of {shape['tokens']} "
        f"tokens, {last['workers']} reading processes, {last['steps']} steps each; waiting: from the second step on. "
        f"The clock counts other work on the machine (load {last['load_before']} before), the processor's time hardly. "
        f"{last['device']}, {last['threads']} threads, torch {last['versions']['torch']}, float32, commit "
        f"{last['commit']}. `python -m bench.summary.training_data`.",
    )


def _apart(losses: float | None) -> str:
    if losses is None:
        return ""
    return f"at most {losses:.0e} apart" if losses else "equal in float32"


TABLES: Tables = {"training_data": training_data}
