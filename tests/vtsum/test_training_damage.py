"""Checkpoints whose content changed, disks that fill up, two trainings in one folder, runs made longer."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.once import once
from tests.vtsum.hostile import ENVIRONMENT, ROOT, refused
from tests.vtsum.test_nothing_is_lost import content
from tests.vtsum.test_training_run import measures, words
from tests.vtsum.training_corpus import write_corpus
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.training import checkpoints
from vtsum.training.resuming import claim
from vtsum.training.settings import TrainSettings
from vtsum.training.train import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_16", write_corpus)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(run: Path) -> None:
        assert main(words(data, run)) == 0

    return once(tmp_path_factory, "whole_run", make)


def overwrite(path: Path, at: int = 3000, count: int = 5000) -> None:
    """Zeros in the middle, as a bad disk leaves them: the size stays, and so does what a zip's directory says."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes(count))


@pytest.mark.parametrize("name", ["state.pt", "rng-00000.pt"])
def test_a_checkpoint_of_changed_content_is_passed_over(data, whole, tmp_path, capsys, name):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    overwrite(run / "checkpoints" / "step-00000008" / name)
    assert main(words(data, run, "--resume")) == 0
    said = capsys.readouterr().err
    assert f"step-00000008: {name} is not what was written, by its SHA-256" in said
    assert "going on after step 4" in said
    assert measures(run) == measures(whole)


def test_all_damaged_is_refused_and_nothing_overwritten(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    overwrite(run / "checkpoints" / "step-00000008" / "state.pt")
    overwrite(run / "checkpoints" / "step-00000004" / "state.pt", count=1)
    (run / "checkpoints" / "step-00000004" / checkpoints.MARKER).write_text("{")
    shutil.rmtree(run / "model")
    before = content(run)
    with pytest.raises(
        VTSumError, match=f"got none to go on with, .* what is there; move {run} away or give another --output_dir"
    ):
        main(words(data, run, "--resume"))
    assert content(run) == before
    with claim(run, TrainSettings(resume=True)):  # another is told first: it may be at work on this
        refused("train", *words(data, run, "--resume"), names=Path("one training's at a time"))
    assert content(run) == before


def test_what_may_not_be_read_is_not_called_damaged(data, whole, tmp_path, capsys, monkeypatch):
    """The reason was another than the true one."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "model")

    def denied(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(checkpoints, "_sha256", denied)  # as for all but root
    with pytest.raises(VTSumError, match="got none to go on with"):
        main(words(data, run, "--resume"))
    told = capsys.readouterr().err
    assert "cannot be read: Permission denied" in told
    assert "damaged" not in told


def test_checkpoints_from_before_hashes_are_taken_by_their_sizes(data, whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for marker in run.glob(f"checkpoints/*/{checkpoints.MARKER}"):
        facts = json.loads(marker.read_text())
        assert set(facts["sha256"]) == set(facts["files"]) == {"state.pt", "rng-00000.pt"}
        del facts["sha256"]
        marker.write_text(json.dumps(facts))
    assert main(words(data, run, "--resume")) == 0
    assert "going on after step 8" in capsys.readouterr().err
    marker.write_text(json.dumps({**facts, "sha256": {"state.pt": "0"}}))
    assert "does not go with its files" in " ".join(checkpoints.find(run)[1] + checkpoints.find(run)[1])


def test_a_finished_run_is_extended(data, tmp_path, capsys):
    """With a constant rate it is the run that was longer from the start, to the last bit."""
    constant = ["--schedule", "constant"]
    run, longer = tmp_path / "run", tmp_path / "longer"
    assert main(words(data, run, *constant, "--max_epoch", "1")) == 0
    assert main(words(data, longer, *constant, "--max_epoch", "3")) == 0
    assert main(["--resume", "--output_dir", str(run), "--max_epoch", "3"]) == 0
    said = capsys.readouterr().err
    assert "max_epoch is 3 now, not 1: the learning rate goes on as in a run of 3 epochs" in said
    assert measures(run) == measures(longer)
    ours, theirs = (VTSum.from_pretrained(folder / "model").state_dict() for folder in (run, longer))
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert "max_epoch: 3" in (run / "config.yaml").read_text()
    with pytest.raises(VTSumError, match=r"max_epoch must be 3 or more to resume .*, got 2"):
        main(["--resume", "--output_dir", str(run), "--max_epoch", "2"])


FULL = """
import os, resource, shutil, sys
from vtsum import cli
*words, run = sys.argv[1:]
sys.dont_write_bytecode = True
sys.stdout = open(os.devnull, "w")
for limit in (100, 3000, 40_000):
    shutil.rmtree(run, ignore_errors=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    status = cli.main([*words, "--output_dir", run])
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    print("status", status, file=sys.stderr, flush=True)
"""


def test_a_full_disk_is_told_in_those_words_wherever_it_fills(data, tmp_path):
    """The settings, the measures (TensorBoard's too, which writes in a thread of its own), a checkpoint."""
    command = [sys.executable, "-c", FULL, "train", *words(data, tmp_path, "--ckpt_freq", "0", "--print_freq", "99")]
    command = [*command, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("step ")]
    assert lines[1::2] == ["status 2"] * 3, done.stderr
    for line, where in zip(lines[::2], ("/run must be", "/run must be", "/.step-00000008.part, got"), strict=True):
        assert where in line
        assert ": the disk is full" in line
    assert "make room and go on with --resume" in lines[2]
