"""Batches on a Ray cluster: a real one, of this machine. What holds of many videos at all is test_batch.py's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import vtsum
from tests import forked
from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.test_batch import OPTIONS, _clip, _entries, _killed_after, _whole
from vtsum.batches.ray_cluster import threads_each
from vtsum.errors import VTSumError
from vtsum.shown import counted

RAY = ["--executor", "ray", "--workers", 2]
COMMAND = [sys.executable, "-m", "vtsum.cli"]


def _run(*words: object):
    return forked.run([*COMMAND, *map(str, words)], env=ENVIRONMENT, timeout=300)


def _clusters() -> set[int]:
    """The processes of Ray's that run on this machine."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            program = (process / "cmdline").read_bytes().partition(b"\0")[0]
            if program.endswith((b"/raylet", b"/gcs_server")) or program.startswith(b"ray::"):
                found.add(int(process.name))
    return found


def test_one_bad_file_stops_nobody(tmp_path):
    """One that kills its worker is tried twice, one that hangs is given up; the next run does nothing again."""
    place, out, before = tmp_path / "in", tmp_path / "out", _clusters()
    for name, level in {"a": 100, "b": 120, "white": 255, "black": 0, "z": 90}.items():
        _clip(place / f"{name}.mp4", level)
    (place / "no.mp4").write_text("no video")
    done = _run("batch", *OPTIONS, place, "-o", out, *RAY, "--limit", "50s")
    assert done.returncode == 2, done
    told = {line.split(": ", 2)[1]: line for line in done.stderr.splitlines()}
    assert len(told) == 3, done.stderr
    assert "must be a video file" in told[str(place / "no.mp4")]
    assert "its worker was lost, for the second time" in told[str(place / "white.mp4")]
    assert "took longer than the limit of 50 s" in told[str(place / "black.mp4")]
    assert done.stdout.splitlines() == [f"3 videos summarised, 3 failed, in {out}"]
    assert _whole(out) == {"a", "b", "z"}
    begun = [entry["source"] for entry in _entries(out) if entry["status"] == "begun"]
    assert len(begun) == len(set(begun)) == 6
    assert _clusters() <= before
    for name in ("white", "black", "no"):
        (place / f"{name}.mp4").unlink()
    again = _run("batch", *OPTIONS, place, "-o", out, *RAY)
    assert (again.returncode, again.stderr) == (0, ""), again
    assert again.stdout.startswith("0 videos summarised, 3 there already")


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_leaves_nobody(tmp_path):
    out, before = tmp_path / "out", _clusters()
    videos = [_clip(tmp_path / f"{n}.mp4", 60 + 10 * n) for n in range(5)]
    assert _killed_after(out, [*videos, "-o", out, *RAY], 2, signal.SIGKILL) == -9
    made = {path.name: path.stat().st_ino for path in out.iterdir() if path.is_dir() and path.name[0] != "."}
    again = _run("batch", *OPTIONS, *videos, "-o", out, *RAY, "--json")
    assert again.returncode == 0, again
    rows = {Path(row["output"]).name: row["status"] for row in json.loads(again.stdout)}
    assert set(rows.values()) <= {"done", "skipped"}
    assert all(rows[name] == "skipped" for name in made)
    assert all((out / name).stat().st_ino == inode for name, inode in made.items())
    assert _whole(out) == {f"{n}" for n in range(5)}
    until = time.monotonic() + 150  # Ray's own agents take a minute to notice
    while not _clusters() <= before:
        assert time.monotonic() < until, "Ray's processes outlive the driver that was killed"
        time.sleep(0.5)


