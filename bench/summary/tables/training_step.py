"""The table of the training step, from its records."""

from __future__ import annotations

import functools
from typing import Any

from bench.kit.plot import seconds
from bench.kit.tables import Records, Tables, records, table

FORMS = {
    "vtsum": "VTSum",
    "windowed": "VTSum, windowed temporal transformer",
    "dense": "the original's dense masks",
}
HEAD = ["frames x videos", "attention", "step", "peak memory", "temporal transformer", "local attention alone"]


def training_step(device: str, lines: Records | None = None) -> str:
    """Time and memory of a step, and the local path, by form and length; the newest record of each."""
    lines = [r for r in records("training_step", lines) if r["device_type"] == device and r["size"] == "base"]
    newest = {(r["shape"]["T"], r["form"]): r for r in lines}
    rows = [
        [f"{frames} x {found['shape']['B']}", label, *_cells(found, newest.get((frames, "dense")))]
        for frames in sorted({key[0] for key in newest})
        for form, label in FORMS.items()
        if (found := newest.get((frames, form))) is not None
    ]
    last = next((r for r in reversed(newest.values()) if r["status"] == "ok"), None)
    where = last and (
        f"{last['device']}, {last['threads']} threads, torch {last['versions']['torch']}, {last['dtype']}, "
        f"commit {last['commit']}; {last['parameters'] / 1e6:.0f} million weights."
    )
    return table(HEAD, rows, where or "")


def _cells(found: dict[str, Any], dense: dict[str, Any] | None) -> list[str]:
    if found["status"] != "ok":
        return [str(found["status"]), "", "", ""]
    local = seconds(found["local_attention_s"])
    if dense is not None and dense["status"] == "ok" and found["form"] != "dense":
        local += f" ({dense['local_attention_s'] / found['local_attention_s']:.0f} times as fast)"
    return [seconds(found["step_s"]), f"{found['peak_mib']:,.0f} MiB", seconds(found["temporal_s"]), local]


TABLES: Tables = {"training_step_cpu": functools.partial(training_step, "cpu")}
