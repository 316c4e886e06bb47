"""Whole runs in one process: what they leave, how they stop, and that going on equals never having stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.once import once
from tests.vtsum.training_corpus import flags, write_corpus
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.training import checkpoints, loading
from vtsum.training.engine import PlainEngine
from vtsum.training.records import read_metrics
from vtsum.training.train import main

FACTS = {"engine": "plain", "ranks": 1, "global_batch": 4, "data": "", "settings": {}}
STEPS = 8  # 16 videos, 4 a step, 2 epochs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_16", write_corpus)


def words(data: Path, run: Path, *more: str) -> list[str]:
    small = ["--batch_size", "4", "--max_epoch", "2", "--init_lr", "1e-3", "--num_workers", "0"]
    return ["--data", str(data), "--output_dir", str(run), *flags(), *small, *more]


def measures(run: Path) -> list[dict[str, Any]]:
    """The lines of a run without the time they took."""
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "waited")}
        for line in read_metrics(run / "metrics.jsonl")
    ]


def names(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed. The text decoder drops out, so that random states matter."""

    def make(run: Path) -> None:
        assert main(words(data, run)) == 0

    return once(tmp_path_factory, "whole_run", make)


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Do something in the middle of the engine's `number`-th step."""
    plain, calls = PlainEngine.step, iter(range(1, 10**6))

    def step(self: PlainEngine, *args: Any) -> Any:
        if next(calls) == number:
            action()
        return plain(self, *args)

    monkeypatch.setattr(PlainEngine, "step", step)


