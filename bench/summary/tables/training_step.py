"""The table of the training step, from its records."""

from __future__ import annotations

from typing import Any

from bench.kit.plot import seconds
from bench.kit.record import RESULTS, read
from bench.kit.tables import table

FORMS = {
    "vtsum": "VTSum",
    "windowed": "VTSum, windowed temporal transformer",
    "dense": "the original's dense masks",
}
HEAD = ["frames x videos", "attention", "step", "peak memory", "temporal transformer", "local attention alone"]
NOTHING = "Not measured yet."


def training_step(device: str, lines: list[dict[str, Any]] | None = None) -> str:
    """Time and memory of a step, and the local path, by form and length; the newest record of each."""
    lines = read(RESULTS / "training_step.jsonl") if lines is None else lines
    newest = {(r["shape"]["T"], r["form"]): r for r in lines if r["device_type"] == device and r["size"] == "base"}
    if not newest:
        return NOTHING
    rows = []
    for frames in sorted({key[0] for key in newest}):
        for form, label in FORMS.items():
            if (record := newest.get((frames, form))) is not None:
                rows.append(
                    [f"{frames} x {record['shape']['B']}", label, *_cells(record, newest.get((frames, "dense")))]
                )
    last = next((r for r in reversed(newest.values()) if r["status"] == "ok"), None)
    if last is None:
        return table(HEAD, rows)
    where = (
        f"{last['device']}, {last['threads']} threads, torch {last['versions']['torch']}, {last['dtype']}, "
        f"commit {last['commit']}; {last['parameters'] / 1e6:.0f} million weights."
    )
    return f"{table(HEAD, rows)}\n\n{where}"


def _cells(record: dict[str, Any], dense: dict[str, Any] | None) -> list[str]:
    if record["status"] != "ok":
        return [str(record["status"]), "", "", ""]
    local = seconds(record["local_attention_s"])
    if dense is not None and dense["status"] == "ok" and record["form"] != "dense":
        local += f" ({dense['local_attention_s'] / record['local_attention_s']:.0f} times as fast)"
    return [seconds(record["step_s"]), f"{record['peak_mib']:,.0f} MiB", seconds(record["temporal_s"]), local]
