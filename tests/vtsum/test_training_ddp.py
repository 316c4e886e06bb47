"""Two ranks by torchrun alone, without DeepSpeed: the same training as one process, and how it ends when it fails."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from tests import forked
from tests.vtsum.samples import ROOT
from tests.vtsum.test_training_launch import (
    LONG,
    SHORT,
    STEPS,
    broken_copy,
    compare,
    data,
    environment,
    launch,
    torchrun,
    until_step,
)
from tests.vtsum.test_training_run import measures, names, words
from vtsum.model import VTSum
from vtsum.training import train
from vtsum.training.resuming import claim
from vtsum.training.settings import TrainSettings
from vtsum.training.train import main

__all__ = ["data", "launch"]  # fixtures


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that takes the two ranks' passes one after the other."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(data, run, *SHORT, "--gradient_accumulation_steps", "2")) == 0
    return run


def test_two_ranks_train_as_one_process_does_stopped_or_not(launch, data, tmp_path, whole):
    """Two passes a rank, of which only the last one sends gradients."""
    run, reference = tmp_path / "run", measures(whole)
    arguments = words(data, run, *SHORT, "--batch_size", "1", "--gradient_accumulation_steps", "2")
    first = launch(torchrun(*arguments, "--num_workers", "1"))
    until_step(first, 5)
    os.kill(first.process.pid, signal.SIGTERM)  # torchrun passes it on
    assert first.wait() != 0
    first.until_gone()
    stopped = len(measures(run))
    assert 5 <= stopped < STEPS
    assert names(run) == [f"step-{stopped:08d}"]
    compare(run, reference[:stopped], 1e-5)

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    same = launch(torchrun(*arguments[:2], "--output_dir", str(copy), *arguments[4:], "--resume"))
    assert same.wait() == 0, same.said()[-3000:]
    assert main([*arguments, "--resume"]) == 0  # and on a single one
    for each in (copy, run):
        compare(each, reference, 1e-5)
        ours, theirs = (VTSum.from_pretrained(r / "model").state_dict() for r in (each, whole))
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(launch, data, tmp_path):
    run = tmp_path / "run"
    launched = launch(torchrun(*words(data, run, *LONG, "--print_freq", "1", "--batch_size", "2", "--ckpt_steps", "4")))
    until_step(launched, 6)
    for pid in launched.below():
        if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)
    assert launched.wait() != 0
    launched.until_gone()
    assert names(run)
    assert "another one is gone" in launched.said()
    assert "go on with --resume" in launched.said()


TOLD = {
    "features": "must be a whole npz file",
    "annotations": "train_videoxum.json: entry 0: ",
    "folder": "output_dir must be one training's at a time",
}


@pytest.mark.parametrize(
    "where", ["features", *(pytest.param(name, marks=pytest.mark.slow) for name in ("annotations", "folder"))]
)
def test_a_mistake_is_one_line_of_each_rank_and_status_2(launch, data, tmp_path, where):
    """One that a rank alone finds, the other ranks tell as well; what all find before they meet, the first one of the
    machine tells for all."""
    broken, run = broken_copy(data, tmp_path / "broken", "cut off"), tmp_path / "run"
    if where == "annotations":
        (broken / "anno" / "train_videoxum.json").write_text("[{}]")
    run.mkdir()
    used = claim(run, TrainSettings(resume=True)) if where == "folder" else None
    command = torchrun(*words(broken, run, "--num_workers", "1"))
    command[3:3] = ["--log-dir", str(tmp_path / "logs"), "--redirects", "3"]
    launched = launch(command)
    assert launched.wait(90) != 0
    launched.until_gone(10)
    assert launched.said().count("exitcode  : 2") >= 1, launched.said()
    said = {path.parent.name: path.read_text() for path in (tmp_path / "logs").rglob("stderr.log")}
    assert set(said) == {"0", "1"}
    for rank, text in said.items():
        lines = text.splitlines()
        assert len(lines) == (where != "annotations" or rank == "0"), text
        assert all(line.startswith("vtsum: ") and line.endswith(f"(rank {rank})") for line in lines)
    assert any(TOLD[where] in text for text in said.values()), said
    if used is not None:
        assert "another one is gone" in said["1"]
        used.close()


def test_ranks_that_nobody_launched_are_told(data, tmp_path):
    command = [sys.executable, "-m", "vtsum.training.train", *words(data, tmp_path / "run")]
    lonely = {**environment(), "WORLD_SIZE": "2"}
    done = forked.run(command, cwd=ROOT, env=lonely)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "2 processes must find each other, as torchrun has them do, got: " in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_rank_that_nobody_ended_speaks_for_itself(data, tmp_path, monkeypatch, capfd):
    """The others' first rank may not have found what this one has."""
    monkeypatch.setattr(train, "_FIRST_SPEAKS_SECONDS", 0.01)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["train", *words(data, tmp_path / "run", "--batch_size", "none")])
    assert train._command() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "batch_size" in line
    assert line.endswith("(rank 1)")