@pytest.mark.slow
def test_a_cluster_without_machines_is_not_waited_for(tmp_path):
    """Ray's own agents killed, with whom its machine leaves; it was waited for without end."""
    out, before = tmp_path / "out", _clusters()
    videos = [_clip(tmp_path / f"{n}.mp4", level) for n, level in enumerate((90, 120, 0))]  # the last takes a minute
    words = [*COMMAND, "batch", *OPTIONS, *videos, "-o", out, *RAY]
    batch = subprocess.Popen([*map(str, words)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not any(entry["source"].endswith("2.mp4") for entry in _entries(out)):
        assert time.monotonic() < until
        time.sleep(0.2)
    for pid in _clusters() - before:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(pid, signal.SIGKILL)
    assert batch.communicate(timeout=100)[1].splitlines()[-1:] == [
        "vtsum: batch: the cluster must have a machine for a worker, all were lost"
    ]
    assert batch.returncode == 2
    assert _clusters() <= before
    assert _whole(out) <= {"0", "1"}
    again = _run("batch", *OPTIONS, *videos[:2], "-o", out, *RAY)
    assert (again.returncode, _whole(out)) == (0, {"0", "1"}), again


@pytest.mark.slow
def test_a_disk_that_is_full_costs_the_videos_it_has_no_room_for(tmp_path):
    """Each is told, none is half there, and with room the next run does those alone. Needs root: a disk of memory."""
    disk, out = tmp_path / "disk", tmp_path / "disk" / "out"
    videos = [_clip(tmp_path / f"{n}.mp4", 60 + 10 * n) for n in range(5)]
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "none", disk], check=True)
    try:
        full = _run("batch", *OPTIONS, *videos, "-o", out, *RAY)
        assert full.returncode == 2, full
        told = full.stderr.splitlines()
        assert 0 < len(told) < 5
        assert all(line.endswith("the disk is full") for line in told), told
        made = _whole(out)
        assert len(made) == 5 - len(told)
        assert sorted(path.name for path in out.iterdir()) == sorted([*made, "batch.jsonl"])
        subprocess.run(["mount", "-o", "remount,size=1M", disk], check=True)
        again = _run("batch", *OPTIONS, *videos, "-o", out, *RAY)
        assert (again.returncode, again.stderr) == (0, ""), again
        assert again.stdout.startswith(f"{counted(len(told), 'video')} summarised, {len(made)} there already")
        assert _whole(out) == {f"{n}" for n in range(5)}
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_cluster_of_ours_takes_nothing_from_others(tmp_path):
    """It listens on the net, and whoever may speak to it has it run what they like."""
    before = _clusters()
    video = _clip(tmp_path / "black.mp4", 0)  # takes a minute
    words = [*COMMAND, "batch", *OPTIONS, video, "-o", tmp_path / "o", "--executor", "ray"]
    batch = subprocess.Popen([*map(str, words)], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not any(entry["status"] == "begun" for entry in _entries(tmp_path / "o")):
            assert time.monotonic() < until
            time.sleep(0.2)
        found = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in _clusters() - before]
        (address,) = {at[1] for words in found if (at := re.search(r"--gcs-address=([\d.]+:\d+)", words))}
        speak = f"import ray; ray.init(address={address!r}, log_to_driver=False)"
        done = forked.run([sys.executable, "-c", speak], env=ENVIRONMENT, timeout=120)
        assert done.returncode != 0
        assert "AuthenticationError" in done.stderr, done.stderr[-2000:]
    finally:
        batch.terminate()
        batch.wait(90)


@pytest.mark.slow
def test_features_are_extracted_by_actors(tmp_path):
    for name in ("a", "b"):
        _clip(tmp_path / "in" / f"{name}.mp4", 100)
    words = ["extract", tmp_path / "in", "-o", tmp_path / "feats", *RAY]
    done = _run(*words)
    assert done.returncode == 0, done
    assert done.stdout.startswith("2 videos encoded; ")
    assert {"a.npz", "b.npz"} <= set(os.listdir(tmp_path / "feats"))
    assert _run(*words).stdout.startswith("0 videos encoded, 2 there already")


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "each", "threads"),
    [
        ([8], [0], 1, 0, 8),
        ([8], [0], 3, 0, 2),
        ([3, 3], [0, 0], 3, 0, 1),
        ([3, 3], [0, 0], 2, 0, 3),
        ([16, 16], [2, 0], 2, 1, 8),
        ([16, 16], [1, 1], 2, 1, 16),
        ([16], [1], 4, 0.25, 4),
        ([16], [1], 3, 0.3, 5),
    ],
)
def test_workers_have_all_processors_and_fit(cpus, gpus, workers, each, threads):
    nodes = [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in zip(cpus, gpus, strict=True)]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    assert threads_each("batch", [*nodes, dead], workers, each) == threads


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"executor": "slurm"}, "executor must be local or ray, got 'slurm'"),
        ({"gpus_per_worker": 1}, "gpus_per_worker must be left out but with executor ray, got 1"),
        ({"executor": "ray", "gpus_per_worker": -1}, "gpus_per_worker must be a part of one or a whole number, got -1"),
        ({"executor": "ray", "gpus_per_worker": 1.5}, "must be a part of one or a whole number, got 1.5"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, wrong, reason):
    with pytest.raises(VTSumError, match=reason):
        vtsum.batch([tmp_path], tmp_path / "o", **wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpus", "workers", "reason"),
    [
        ("1", 1, "gpus_per_worker must be such that the cluster's GPUs are enough for 1 workers, got 1 with 0 GPUs"),
        ("0", 999, "workers must be at most the processors of the cluster, "),
    ],
)
def test_what_the_cluster_does_not_have(tmp_path, gpus, workers, reason):
    video = _clip(tmp_path / "a.mp4", 100)
    words = ["--executor", "ray", "--workers", workers, "--gpus-per-worker", gpus]
    done = _run("batch", *OPTIONS, video, "-o", tmp_path / "o", *words)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith(f"vtsum: batch: {reason}"), done.stderr
    assert done.stderr.count("\n") == 1