def test_a_run_leaves_its_settings_measures_checkpoints_and_model(whole):
    lines = measures(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines] == [1] * 4 + [2] * 4
    for line in lines:
        assert line["loss"] == pytest.approx(15 * line["loss_vsum"] + line["loss_tsum"], rel=1e-5)
    assert names(whole) == ["step-00000004", "step-00000008"]
    assert list((whole / "tensorboard").glob("events.out.tfevents.*"))
    model = VTSum.from_pretrained(whole / "model")
    state = torch.load(whole / "checkpoints" / "step-00000008" / "state.pt", weights_only=True)["model"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert model.generate(torch.randn(1, 9, 32), num_beams=1, max_length=12, min_length=5)[0][0]


def test_the_readers_go_on_from_one_epoch_to_the_next(data, whole, tmp_path, monkeypatch):
    """Two of them read what one process reads; what a step waited for them is recorded."""
    made: list[Any] = []

    class Counted(DataLoader[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(options)
            super().__init__(*args, **options)

    monkeypatch.setattr(loading, "DataLoader", Counted)
    run = tmp_path / "run"
    assert main(words(data, run, "--num_workers", "2")) == 0
    assert [options["num_workers"] for options in made] == [2]
    assert measures(run) == measures(whole)
    waited = [line["waited"] for line in read_metrics(run / "metrics.jsonl")]
    assert all(0 <= seconds < 60 for seconds in waited)


def test_steps_by_length_are_another_run_that_is_resumed_as_exactly(data, whole, tmp_path, monkeypatch):
    run, again = tmp_path / "run", tmp_path / "again"
    assert main(words(data, run, "--group_by_length")) == 0
    assert measures(run) != measures(whole)
    with monkeypatch.context() as patched:
        at_step(patched, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words(data, again, "--group_by_length")) == 143
    with pytest.raises(VTSumError, match="group_by_length must be true to resume"):
        main(["--resume", "--output_dir", str(again), "--group_by_length", "false"])
    assert main(["--resume", "--output_dir", str(again)]) == 0
    assert measures(again) == measures(run)


def test_the_saved_settings_start_the_same_run(whole, tmp_path):
    run = tmp_path / "again"
    assert main(["--config", str(whole / "config.yaml"), "--output_dir", str(run)]) == 0
    assert measures(run) == measures(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_resuming_equals_never_having_stopped(data, whole, tmp_path, monkeypatch, number, status):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_step(patched, 3, lambda: os.kill(os.getpid(), number))
        assert main(words(data, run)) == status
    stopped = len(measures(run))
    assert stopped in (3, 4)  # the step under way is finished; a signal that came late is seen after the next one
    assert names(run)[-1] == f"step-{stopped:08d}"
    assert main(["--resume", "--output_dir", str(run)]) == 0  # the run's own config.yaml says the rest
    assert measures(run) == measures(whole)  # to the last bit
    theirs = VTSum.from_pretrained(whole / "model").state_dict()
    for name, value in VTSum.from_pretrained(run / "model").state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_a_crash_loses_what_came_after_the_checkpoint_and_nothing_else(data, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def crash() -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        at_step(patched, 7, crash)
        with pytest.raises(ZeroDivisionError):
            main(words(data, run, "--ckpt_steps", "5", "--ckpt_freq", "0"))
    assert len(measures(run)) == 6
    assert names(run) == ["step-00000005"]
    assert main(words(data, run, "--resume")) == 0
    assert measures(run) == measures(whole)


def test_a_broken_checkpoint_is_passed_over(data, whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest = run / "checkpoints" / "step-00000008"
    with open(newest / "state.pt", "r+b") as file:
        file.truncate(1000)
    (run / "checkpoints" / ".step-00000012.part").mkdir()
    assert main(words(data, run, "--resume")) == 0
    said = capsys.readouterr().err
    assert "skipping" in said
    assert "state.pt has 1000 bytes of" in said
    assert "was never finished" in said
    assert "going on after step 4" in said
    assert measures(run) == measures(whole)
    assert names(run) == ["step-00000004", "step-00000008"]


def test_without_a_marker_a_checkpoint_does_not_count(tmp_path):
    for step in (1, 2):
        part = checkpoints.begin(tmp_path, step)
        (part / "state.pt").write_bytes(b"x" * step)
        checkpoints.finish(tmp_path, step, FACTS, keep=5)
    (tmp_path / "checkpoints" / "step-00000002" / checkpoints.MARKER).unlink()
    found, lines = checkpoints.find(tmp_path)
    assert found.step == 1
    assert len(lines) == 1
    assert checkpoints.MARKER in lines[0]


def test_a_full_disk_leaves_the_older_checkpoints(data, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        write, calls = torch.save, iter(range(1, 10**6))

        def save(obj: Any, file: Any, *args: Any, **kwargs: Any) -> None:
            if next(calls) > 2:  # the first checkpoint's two files fit
                file.write(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(obj, file, *args, **kwargs)

        patched.setattr(torch, "save", save)
        with pytest.raises(VTSumError, match=r"checkpoints.*the disk is full.*older checkpoints are untouched") as told:
            main(words(data, run))
    assert "\n" not in str(told.value)
    assert names(run) == ["step-00000004"]
    assert len(VTSum.from_pretrained(run / "model").state_dict()) > 0
    assert main(words(data, run, "--resume")) == 0
    assert measures(run) == measures(whole)


def test_only_the_newest_checkpoints_are_kept(data, tmp_path):
    run = tmp_path / "run"
    assert main(words(data, run, "--ckpt_steps", "2", "--keep_checkpoints", "3", "--max_epoch", "3")) == 0
    assert names(run) == ["step-00000008", "step-00000010", "step-00000012"]


def test_other_ways_to_compute_stay_near(data, tmp_path):
    def losses(name: str, *more: str) -> list[float]:
        assert main(words(data, tmp_path / name, "--model.text.dropout", "0", "--max_epoch", "1", *more)) == 0
        return [line["loss_tsum"] for line in measures(tmp_path / name)]

    plain = losses("plain")
    for flag, first, others in (("packed", 1e-6, 1e-5), ("gradient_checkpointing", 1e-6, 1e-6), ("bf16", 1e-2, 2e-2)):
        found = losses(flag, f"--{flag}")
        assert found == pytest.approx(plain, rel=others), flag
        assert found[0] == pytest.approx(plain[0], rel=first), flag


def test_accumulation_takes_the_mean_of_its_passes_as_released(data, tmp_path):
    """Two passes of two videos: the released loss of a step is the mean of theirs."""
    run = tmp_path / "run"
    still = ["--gradient_accumulation_steps", "2", "--batch_size", "2", "--model.text.dropout", "0"]
    still += ["--model.loss_mean", "released"]
    assert main(words(data, run, *still)) == 0
    single = tmp_path / "single"
    tiny = ["--batch_size", "2", "--init_lr", "1e-12", "--max_epoch", "1", *still[4:]]
    assert main(words(data, single, *tiny)) == 0  # hardly moves: the first two steps see the start weights
    first, second = measures(single)[:2]
    assert measures(run)[0]["loss"] == pytest.approx((first["loss"] + second["loss"]) / 2, rel=1e-6)


def test_training_goes_on_from_a_model_folder(data, whole, tmp_path):
    run = tmp_path / "run"
    start = ["--data", str(data), "--pretrained", str(whole / "model"), "--batch_size", "4", "--num_workers", "0"]
    assert main([*start, "--output_dir", str(run), "--max_epoch", "1", "--init_lr", "1e-4", "--lambda_vsum", "3"]) == 0
    assert measures(run)[0]["loss_tsum"] < measures(whole)[0]["loss_tsum"]
    assert measures(run)[0]["loss"] == pytest.approx(
        3 * measures(run)[0]["loss_vsum"] + measures(run)[0]["loss_tsum"], rel=1e-5
    )
    with pytest.raises(VTSumError, match=r"model.depth must be 1, as the pretrained .* has it, got 2"):
        main([*start, "--output_dir", str(tmp_path / "no"), "--model.depth", "2"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--init_lr", "2e-3"], r"init_lr must be 0.001 to resume .*step-00000008, got 0.002; another --output_dir"),
        (["--model.depth", "2"], r"model.depth must be 1 to resume .*, got 2"),
        (["--batch_size", "2"], r"batch_size must be 4 to resume"),
        (["--deepspeed", "configs/ds_zero1.json"], r"must be resumed without --deepspeed"),
    ],
)
def test_another_run_is_not_resumed(data, whole, more, message):
    with pytest.raises(VTSumError, match=message):
        main(words(data, whole, "--resume", *more))


def test_what_a_checkpoint_does_not_know_yet_is_what_was_done_then(data, whole, tmp_path):
    """Checkpoints from before `loss_mean` were trained on the released means; now another one is the default."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for marker in run.glob(f"checkpoints/*/{checkpoints.MARKER}"):
        facts = json.loads(marker.read_text())
        for name in ("loss_mean", "positions_over", "position_start"):
            del facts["settings"]["model"][name]
        marker.write_text(json.dumps(facts))
    with pytest.raises(VTSumError, match=r"model.loss_mean must be 'released' to resume .*, got 'valid'"):
        main(words(data, run, "--resume"))
    then = ["--model.loss_mean", "released", "--model.positions_over", "batch"]
    assert main(words(data, run, "--resume", *then)) == 0


def test_other_data_are_not_resumed(whole, tmp_path):
    other = write_corpus(tmp_path / "other", seed=1)
    with pytest.raises(VTSumError, match=r"data must be the videos that .* was trained on, got others"):
        main(words(other, whole, "--resume"))


def test_a_folder_in_use_is_refused(data, whole, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    with pytest.raises(VTSumError, match=r"output_dir must be new or empty, got .*--resume goes on"):
        main(words(data, whole))
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path, monkeypatch):
    import numpy as np

    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for path in sorted((broken / "feat" / "blip").iterdir())[::2]:
        features = np.load(path)["features"]
        features[0, 0] = 3e38
        np.savez(path, features=features)
    with pytest.raises(VTSumError, match=r"the loss must stay finite, got nan at step 1.*vtsum data check"):
        main(words(broken, tmp_path / "run"))
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_feature_file_is_named_in_one_line(data, tmp_path, workers):
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for path in (broken / "feat" / "blip").glob("v_00[1-9].npz"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VTSumError, match=r"v_00\d.npz must be a whole npz file, got one that is cut off") as told:
        main(words(broken, tmp_path / "run", "--num_workers", workers))
    assert "Traceback" not in str(told.value)


def test_a_finished_run_is_left_finished(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "model")
    assert main(words(data, run, "--resume")) == 0
    assert measures(run) == measures(whole)
    assert names(run) == names(whole)
    assert VTSum.from_pretrained(run / "model").config == VTSum.from_pretrained(whole / "model").config


def test_a_warm_up_as_long_as_the_training_is_refused(data, tmp_path):
    with pytest.raises(VTSumError, match=r"warmup_steps must be below the training's 8 steps, got 8"):
        main(words(data, tmp_path / "run", "--warmup_steps", "8"))
    assert not (tmp_path / "run").exists()


def test_a_corpus_smaller_than_a_step_is_refused(data, tmp_path):
    with pytest.raises(VTSumError, match=r"must be at most the 16 training videos, got 17 x 1 x 1"):
        main(words(data, tmp_path / "run", "--batch_size", "17"))


def test_marker_lists_every_file(whole):
    folder = whole / "checkpoints" / "step-00000008"
    facts = json.loads((folder / checkpoints.MARKER).read_text())
    assert facts["files"] == {n: (folder / n).stat().st_size for n in ("rng-00000.pt", "state.pt")}


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("memory_slots", 10**9, "weights of "),
        ("mlp_ratio", 10**9, "weights of "),
        ("text.hidden_size", 10**8, "weights of "),
        ("text.max_positions", 2**62, "more weights than can be counted"),
    ],
)
def test_a_model_larger_than_memory_is_refused(
    data: Path, tmp_path: Path, setting: str, value: int, found: str
) -> None:
    with pytest.raises(VTSumError, match=f"sizes under model must fit into this machine's .* memory, got {found}"):
        main([*words(data, tmp_path / "run"), f"--model.{setting}", str(value)])
