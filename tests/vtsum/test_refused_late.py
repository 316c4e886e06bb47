"""A run that goes on changes nothing before all that may refuse has been asked; a model takes no other words away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.test_nothing_is_lost import REAL, content, refused
from tests.vtsum.training_corpus import flags, hold_out, write_corpus
from vtsum import cli
from vtsum.config import VTSumConfig
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.model.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos to train on and two to validate on."""
    root = write_corpus(tmp_path_factory.mktemp("corpus"), videos=6)
    hold_out(root, 4)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint of each."""
    run = tmp_path_factory.mktemp("made") / "run"
    assert cli.main(words(data, run, "--max_epoch", "2", "--ckpt_freq", "1")) == 0
    return run


def words(data: Path, run: Path, *more: str) -> list[str]:
    small = ["--batch_size", "4", "--num_workers", "0", "--val_every", "1", "--best_by", "loss"]
    small += ["--val_caption_tokenizer", "plain", "--trackers", "none"]
    return ["train", "--data", str(data), "--output_dir", str(run), *flags(), *small, *more]


def another_model(run: Path) -> None:
    (run / "model" / "config.json").write_text("{}")


def another_best(run: Path) -> None:
    (run / "best" / "vocab.txt").unlink()
    (run / "best" / "vocab.txt" / "mine").mkdir(parents=True)


def no_measures(run: Path) -> None:
    (run / "metrics.jsonl").write_text("mine\nmine\n")


def no_validations(run: Path) -> None:
    (run / "validation.jsonl").write_text("mine\nmine\n")


def nothing(run: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("lay", "more", "told"),
    [
        (another_model, [], "got RUN/model with another model.safetensors"),
        (another_best, [], "RUN/best/vocab.txt must be a file to replace"),
        (no_measures, [], "RUN/metrics.jsonl: line 1 must be JSON"),
        (no_validations, [], "RUN/validation.jsonl: line 1 must be JSON"),
        (nothing, ["--trackers", "mine:Tracker"], "start of mine:Tracker must not fail, got: not today"),
    ],
)
def test_a_run_that_is_refused_stays_as_it_was(
    lay: Callable[[Path], None], more: list[str], told: str, data: Path, run: Path, tmp_path: Path
) -> None:
    """Its config.yaml was another one by then, and an older checkpoint was gone."""
    (tmp_path / "mine.py").write_text(
        "class Tracker:\n"
        "    def start(self, run, step, settings):\n        raise OSError('not today')\n"
        "    def log(self, values, step):\n        pass\n"
        "    def finish(self):\n        pass\n"
    )
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    lay(copy)
    before = content(copy)
    command = [*REAL, *words(data, copy, "--max_epoch", "3", "--keep_checkpoints", "1", "--resume", *more)]
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([ENVIRONMENT.get("PYTHONPATH", ""), str(tmp_path)])}
    done = forked.run(command, cwd=tmp_path, env=environment, timeout=240)
    assert (done.returncode, done.stdout) == (2, "")
    assert told.replace("RUN", str(copy)) in done.stderr.splitlines()[-1]
    assert content(copy) == before


def test_wandb_takes_the_place_of_nothing_of_the_users(data: Path, run: Path, tmp_path: Path) -> None:
    """It laid links to its newest run and logs over whatever lay under their names."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "wandb").mkdir()
    (copy / "wandb" / "debug.log").write_text("mine")
    (copy / "wandb" / "latest-run").symlink_to("../../mine")
    (copy / "wandb" / "wandb-resume.json").symlink_to("../../mine")
    before = content(copy)
    command = [*REAL, *words(data, copy, "--max_epoch", "3", "--resume", "--trackers", "wandb")]
    environment = ENVIRONMENT | {"WANDB_MODE": "offline"}
    done = forked.run(command, cwd=tmp_path, env=environment, timeout=240)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"vtsum: train: {copy}/wandb/wandb-resume.json must not be there, wandb would remove it; move it away"
    )
    assert content(copy) == before
    (copy / "wandb" / "wandb-resume.json").unlink()
    done = forked.run(command, cwd=tmp_path, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (copy / "wandb" / "debug.log").read_text() == "mine"
    assert os.readlink(copy / "wandb" / "latest-run") == "../../mine"


@pytest.mark.parametrize("name", ["../../../mine", "a\x1b[31m", "", "x" * 150])
def test_an_odd_name_of_a_run_of_wandbs_is_refused(name: str, tmp_path: Path) -> None:
    from vtsum.training.trackers import check_wandb

    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run-id").write_text(name)
    with pytest.raises(VTSumError, match=r"run-id must hold letters, digits, - and _ alone, at most 128, got"):
        check_wandb(tmp_path)


def test_a_model_without_words_takes_nobody_elses_away(tmp_path: Path) -> None:
    config = VTSumConfig(width=8, num_heads=2, depth=1, memory_slots=2, max_positions=8)
    model = VTSum(config)
    model.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "vocab.txt").write_text("mine")
    model.save_pretrained(tmp_path / "a")
    assert (tmp_path / "a" / "vocab.txt").read_text() == "mine"
    (tmp_path / "words").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "b"]) + "\n")
    told = VTSum(config, load_tokenizer(tmp_path / "words"))
    with pytest.raises(VTSumError, match=r"got .*a with another vocab\.txt"):
        told.save_pretrained(tmp_path / "a")
    told.save_pretrained(tmp_path / "b")
    theirs = (tmp_path / "b" / "vocab.txt").rename(tmp_path / "theirs")
    (tmp_path / "b" / "vocab.txt").symlink_to(theirs)
    before = content(tmp_path)
    with pytest.raises(VTSumError, match=r"vocab\.txt must be a file to replace: a symbolic link is in its place"):
        model.save_pretrained(tmp_path / "b")
    assert content(tmp_path) == before
    (tmp_path / "b" / "vocab.txt").unlink()
    theirs.rename(tmp_path / "b" / "vocab.txt")
    model.save_pretrained(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["config.json", "model.safetensors"]


def test_a_link_for_the_log_is_named(tmp_path: Path) -> None:
    """It is not followed; but "too many levels of symbolic links" names none."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run.log").symlink_to("mine")
    refused(
        [*REAL, "recut", "none", "--log", "run.log"], tmp_path, "log run.log must be a file to write to: a symbolic"
    )
