"""The measure of waiting and padding: on a tiny corpus, in this process, it is what it says."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

from bench.kit.record import read
from bench.kit.tables import NOTHING
from bench.summary import training_data
from bench.summary.tables import training_data as report
from vtsum.training.train import main


def test_the_ways_are_the_same_training_and_recorded(tmp_path, monkeypatch):
    def run(command: list[str], **options: Any) -> Any:
        return SimpleNamespace(returncode=main(command[3:]), stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(training_data, "machine", lambda packages: {"device": "Some CPU"})
    words = ["--size", "small", "--videos", "8", "--batch", "4", "--frames", "4", "40", "--workers", "0"]
    monkeypatch.setattr("sys.argv", ["training_data", *words, "--results", str(tmp_path / "r.jsonl")])
    training_data.main()
    found = {r["way"]: r for r in read(tmp_path / "r.jsonl")}
    assert list(found) == list(training_data.WAYS)
    for record in found.values():
        assert record["steps"] == 2
        assert record["cpu_s"] > 0
        assert 0 <= record["waiting"] < 1
    assert found["padded"]["padding"] > found["padded, by length"]["padding"] > 0
    for way in ("packed", "packed, by length"):
        assert found[way]["loss_apart"] < 1e-5
        assert found[way]["padding"] == 0


def test_its_table_has_the_newest_record_of_each_way():
    base = {
        "size": "base",
        "shape": {"frames": [200, 2000], "C": 768, "B": 16, "tokens": 32},
        "workers": 2,
        "steps": 2,
        "device": "Some CPU",
        "threads": 2,
        "load_before": 5.2,
        "versions": {"torch": "2.13.0"},
        "commit": "abc1234",
        "waiting": 0.00123,
        "loss_apart": None,
        "padding": 0.4,
    }
    lines = [{**base, "way": "padded", "step_s": step, "cpu_s": 90.0} for step in (70.0, 60.0)]
    lines.append({**base, "way": "packed", "step_s": 50.0, "cpu_s": 80.0, "padding": 0.0, "loss_apart": 2.3e-7})
    rows = report.training_data(lines).splitlines()
    assert rows[2] == "| padded | 90 s | 60 s | 0.12% | 40% |  |"
    assert rows[3] == "| packed | 80 s | 50 s | 0.12% | 0% | at most 2e-07 apart |"
    assert report.training_data([{**lines[-1], "loss_apart": 0.0}]).splitlines()[2].endswith("| equal in float32 |")
    assert report.training_data([{**lines[0], "size": "small"}]) == NOTHING
