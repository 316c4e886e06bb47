"""The table and the picture of a memory bank's slots in training, from their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, records, table

LABELS = {"published": "as published", "vtsum": "VTSum's"}


def newest(lines: Records) -> dict[str, list[dict[str, Any]]]:
    """The lines of each form's last run, by epoch."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in lines:
        if record["epoch"] == 0:
            runs[record["form"]] = []
        runs[record["form"]].append(record)
    return runs


def liveness(lines: Records | None = None) -> str:
    """Both forms at the start and at the end."""
    runs = newest(records("memory_liveness", lines))
    rows = [
        [
            f"{LABELS[form]}, epoch {line['epoch']}",
            f"{line['slots_a_frame']:.1f} of {line['slots']}",
            f"{line['slots_in_use']:.1f}",
            str(line["dead_slots"]),
            f"{line['follows_frame']:.2%}",
            f"{line['tau']:.3f}",
        ]
        for form in LABELS
        if form in runs
        for line in (runs[form][0], runs[form][-1])
    ]
    head = ["bank", "slots a frame reads", "slots in use", "dead slots", "follows the frame", "tau"]
    return table(head, rows)


def draw(path: Path, lines: Records) -> None:
    figure, axes = pyplot().subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    panels = (
        ("slots_a_frame", "slots a frame reads", "linear"),
        ("dead_slots", "dead slots", "linear"),
        ("follows_frame", "share of the read that follows the frame", "log"),
    )
    runs = newest(lines)
    slots = max(line["slots"] for run in runs.values() for line in run)
    for axis, (name, title, scale) in zip(axes, panels, strict=True):
        for form, run in runs.items():
            axis.plot([line["epoch"] for line in run], [line[name] for line in run], label=LABELS[form])
        axis.set(title=title, xlabel="epoch", yscale=scale)
        if scale == "linear":
            axis.set_ylim(-0.02 * slots, 1.05 * slots)
        axis.grid(alpha=0.3)
    axes[0].legend()
    save(figure, path)


TABLES: Tables = {"memory_liveness": liveness}
