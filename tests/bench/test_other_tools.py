"""The benchmark beside other tools: what is run, what is measured of it, and its table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.kit import record
from bench.summary import other_tools, summarize
from bench.summary.tables import pipeline
from tests.vtsum.clips import write_clip

MAKE = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2] + '/one.mp4'); shutil.copy(sys.argv[1], sys.argv[2])"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    import numpy as np

    return write_clip(tmp_path / "v.mp4", [n / 5 for n in range(10)], lambda n, _: np.zeros((32, 32, 3), np.uint8))


def test_only_tools_that_are_there_are_run() -> None:
    ours = other_tools.commands("v.mp4", "python", None, None)
    assert [words[:4] for words in ours.values()] == [["python", "-m", "vtsum.cli", "summarize"]] * 2
    everything = other_tools.commands("v.mp4", "python", "/a/python", "/b/python")
    assert [words[0] for words in everything.values()] == ["python"] * 2 + ["/a/python"] * 2 + ["/b/python"] * 2
    assert all("v.mp4" in words and any("{out}" in word for word in words) for words in everything.values())


def test_a_job_is_measured_by_what_its_process_takes_and_makes(video: Path) -> None:
    jobs = {"copy twice": [sys.executable, "-c", MAKE, str(video), "{out}"]}
    (found,) = other_tools.measured(video, jobs, 2)
    assert found["made_s"] == pytest.approx(2 * other_tools.seconds_of(video), abs=0.1)
    assert 0 < found["cpu_s"]["p50"] < 60
    with pytest.raises(SystemExit, match="ended with 3"):
        list(other_tools.measured(video, {"fails": [sys.executable, "-c", "raise SystemExit(3)"]}, 1))


def test_the_table_shows_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert pipeline.other_tools() == "Not measured yet."
    for commit, jobs in (("old", ["gone"]), ("new", ["VTSum", "another"])):
        for job in jobs:
            line = {"commit": commit, "job": job, "device": "a CPU", "threads": 2, "load_before": 0.5, "repeats": 2}
            line |= {"tools": {"one": "1.0", "two": None}, "shape": {"width": 64, "height": 48, "seconds": 600.0}}
            line |= {"job_s": {"p50": 12.4}, "cpu_s": {"p50": 20.0}, "made_s": 89.8}
            record.append(tmp_path / "other_tools.jsonl", line)
    found = pipeline.other_tools()
    assert "| VTSum | 12 s | 20 s | 90 s |" in found
    assert "| another |" in found
    assert "gone" not in found
    assert "one 1.0. a CPU" in found


def test_it_runs_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summarize, "SIZE", (64, 48))
    monkeypatch.setattr(summarize, "FPS", 5)
    monkeypatch.setattr(
        other_tools, "commands", lambda video, own, *others: {"copy": [own, "-c", MAKE, video, "{out}"]}
    )
    monkeypatch.setattr("sys.argv", ["x", "--minutes", "1", "--results", str(tmp_path / "r.jsonl")])
    other_tools.main()
    (line,) = record.read(tmp_path / "r.jsonl")
    assert line["op"] == "other_tools"
    assert line["made_s"] == pytest.approx(2 * line["shape"]["seconds"], abs=0.2)
