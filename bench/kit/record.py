"""What every benchmark does: quantiles of its timings, the facts of the machine, one JSON line a measurement."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Implementations that stand for the rooflines, and ourselves.
COPY, PRODUCT, OURS = "copy", "product", "vtsum"
ROOT = Path(__file__).resolve().parents[2]
RESULTS, DOCS = ROOT / "bench" / "results", ROOT / "docs"


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)

    return {"p20": at(0.2), "p50": round(statistics.median(ordered), 3), "p80": at(0.8)}


def machine(packages: Sequence[str] = ("torch", "av", "numpy")) -> dict[str, Any]:
    """Where and with what this was measured."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "device": names[0] if names else platform.processor(),
        "threads": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "commit": _commit(),
    }


def environment(device: str, packages: Sequence[str]) -> dict[str, Any]:
    """`machine`, and what a computation on that device runs on."""
    import torch

    facts = machine(packages)
    facts["device_type"] = device
    facts["threads"] = torch.get_num_threads()
    if device == "cuda":
        facts["device"] = torch.cuda.get_device_name()
        facts["versions"]["cuda"] = torch.version.cuda
    else:
        import vtsum_kernels

        facts["cpu_level"] = vtsum_kernels.build_info()["cpu_level"]
    return facts


def run_name() -> str:
    """Names a run in its records: when it began, to the millisecond, for two may begin in one second."""
    return f"{datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')[:-3]}Z"


def _commit() -> str | None:
    """What git says, else VTSUM_COMMIT: a copy of the tree may have no history, and a machine no git."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        said = ""
    return said or os.environ.get("VTSUM_COMMIT") or None


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def append(path: Path, *lines: dict[str, Any]) -> None:
    """Add measurements to a file of JSON lines; they are on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + "".join(json.dumps(line) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Every measurement in a file of JSON lines, oldest first; none where there is no file.

    A line that an interruption cut off counts for nothing.
    """
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def comparison_key(record: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one comparison from another within a run: all that is the same for its implementations."""
    return record["case"], record["pass"], record["dtype"], record.get("layout"), *sorted(record["shape"].items())


def newest_comparisons(records: Sequence[dict[str, Any]], device_type: str) -> list[dict[str, dict[str, Any]]]:
    """Each comparison as it was last made on such a device: its records by name. Runs are never mixed in one."""
    comparisons: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    runs: dict[tuple[Any, ...], str] = {}
    for record in records:
        if record["device_type"] != device_type:
            continue
        key = comparison_key(record)
        if runs.get(key) != record["run"]:
            runs[key], comparisons[key] = record["run"], {}
        comparisons[key][record["name"]] = record
    return list(comparisons.values())
