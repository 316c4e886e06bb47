"""The table and the picture of a memory bank's slots in training, from their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, formatted, records

LABELS = {"published": "as published", "vtsum": "VTSum's"}


LIVENESS = {
    "bank": "{label}, epoch {epoch}",
    "slots a frame reads": "{slots_a_frame:.1f} of {slots}",
    "slots in use": "{slots_in_use:.1f}",
    "dead slots": "{dead_slots}",
    "follows the frame": "{follows_frame:.2%}",
    "tau": "{tau:.3f}",
}


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
    ends = [line for form in LABELS if form in runs for line in (runs[form][0], runs[form][-1])]
    return formatted(LIVENESS, [{**line, "label": LABELS[line["form"]]} for line in ends])


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
