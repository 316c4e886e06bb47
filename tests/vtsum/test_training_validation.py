"""Validation while training, the best model, early stopping, and a training for each of several seeds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT
from tests.vtsum.test_training_run import at_step, measures, words
from tests.vtsum.training_corpus import hold_out, write_corpus
from vtsum.data.collate import collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.videoxum_job import Job
from vtsum.evaluation.videoxum_run import evaluate
from vtsum.evaluation.videoxum_scores import MEASURES
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.model import VTSum
from vtsum.training.train import main


@pytest.fixture(autouse=True, scope="module")
def no_java() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(java, "_java", lambda: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen training videos, six others to validate on, and a test split that nobody can read."""
    root = write_corpus(tmp_path_factory.mktemp("corpus"), videos=22)
    hold_out(root, 16)
    (root / "anno" / "test_videoxum.json").write_text("not to be read")
    return root


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


VAL = ["--val_every", "1", "--max_epoch", "3"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "whole"
    assert main(words(data, run, *VAL)) == 0
    return run


def test_each_epoch_is_measured_and_the_best_is_kept(data: Path, whole: Path) -> None:
    found = lines(whole)
    assert [(line["step"], line["epoch"]) for line in found] == [(4, 1), (8, 2), (12, 3)]
    best = max(found, key=lambda line: line["f1"])
    assert json.loads((whole / "best" / "config.json").read_text())["facts"]["training"]["validation"] == best
    # the last line against a plain evaluation, and losses from their definition
    last = found[-1]
    settings = EvaluationSettings(
        checkpoint=str(whole), data=str(data), split="val", caption_tokenizer="plain", batch_size=4, resamples=1
    )
    content = evaluate(settings)
    assert content is not None
    assert {name: last[name] for name in MEASURES} == {n: content["measures"][n]["value"] for n in MEASURES}
    assert last["f1"] > 0
    assert last["meteor"] is None
    model = VTSum.from_pretrained(whole / "model").eval()
    videos = VideoXumDataset(data, "val")
    with torch.no_grad():
        out = model(**collate(list(videos)).model_inputs())
    for name in ("loss_vsum", "loss_tsum", "loss"):
        assert last[name] == pytest.approx(float(getattr(out, name)), rel=1e-5), name


def test_training_is_the_same_with_and_without(data: Path, whole: Path, tmp_path: Path) -> None:
    assert main(words(data, tmp_path / "run", "--max_epoch", "3")) == 0
    assert measures(tmp_path / "run") == measures(whole)


def test_resuming_goes_on_with_the_validations(data: Path, whole: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_step(patched, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words(data, run, *VAL)) == 143
    assert [line["step"] for line in lines(run)] == [4]
    assert main(["--resume", "--output_dir", str(run)]) == 0
    assert lines(run) == lines(whole)
    assert measures(run) == measures(whole)
    ours, theirs = (VTSum.from_pretrained(folder / "best").state_dict() for folder in (run, whole))
    assert all(value.equal(theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("batch", [0, 2, 5])
def test_a_signal_is_not_kept_waiting_for_a_validation(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """It was heeded after the whole of it and another step: of a large split after hours, by when a scheduler has
    ended the process, and what no checkpoint held yet was lost. Two batches of six videos are measured an epoch."""
    run, measured = tmp_path / "run", list[int]()

    def stopped(job: Job, number: int) -> Any:
        measured.append(number)
        if len(measured) == batch + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(job, number)

    with monkeypatch.context() as patched:
        measure = Job.run
        patched.setattr(Job, "run", stopped)
        assert main(words(data, run, *VAL, "--ckpt_freq", "0")) == 143
    assert measured == [0, 1, 0, 1, 0, 1][: batch + 1]
    done = batch // 2
    if done:
        assert [line["step"] for line in lines(run)] == [4, 8][:done]
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{4 * done + 4:08d}"]
    assert main(["--resume", "--output_dir", str(run)]) == 0
    assert lines(run) == lines(whole)
    assert measures(run) == measures(whole)


def test_a_signal_in_the_last_step_leaves_its_validation_to_be_done(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to be trained, without a word of the validation that was left out."""
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_step(patched, 12, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words(data, run, *VAL)) == 143
    assert [line["step"] for line in lines(run)] == [4, 8]
    assert main(["--resume", "--output_dir", str(run)]) == 0
    assert lines(run) == lines(whole)


@pytest.mark.parametrize(
    ("about", "told"),
    [([], "f1"), ({"validation": [1]}, "f1"), ({"validation": {"f1": 1, "step": 4}}, "f1")]
    + [({"validation": {"f1": 0.5, **more}}, "step") for more in ({}, {"step": "4"}, {"step": 4.5}, {"step": True})],
)
def test_a_best_model_that_says_nothing_of_itself_is_one_line(
    whole: Path, tmp_path: Path, about: object, told: str
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    path = run / "best" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"facts": {"training": about}}))
    words = [sys.executable, "-m", "vtsum.cli", "train", "--resume", "--output_dir", run, "--max_epoch", "4"]
    done = forked.run(words, cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == f"vtsum: train: {path} must say what was measured of it, got no {told}"


def test_no_better_validations_end_training(data: Path, tmp_path: Path, capsys) -> None:
    """With a rate that moves nothing, no validation is better than the first."""
    run = tmp_path / "run"
    still = ["--val_every", "1", "--patience", "2", "--max_epoch", "9", "--init_lr", "1e-30", "--best_by", "loss"]
    assert main(words(data, run, *still)) == 0
    assert [line["epoch"] for line in lines(run)] == [1, 2, 3]
    said = capsys.readouterr().err
    assert "stopped early" in said
    assert f"the best on val by loss ({lines(run)[0]['loss']:.4g}) is {run / 'best'}, of step 4" in said
    assert (run / "checkpoints" / "step-00000012").is_dir()
    assert main(["--resume", "--output_dir", str(run)]) == 0  # it stays ended
    assert len(measures(run)) == 12
    assert main(["--resume", "--output_dir", str(run), "--patience", "3"]) == 0
    assert len(measures(run)) == 16


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--best_by", "meteor"], "best_by must be something that can be measured, meteor needs"),
        (["--best_by", "vt_clipscore"], "best_by must be something that can be measured, vt_clipscore needs"),
        (["--best_by", "accuracy"], "best_by must be one of loss, loss_vsum, loss_tsum, f1"),
        (["--val_every", "0", "--patience", "1"], "patience must be 0 without --val_every"),
        (["--seeds", "0,0"], "seeds must be different whole numbers, such as 0,1,2, got '0,0'"),
        (["--seeds", "0,x"], "seeds must be different whole numbers, such as 0,1,2, got '0,x'"),
    ],
)
def test_what_cannot_be_validated_is_told_before_training(data: Path, tmp_path: Path, more: list[str], told: str):
    with pytest.raises(VTSumError, match=told):
        main(words(data, tmp_path / "run", *VAL, *more))
    assert not (tmp_path / "run").exists()


def test_a_video_of_both_splits_is_refused(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(data, root)
    shutil.copyfile(root / "anno" / "train_videoxum.json", root / "anno" / "val_videoxum.json")
    with pytest.raises(VTSumError, match=r"val_videoxum.json must hold videos that training does not see, got v_000"):
        main(words(root, tmp_path / "run", *VAL))


def test_a_command_trains_once_for_each_seed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", *words(data, run, "--max_epoch", "1", "--seeds", "3,5")]
    done = forked.run(
        [sys.executable, "-m", "vtsum.cli", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in run.iterdir()) == ["seed-3", "seed-5"]
    assert main(words(data, tmp_path / "alone", "--max_epoch", "1", "--seed", "5")) == 0
    assert measures(run / "seed-5") == measures(tmp_path / "alone")
    assert measures(run / "seed-3") != measures(run / "seed-5")
    assert main([*command[1:], "--resume"]) == 0  # all done: nothing changes
    assert len(measures(run / "seed-5")) == 4
