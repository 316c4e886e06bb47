"""The benchmarks' commands: `make bench` runs every one there is, and who needs data sets says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bench.ops import OPS, benchmark, tables

ROOT = Path(__file__).resolve().parents[2]


def listed(variable: str) -> set[str]:
    found = re.search(rf"^{variable} := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return set(found[1].split())


def test_make_bench_runs_every_benchmark() -> None:
    shared: dict[str, set[str]] = {}
    for path in (ROOT / "bench" / "summary").glob("*.py"):
        if found := re.search(r"= parser\(__doc__, \"(\w+)\"(?:, shared=(\w+))?\)$", path.read_text(), re.MULTILINE):
            assert found[1] == path.stem
            shared.setdefault(found[2] or "False", set()).add(path.stem)
    lists = {"False": "MEASURED", "None": "MEASURED_ON_DATA_TOO", "True": "MEASURED_ON_DATA"}
    assert shared == {needed: listed(name) for needed, name in lists.items()}
    printed = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True).stdout
    assert f"for op in {' '.join(sorted(OPS))};" in printed


def test_every_op_s_folder_is_registered_and_whole() -> None:
    assert set(OPS) == {path.parent.name for path in (ROOT / "bench" / "ops").glob("*/cases.py")}
    for op in OPS:
        assert benchmark(op).name == op
        assert benchmark(op).gpu
        assert benchmark(op).tiny
        assert tables(op).TABLES


def test_who_needs_data_sets_says_so() -> None:
    command = [sys.executable, "-m", "bench.summary.event_segmentation"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("error: the following arguments are required: --shared\n")
