"""The command under real launchers, two CPU ranks: stopped, killed, resumed, on other ranks, with a full disk. A launch
takes half a minute of a core before its first step: where another one goes the same way, a test is a slow one."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.once import once
from tests.vtsum.samples import ROOT, free_port
from tests.vtsum.test_training_run import measures, names, words
from tests.vtsum.training_corpus import write_corpus
from vtsum.data.videoxum import VideoXumDataset
from vtsum.model import VTSum
from vtsum.training import checkpoints
from vtsum.training.train import main

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")

# 32 videos, 4 a step (2 ranks of 2), 3 epochs. No dropout: draws differ between numbers of ranks.
STEPS = 24
LONG = ["--max_epoch", "500", "--init_lr", "1e-3", "--model.text.dropout", "0"]
SHORT = ["--max_epoch", "3", "--batch_size", "2", "--model.text.dropout", "0", "--ckpt_freq", "0", "--print_freq", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_32", lambda folder: write_corpus(folder, videos=32))


def deepspeed(*arguments: str) -> list[str]:
    """DeepSpeed's own launcher; `--num_accelerators 2` counts processes where there is no GPU."""
    launcher = ["-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--log_level", "warning"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    return [sys.executable, *launcher, "--module", "vtsum.training.train", *arguments]


def torchrun(*arguments: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    return [sys.executable, *launcher, "-m", "vtsum.training.train", *arguments]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    return {**kept, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}


class Launched:
    """A command and every process below it, known by a word in their environment, whoever their parent is by now."""

    def __init__(self, command: list[str], log: Path, **options: Any) -> None:
        self.log = log
        self.mark = f"VTSUM_TEST_LAUNCH={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        marked = {**environment(), name: value}
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=marked, stdout=file, stderr=file, start_new_session=True, **options
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 240) -> int:
        return self.process.wait(seconds)

    def below(self) -> list[int]:
        """Its living processes."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "environ").read_bytes().split(b"\0")  # empty for one that waits to be reaped
                except OSError:
                    continue
                if self.mark.encode() in words:
                    found.append(int(entry.name))
        return found

    def until(self, words: str, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while words not in self.said():
            assert self.process.poll() is None, self.said()[-3000:]
            assert time.monotonic() < end, self.said()[-3000:]
            time.sleep(0.1)

    def until_gone(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while self.below():
            assert time.monotonic() < end, f"left behind: {self.below()}\n{self.said()[-3000:]}"
            time.sleep(0.2)

    def end(self) -> None:
        for pid in self.below():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Any]:
    started: list[Launched] = []

    def start(command: list[str], **options: Any) -> Launched:
        started.append(Launched(command, tmp_path / f"log{len(started)}", **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def compare(run: Path, reference: list[dict[str, Any]], tolerance: float) -> None:
    """Relative where a loss is above 1: at 13 neighbouring float32 numbers are 1e-6 apart, and ranks add in another
    order than one process does."""
    lines = measures(run)
    assert [line["step"] for line in lines] == [line["step"] for line in reference]
    for line, other in zip(lines, reference, strict=True):
        for name in ("loss", "loss_vsum", "loss_tsum", "lr"):
            assert line[name] == pytest.approx(other[name], rel=tolerance, abs=tolerance), (name, line["step"])


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What an undisturbed run measures: one process that takes the two ranks' passes one after the other."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(data, run, *SHORT, "--gradient_accumulation_steps", "2")) == 0
    return measures(run)


def until_step(launched: Launched, step: int) -> None:
    launched.until(f"step {step}/")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_no_rank_outlives_the_launcher(launch, data, tmp_path, number):
    """DeepSpeed's launcher leaves its ranks behind; ours notice, write a checkpoint and end."""
    run = tmp_path / "run"
    more = [*LONG, "--print_freq", "1", "--batch_size", "2", "--ckpt_freq", "0", "--deepspeed", "configs/ds_zero1.json"]
    launched = launch(deepspeed(*words(data, run, *more)))
    until_step(launched, 3)
    assert len(launched.below()) >= 4  # the launcher, its per-machine part, two ranks
    os.kill(launched.process.pid, number)
    launched.until_gone()
    (saved,) = names(run)
    assert int(saved.removeprefix("step-")) == len(measures(run))


def broken_copy(data: Path, folder: Path, kind: str) -> Path:
    """The corpus with the features of all videos broken but for the first one's, from which the rank reads their
    width: its readers meet the others."""
    shutil.copytree(data, folder)
    first = VideoXumDataset(data).video_ids[0]
    for path in (folder / "feat" / "blip").iterdir():
        if path.stem == first:
            continue
        if kind == "cut off":
            path.write_bytes(path.read_bytes()[:100])
        elif kind == "missing":
            path.unlink()
        else:
            np.savez(path, features=np.zeros((3, 32), np.float32))
    return folder


@pytest.mark.parametrize(
    ("kind", "workers", "by"),
    [
        ("cut off", "1", "python"),
        pytest.param("missing", "2", "python", marks=pytest.mark.slow),
        ("too short", "1", "python"),
        pytest.param("too short", "2", "deepspeed", marks=pytest.mark.slow),
    ],
)
def test_data_that_a_reader_cannot_read_ends_the_run(launch, data, tmp_path, kind, workers, by):
    """An interpreter that exits terminates its readers and waits for them: they must not ignore that."""
    broken = broken_copy(data, tmp_path / "broken", kind)
    arguments = words(broken, tmp_path / "run", "--num_workers", workers)
    command = [sys.executable, "-m", "vtsum.training.train", *arguments]
    if by == "deepspeed":
        command = deepspeed(*arguments, "--deepspeed", "configs/ds_zero1.json")
    launched = launch(command)
    status = launched.wait(60)
    launched.until_gone(5)
    assert status == 2 if by == "python" else status != 0
    named = {
        "cut off": "must be a whole npz file",
        "missing": "must exist",
        "too short": "must have as many frames as the labels",
    }
    assert named[kind] in launched.said()
    assert "Traceback" not in launched.said()


def test_a_stopped_run_goes_on_with_as_many_ranks_and_with_fewer(launch, data, tmp_path, whole):
    run = tmp_path / "run"
    arguments = words(data, run, *SHORT, "--deepspeed", "configs/ds_zero2.json")
    first = launch(torchrun(*arguments, "--num_workers", "1"))
    until_step(first, 5)
    assert len(first.below()) >= 3
    os.kill(first.process.pid, signal.SIGTERM)  # torchrun passes it on, to the readers of features too
    assert first.wait() != 0
    first.until_gone()
    stopped = len(measures(run))
    assert 5 <= stopped < STEPS
    assert names(run) == [f"step-{stopped:08d}"]
    compare(run, whole[:stopped], 1e-5)

    # A broken newer one, as a rank that is killed while writing leaves it.
    (run / "checkpoints" / f"step-{stopped + 1:08d}").mkdir()

    # Once with the same two ranks, from a copy, and once on a single one.
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    same = launch(torchrun(*arguments[:2], "--output_dir", str(copy), *arguments[4:], "--resume"))
    assert same.wait() == 0, same.said()[-3000:]
    assert "skipping" in same.said()
    compare(copy, whole, 1e-6)

    single = launch([sys.executable, "-m", "vtsum.cli", "train", *arguments, "--resume"])
    assert single.wait() == 0, single.said()[-3000:]
    assert "from 2 ranks to 1" in single.said()
    compare(run, whole, 1e-5)
    ours, theirs = (VTSum.from_pretrained(r / "model").state_dict() for r in (run, copy))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_more_ranks(launch, data, tmp_path, whole):
    run = tmp_path / "run"
    arguments = words(data, run, *SHORT, "--gradient_accumulation_steps", "2", "--deepspeed", "configs/ds_zero3.json")
    first = launch([sys.executable, "-m", "vtsum.cli", "train", *arguments])
    until_step(first, 4)
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.wait() == 143
    stopped = len(measures(run))
    more = launch(torchrun(*arguments, "--resume"))
    assert more.wait() == 0, more.said()[-3000:]
    assert f"going on after step {stopped}" in more.said()
    assert "from 1 ranks to 2" in more.said()
    compare(run, whole, 1e-5)


@pytest.mark.slow
def test_a_disk_full_on_one_rank_stops_all_and_spoils_nothing(launch, data, tmp_path):
    """No file may grow beyond a limit that the measures keep to and the optimizer's shards do not."""
    run = tmp_path / "run"
    arguments = words(data, run, *SHORT, "--ckpt_steps", "4", "--deepspeed", "configs/ds_zero1.json")
    limit = 64 * 1024

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    launched = launch(torchrun(*arguments), preexec_fn=full)
    assert launched.wait() != 0
    launched.until_gone()
    said = launched.said()
    assert "a checkpoint must fit into" in said
    assert "go on with --resume" in said
    assert names(run) == []
    assert len(measures(run)) == 4


def test_a_killed_rank_takes_the_others_down(launch, data, tmp_path):
    run = tmp_path / "run"
    more = [*LONG, "--print_freq", "1", "--batch_size", "2", "--ckpt_steps", "4"]
    launched = launch(deepspeed(*words(data, run, *more, "--deepspeed", "configs/ds_zero2.json")))
    until_step(launched, 6)
    for pid in launched.below():
        if b"--local_rank=1" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert launched.wait() != 0
    launched.until_gone()
    assert "another one is gone" in launched.said()
    assert "go on with --resume" in launched.said()
    found, _ = checkpoints.find(run)
    assert found.step % 4 == 0
    assert found.step >= 4


@pytest.mark.slow
def test_settings_that_do_not_go_together_are_told_once(launch, data, tmp_path):
    run = tmp_path / "run"
    launched = launch(torchrun(*words(data, run, *SHORT, "--optimizer", "SGD", "--deepspeed", "configs/ds_zero1.json")))
    assert launched.wait() != 0
    assert launched.said().count("optimizer must be AdamW with --deepspeed, got SGD") == 1
    assert not run.exists()
