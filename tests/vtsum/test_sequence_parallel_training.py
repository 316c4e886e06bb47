"""`vtsum train --sequence_parallel_size`: ranks that share out the frames of each video train as one process does."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vtsum.test_training_launch import LONG, SHORT, STEPS, compare, data, launch, torchrun, until_step
from tests.vtsum.test_training_run import measures, names, words
from vtsum.data.collate import collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.training.settings import parse
from vtsum.training.train import main

__all__ = ["data", "launch"]  # fixtures

SHARED = ["--sequence_parallel_size", "2"]
MODEL = ["--model.boundary_head", "true", "--model.lambda_balance", "1"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(data, run, *SHORT, *MODEL, "--batch_size", "4")) == 0
    return run


def test_two_ranks_with_half_of_each_video_train_as_one_process_does_stopped_or_not(launch, data, tmp_path, whole):
    run, reference = tmp_path / "run", measures(whole)
    arguments = words(data, run, *SHORT, *MODEL, "--batch_size", "4", "--num_workers", "1")
    first = launch(torchrun(*arguments, *SHARED))
    until_step(first, 5)
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.wait() != 0
    first.until_gone()
    stopped = len(measures(run))
    assert 5 <= stopped < STEPS
    compare(run, reference[:stopped], 1e-5)

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    same = launch(torchrun(*arguments[:2], "--output_dir", str(copy), *arguments[4:], *SHARED, "--resume"))
    assert same.wait() == 0, same.said()[-3000:]
    alone = [*arguments, "--sequence_parallel_size", "1"]  # with whole videos
    assert main([*alone, "--resume"]) == 0
    for each in (copy, run):
        compare(each, reference, 1e-5)
        ours, theirs = (VTSum.from_pretrained(r / "model").state_dict() for r in (each, whole))
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_the_run_goes_on(launch, data, tmp_path):
    run = tmp_path / "run"
    arguments = words(data, run, *LONG, "--print_freq", "1", "--batch_size", "4", "--ckpt_steps", "4", *SHARED)
    launched = launch(torchrun(*arguments))
    until_step(launched, 6)
    for pid in launched.below():
        if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)
    assert launched.wait() != 0
    launched.until_gone()
    assert "another one is gone" in launched.said()
    saved = int(names(run)[-1].removeprefix("step-"))
    again = launch(torchrun(*arguments, "--resume"))
    until_step(again, saved + 2)
    assert f"going on after step {saved}" in again.said()


@pytest.mark.slow
def test_ranks_that_cannot_be_shared_out_are_refused(launch, data, tmp_path):
    """Before anything is written."""
    run = tmp_path / "run"
    command = torchrun(*words(data, run, *SHORT, *SHARED))
    command[command.index("--nproc_per_node") + 1] = "3"
    launched = launch(command)
    assert launched.wait() != 0
    assert "sequence_parallel_size must divide the ranks, 3, got 2" in launched.said()
    assert not run.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--packed"], "packed must be left out with sequence_parallel_size 2, whose videos are padded, got True"),
        (["--loss", "a:B"], "loss must be left out with sequence_parallel_size 2, of which a rank would see a stretch"),
        (["--architecture", "a:B"], "architecture must be left out with sequence_parallel_size 2"),
    ],
)
def test_what_does_not_go_together_is_refused(more: list[str], said: str) -> None:
    with pytest.raises(VTSumError, match=said):
        parse([*SHARED, *more]).settings_without_model()


def test_a_process_alone_has_nobody_to_share_with(data, tmp_path):
    with pytest.raises(VTSumError, match="sequence_parallel_size must divide the ranks, 1, got 2"):
        main(words(data, tmp_path / "run", *SHARED))


def test_stretches_of_a_batch_make_it_up(data: Path) -> None:
    videos = VideoXumDataset(data)
    items: list[Any] = [videos[n] for n in (0, 9, 31)]
    whole = collate(items)
    for ranks in (2, 3, 50):
        parts = [collate(items, part=(rank, ranks)) for rank in range(ranks)]
        for name, dim in (("video_embeddings", 1), ("video_mask", 1), ("vsum_labels", 2)):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts], dim), getattr(whole, name)), name
