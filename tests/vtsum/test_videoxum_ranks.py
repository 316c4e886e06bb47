"""Distributed evaluation: the figures of one process, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vtsum.samples import free_port
from tests.vtsum.videoxum_corpus import VIDEOS, write_corpus, write_model

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["evaluate", "--caption_tokenizer", "plain", "--batch_size", "2", "--resamples", "50", "--device", "cpu"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ranks")
    corpus, model = write_corpus(folder), write_model(folder / "model")
    return [*WORDS, "--data", str(corpus), "--checkpoint", str(model)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    # Without Java METEOR is left out, which takes seconds to start.
    empty = tmp_path / "empty"
    empty.mkdir()
    path = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    keep = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "JAVA_HOME")}
    return keep | {"PATH": str(empty), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of a test; whatever it leaves running is ended with its group."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(arguments: list[str], environment: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def comparable(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    processes = data.pop("timings")["processes"]
    return data | {"processes": processes}


def test_two_processes_give_the_figures_of_one(words, environment, tmp_path, started):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "vtsum.cli"]
    started.append(start([*launcher, *words, "-o", "two.json"], environment, tmp_path))
    started.append(start(["-m", "vtsum.cli", *words, "-o", "one.json"], environment, tmp_path))
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    two, one = comparable(tmp_path / "two.json"), comparable(tmp_path / "one.json")
    assert (two.pop("processes"), one.pop("processes")) == (2, 1)
    assert two == one, "to the last digit"
    assert len({video["video_id"] for video in two["videos"]}) == len(two["videos"]) == VIDEOS
    assert outputs[0][0].replace("two.json", "one.json") == outputs[1][0], "one process prints, and the same"
    assert sorted(p.name for p in tmp_path.glob("*.json*")) == ["one.json", "two.json"]


DIES = """
import os, signal, sys
from vtsum.cli import main
from vtsum.evaluation import videoxum_run
run = videoxum_run.Job.run
def dies(job, number):
    if os.environ["RANK"] == "1" and number > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(job, number)
videoxum_run.Job.run = dies
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_dies_hangs_nobody_and_loses_little(words, environment, tmp_path, started):
    common = environment | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for rank in range(2):
        own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(start(["-c", DIES, *words, "-o", "e.json"], own, tmp_path))
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [2, -signal.SIGKILL], errors
    assert "vtsum: evaluate: all processes of the run must be there, one has ended" in errors[0]
    assert "Traceback" not in errors[0]
    parts = {path.name: path.read_text().count('"batch":') for path in tmp_path.glob("e.json*")}
    assert parts == {"e.json.part-0.jsonl": 3, "e.json.part-1.jsonl": 1}
    # One process alone finishes what two began.
    process = start(["-m", "vtsum.cli", *words, "-o", "e.json"], environment, tmp_path)
    started.append(process)
    output, errors_of_last = process.communicate(timeout=300)
    assert process.returncode == 0, errors_of_last
    assert "F1" in output
    assert [p.name for p in tmp_path.glob("e.json*")] == ["e.json"]
    assert len(json.loads((tmp_path / "e.json").read_text())["videos"]) == VIDEOS
