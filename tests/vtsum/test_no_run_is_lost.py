"""No training deletes, replaces or goes on with anything but its own: checkpoints, runs and models of others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.test_nothing_is_lost import REAL, content, refused
from tests.vtsum.training_corpus import flags, write_corpus
from vtsum import cli
from vtsum.errors import VTSumError
from vtsum.training import checkpoints

FACTS = {"engine": "plain", "ranks": 1, "global_batch": 4, "data": "", "settings": {}}


def checkpoint(run: Path, step: int) -> Path:
    part = checkpoints.begin(run, step)
    (part / "state.pt").write_bytes(b"state")
    return checkpoints.finish(run, step, FACTS, keep=9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), videos=4)


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, without its model."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    assert cli.main(words(data, run)) == 0
    shutil.rmtree(run / "model")
    return run


def words(data: Path, run: Path | str, *more: str) -> list[str]:
    small = ["--batch_size", "4", "--max_epoch", "1", "--num_workers", "0", "--resume"]
    return ["train", "--data", str(data), "--output_dir", str(run), *flags(), *small, *more]


def test_a_strangers_run_sweeps_nothing_elsewhere(data: Path, tmp_path: Path) -> None:
    """Its checkpoints are a link to somebody's folder, in which nothing of ours lies."""
    for name in (".ssh", ".config", "step-00000003", ".step-00000004.part"):
        (tmp_path / "home" / name).mkdir(parents=True)
        (tmp_path / "home" / name / "key").write_text("mine")
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "run" / name).touch()
    (tmp_path / "run" / "checkpoints").symlink_to("../home")
    refused(
        [*REAL, *words(data, "run")], tmp_path, "train: run/checkpoints must lie where it is named, got a symbolic link"
    )


def test_a_link_for_the_lock_is_named(data: Path, tmp_path: Path) -> None:
    """It is never followed; but "too many levels of symbolic links" names none."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "run" / name).touch()
    (tmp_path / "run" / ".lock").symlink_to("../mine")
    refused([*REAL, *words(data, "run")], tmp_path, "train: run/.lock must lie where it is named, got a symbolic link")


@pytest.mark.parametrize("name", ["model/config.json", "best/model.safetensors"])
def test_a_link_for_what_is_written_at_the_end_is_told_before_the_work(name: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    for file in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "run" / file).touch()
    (tmp_path / "run" / name).symlink_to("../../mine")
    refused(
        [*REAL, *words(data, "run")], tmp_path, f"train: run/{name} must lie where it is named, got a symbolic link"
    )


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, "regular file") for name in (".lock", "config.yaml", "metrics.jsonl", "validation.jsonl")]
    + [(name, "folder") for name in ("tensorboard", "wandb")],
)
def test_a_pipe_in_a_place_of_a_run_is_named_before_the_work(
    name: str, rule: str, data: Path, stopped: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    done = forked.run([*REAL, *words(data, "run", "--max_epoch", "8")], cwd=tmp_path, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"vtsum: train: run/{name} must be a {rule}, got something else; move it away\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("checkpoints/step-00000008", "must be a checkpoint's folder, got none of that name"),
        ("checkpoints/.step-00000008.part", "must be a checkpoint's folder, got none of that name"),
        ("model", "folder must be a folder or new, got the file"),
        ("model/config.json", "with another config.json"),
        ("model/model.safetensors", "with another model.safetensors"),
    ],
)
@pytest.mark.parametrize("kind", ["a pipe", "a file"])
def test_what_is_in_the_way_at_the_end_is_told_before_the_work(
    name: str, told: str, kind: str, data: Path, stopped: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    (run / name).parent.mkdir(exist_ok=True)
    if kind == "a pipe":
        os.mkfifo(run / name)
    else:
        (run / name).write_text("mine")
    done = forked.run([*REAL, *words(data, "run", "--max_epoch", "8")], cwd=tmp_path, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr.splitlines()[-1]
    assert (run / "metrics.jsonl").read_text() == (stopped / "metrics.jsonl").read_text()


def test_a_place_for_checkpoints_that_is_none_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoints.check(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *asked: False)
        with pytest.raises(VTSumError, match="must be a folder to write to, got one that may not be written to"):
            checkpoints.check(tmp_path)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").touch()
    with pytest.raises(VTSumError, match="must be a folder to write to, got none"):
        checkpoints.check(tmp_path)


@pytest.mark.parametrize(
    ("linked", "told"),
    [
        (True, "train: run/seed-5 must lie where it is named, got a symbolic link"),
        (False, "train: output_dir must be a folder, got the file run/seed-5"),
    ],
)
def test_what_is_in_the_way_of_a_seed_is_told_before_the_first_is_trained(
    linked: bool, told: str, data: Path, tmp_path: Path
) -> None:
    """In the home that a link leads to lies what a run writes."""
    (tmp_path / "home").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "home" / name).touch()
    (tmp_path / "run").mkdir()
    if linked:
        (tmp_path / "run" / "seed-5").symlink_to("../home")
    else:
        (tmp_path / "run" / "seed-5").write_text("mine")
    refused([*REAL, *words(data, "run", "--seeds", "3,5")], tmp_path, told)


def test_measures_that_are_no_file_are_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "metrics.jsonl")
    told = "plot: run must be the folder of a training run, got something else than a file as run/metrics.jsonl"
    refused([*REAL, "plot", "run"], tmp_path, told)


def test_a_sweep_knows_the_names_of_checkpoints_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name in (".ssh", "step-notes", "step-00000099x", ".step-1.part"):
        (folder / name).mkdir(parents=True)
        (folder / name / "key").write_text("mine")
    for name in ("step-00000009", ".step-00000009.part"):
        (folder / name / "zero").mkdir(parents=True)
        (folder / name / "zero" / "mp_rank_00_model_states.pt").touch()
    (tmp_path / "home").mkdir()
    (folder / "step-00000008").symlink_to(tmp_path / "home")
    (folder / "step-00000007").write_text("mine")
    kept = checkpoint(tmp_path, 2)
    checkpoints.sweep(tmp_path, 2)
    left = {".ssh", "step-notes", "step-00000099x", ".step-1.part", "step-00000008", "step-00000007", kept.name}
    assert set(os.listdir(folder)) == left
    for step in (3, 4):
        part = checkpoints.begin(tmp_path, step)
        checkpoints.finish(tmp_path, step, FACTS, keep=1)
    assert not part.exists()
    assert set(os.listdir(folder)) == left - {kept.name} | {"step-00000004"}
    (tmp_path / "home" / "checkpoints").symlink_to(folder)
    for action in (lambda: checkpoints.sweep(tmp_path / "home", 0), lambda: checkpoints.find(tmp_path / "home")):
        with pytest.raises(VTSumError, match="got a symbolic link"):
            action()


def test_what_the_user_laid_among_checkpoints_stays(tmp_path: Path) -> None:
    """Whether they are dropped for newer ones, found broken, unfinished or written again."""
    folder = tmp_path / "checkpoints"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "state.pt").write_text("mine")
    for name in ("step-00000001", ".step-00000002.part", "step-00000003"):
        (folder / name).mkdir(parents=True)
        (folder / name / "state.pt").touch()
        (folder / name / "notes.txt").write_text("mine")
        (folder / name / "zero").symlink_to("../../home")
    with pytest.raises(VTSumError, match=r"step-00000003 must hold a checkpoint's files alone, got notes.txt; move it"):
        checkpoints.check(tmp_path)
    checkpoints.sweep(tmp_path, 2)
    checkpoints.begin(tmp_path, 3)
    with pytest.raises(OSError, match="not empty"):
        checkpoints.finish(tmp_path, 3, FACTS, keep=1)
    checkpoint(tmp_path, 4)
    checkpoints.begin(tmp_path, 5)
    checkpoints.finish(tmp_path, 5, FACTS, keep=1)
    kept = content(tmp_path)
    for name in ("step-00000001", ".step-00000002.part", "step-00000003"):
        assert kept[f"checkpoints/{name}/notes.txt"] == b"mine"
        assert f"checkpoints/{name}/state.pt" not in kept
    assert kept["home/state.pt"] == b"mine"


OWN_FOLDERS = ["zero", "universal", "universal/zero", "universal/tmp/weight", ".universal.part"]


@pytest.mark.parametrize("place", OWN_FOLDERS)
@pytest.mark.parametrize("name", [".step-00000008.part", "step-00000009"])
def test_what_the_user_laid_into_a_folder_of_a_checkpoint_stays(
    name: str, place: str, data: Path, stopped: Path, tmp_path: Path
) -> None:
    """DeepSpeed's folders are no place where all is ours: by exact name, there too."""
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    mine = run / "checkpoints" / name / place / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = forked.run([*REAL, *words(data, "run")], cwd=tmp_path, env=ENVIRONMENT, timeout=60)
    assert mine.read_text() == "mine"
    assert done.returncode == 2, done.stderr
    told = f"train: run/checkpoints/{name} must hold a checkpoint's files alone, got {place}/notes.txt; move it away\n"
    assert done.stderr.endswith(told)
    checkpoints.sweep(run, 1)
    assert mine.read_text() == "mine"


def test_what_deepspeed_writes_is_swept_whole(tmp_path: Path) -> None:
    """As DeepSpeed 0.19 calls it, in ZeRO's stages 1 to 3, with what is kept on NVMe, and in the universal form."""
    folder = tmp_path / "checkpoints" / "step-00000009"
    for name in (
        *("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"),
        *("zero_pp_rank_11_mp_rank_00_optim_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        "offloaded_tensors/rank0/optimizer/0_exp_avg.tensor.swp",
    ):
        (folder / "zero" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "zero" / name).touch()
    for name in ("mp_rank_00_model_states.pt", "zero/optimizer_state.pt", "zero/a.weight/exp_avg.pt"):
        (folder / "universal" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "universal" / name).touch()
    checkpoints.check(tmp_path)
    checkpoints.sweep(tmp_path, 1)
    assert not folder.exists()


def test_what_a_line_about_a_marker_quotes_is_bounded(data: Path, stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    marker = run / "checkpoints" / "step-00000001" / checkpoints.MARKER
    facts = json.loads(marker.read_text())
    for files in ({"x" * 5_000_000: 1}, {"state.pt": [0] * 500_000}):
        marker.write_text(json.dumps(facts | {"files": files}))
        done = forked.run([*REAL, *words(data, "run")], cwd=tmp_path, env=ENVIRONMENT, timeout=60)
        assert done.returncode == 2, done.stderr[:3000]
        skipped, told = done.stderr.splitlines()
        assert skipped.startswith("vtsum: skipping run/checkpoints/step-00000001: ")
        assert len(skipped) < 2100
        assert "must find a whole checkpoint" in told


def test_another_programs_run_is_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    """Its files have the names of ours; a training would have dropped its measures and its checkpoints."""
    run = tmp_path / "run"
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run / "checkpoints" / "step-00000001" / "weights.bin").write_text("mine")
    (run / "config.yaml").write_text("lr: 3\n")
    (run / "metrics.jsonl").write_text('{"step": 1, "accuracy": 0.5}\n')
    (tmp_path / "own.yaml").touch()
    command = [*REAL, *words(data, "run", "--config", "own.yaml")]
    told = "must be new, empty or a run to go on with, got run without config.yaml and metrics.jsonl of a training"
    refused(command, tmp_path, told)
    from vtsum.training.settings import TrainSettings, to_yaml

    (run / "config.yaml").write_text(to_yaml(TrainSettings()))
    refused(command, tmp_path, told)
    (run / "metrics.jsonl").write_text("")
    refused(command, tmp_path, "step-00000001 must hold a checkpoint's files alone, got weights.bin; move it away")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"files": {"../../../secret": 6}}, "names '../../../secret', which lies elsewhere"),
        ({"files": {"/etc/hostname": 6}}, "names '/etc/hostname', which lies elsewhere"),
        ({"files": {"a\0b": 1}}, "is missing"),
        ({"files": {"pipe": 0}}, "'pipe' is no regular file"),
        ({"files": ["state.pt"]}, "files of its complete.json is not an object"),
        ({"files": {"state.pt": "5"}}, "state.pt has 5 bytes of '5'"),
        ({"step": "1"}, "step of its complete.json is not a whole number"),
        ({"step": 7}, "is another checkpoint's"),
        ({"ranks": 0}, "is out of range"),
        ({"settings": None}, "settings of its complete.json is not an object"),
        ("[" * 100_000, "levels"),
        ("[1]", "must hold an object"),
        ('{"format": "vtsum-checkpoint/1"}', "step of its complete.json is not a whole number"),
    ],
)
def test_an_odd_marker_is_passed_over_with_a_line(tmp_path: Path, change: Any, told: str) -> None:
    folder = checkpoint(tmp_path, 1)
    os.mkfifo(folder / "pipe")
    marker = folder / checkpoints.MARKER
    text = change if isinstance(change, str) else json.dumps({**json.loads(marker.read_text()), **change})
    marker.write_text(text)
    found, lines = checkpoints.find(tmp_path)
    assert found is None
    (line,) = lines
    assert told in line


def test_a_run_writes_into_no_folder_of_another_kind(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume "starts anew" where no checkpoint is; not among somebody's files, through a link or over an input."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, "corpus")
    Path("home").mkdir()
    Path("home/metrics.jsonl").write_text("mine")
    for name in ("metrics.jsonl", "tensorboard", "model", "config.yaml"):
        run = Path(f"run {name}")
        run.mkdir()
        for other in {"metrics.jsonl", "config.yaml"} - {name}:
            (run / other).touch()
        (run / name).symlink_to(f"../home/{name}")
    shutil.copytree("run model", "trained", symlinks=True)
    Path("trained/model").unlink()
    shutil.copytree("corpus", "trained/model")
    before = content(tmp_path)
    for run, more, told in (
        ("corpus", [], "must be new, empty or a run to go on with, got corpus without config.yaml and metrics.jsonl"),
        *((f"run {n}", [], f"{n} must lie where it is named") for n in ("metrics.jsonl", "tensorboard", "model")),
        ("run config.yaml", ["--config", "run model/config.yaml"], "config.yaml must lie where it is named"),
        ("trained", ["--tokenizer", "trained/model/vocab.txt"], "must not hold an input, got trained/model/vocab.txt"),
        ("trained", ["--pretrained", "trained/model"], "must not hold an input, got trained/model"),
        ("trained", ["--data", "trained/model"], "must not hold an input, got trained/model"),
    ):
        extra = ["--config", "run model/config.yaml"] if "--config" not in more else []
        assert cli.main(words(Path("corpus"), run, *extra, *more)) == 2, run
        printed = capsys.readouterr().err
        assert told in printed
        assert printed.count("\n") == 1
        assert content(tmp_path) == before, run


def test_what_a_killed_training_left_half_written_is_swept(data: Path, tmp_path: Path) -> None:
    run, left = tmp_path / "run", "0123456789abcdef.part"
    assert cli.main(words(data, run)) == 0
    mine = ["model/.model.safetensors.notes.part", f"model/.other.{left}", f".curves.png.{left}"]
    half = [f"model/.model.safetensors.{left}", f"best/.config.json.{left}", f".metrics.jsonl.{left}"]
    (run / "best").mkdir()
    for name in (*mine, *half):
        (run / name).write_text("half")
    assert cli.main(words(data, run)) == 0
    assert [name for name in (*mine, *half) if (run / name).exists()] == mine


def test_a_checkpoint_that_a_killed_training_half_removed_is_swept(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli.main(words(data, run)) == 0
    old = run / "checkpoints" / "step-00000000"
    old.mkdir()
    (old / "state.pt").write_text("old")
    for keep, left in ((2, True), (1, False)):
        done = forked.run([*REAL, *words(data, run, "--keep_checkpoints", str(keep))], env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert old.exists() == left
        assert (run / "checkpoints" / "step-00000001" / "complete.json").is_file()


def test_a_first_model_that_was_half_in_its_place_is_gone_on_with(data: Path, tmp_path: Path) -> None:
    """Killed when the weights had taken their place and the configuration had not: they were taken for another's."""
    run = tmp_path / "run"
    assert cli.main(words(data, run)) == 0
    whole, part = content(run / "model"), run / "model" / ".config.json.0123456789abcdef.part"
    (run / "model" / "config.json").rename(part)
    done = forked.run([*REAL, *words(data, run)], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert content(run / "model") == whole
    (run / "model" / "config.json").unlink()  # of weights that nothing says of, nobody knows whose they are
    part.write_text('{"format": "another\'s"}')
    done = forked.run([*REAL, *words(data, run)], env=ENVIRONMENT)
    assert done.returncode == 2
    assert "model with another model.safetensors" in done.stderr


MEANWHILE = """
import os, subprocess, sys


class Callback:
    def __init__(self):
        words = sys.argv[1:]
        if "mine:Callback" in words:
            at = words.index("--callbacks")
            subprocess.run([sys.executable, "-m", "vtsum.cli", *words[:at], *words[at + 2 :]], check=True)

    def checkpoint_written(self, *told): ...

    epoch_end = validated = checkpoint_written
"""


def test_what_another_training_has_done_meanwhile_is_not_lost(data: Path, tmp_path: Path) -> None:
    """Two are started at once; one has ended when the other, which had found an empty folder, comes to write."""
    (tmp_path / "mine.py").write_text(MEANWHILE)
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    for run in ("new", "empty"):
        anew = [word for word in words(data, run, "--print_freq", "1") if word != "--resume"]
        if run == "empty":
            (tmp_path / run).mkdir()
        command = [*REAL, *anew, "--callbacks", "mine:Callback"]
        done = forked.run(command, env={**ENVIRONMENT, "PYTHONPATH": path}, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert f"output_dir must be new or empty, got {run} with files in it" in done.stderr.splitlines()[-1]
        assert "callbacks: null" in (tmp_path / run / "config.yaml").read_text()
        assert (tmp_path / run / "metrics.jsonl").read_text().count("\n") == 1


def test_a_folder_in_which_a_training_found_no_room_is_as_good_as_new(tmp_path: Path) -> None:
    from vtsum.training.resuming import check_folder
    from vtsum.training.settings import TrainSettings

    for name in (".lock", "metrics.jsonl"):
        (tmp_path / name).touch()
    check_folder(tmp_path, TrainSettings())
    (tmp_path / ".config.yaml.0123456789abcdef.part").write_text("half")  # the disk was full, or it was killed
    check_folder(tmp_path, TrainSettings())
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(VTSumError, match=r"output_dir must be new or empty, got .* with files in it"):
        check_folder(tmp_path, TrainSettings())


def test_measures_that_are_none_are_not_dropped_in_silence(tmp_path: Path) -> None:
    from vtsum.training.records import read_metrics

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"step": 2}')  # as an editor leaves it that strips what ends a file
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    for odd in ("mine", "[]", '{"step": "2"}', "[" * 100_000):
        path.write_text(f'{{"step": 1}}\n{odd}\n{{"step": 2}}\n')
        with pytest.raises(VTSumError, match="line 2"):
            read_metrics(path)


def test_a_converted_checkpoint_is_no_link(tmp_path: Path) -> None:
    from vtsum.training.deepspeed_engine import convert

    (tmp_path / "home").mkdir()
    for name in ("universal", ".universal.part"):
        (tmp_path / name).symlink_to("home")
        with pytest.raises(VTSumError, match=rf"{name} must lie where it is named, got a symbolic link"):
            convert(tmp_path, 1)
        (tmp_path / name).unlink()


def test_a_model_is_not_saved_over_another_kind(tmp_path: Path) -> None:
    from vtsum.config import VTSumConfig
    from vtsum.model import VTSum

    model = VTSum(VTSumConfig(width=8, num_heads=2, depth=1, memory_slots=2, max_positions=8))
    (tmp_path / "vocab.txt").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_text() == "mine"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text('{"model_type": "blip"}')
        before = content(tmp_path)
        with pytest.raises(VTSumError, match=r"folder must be new or a model of VTSum's, got .* with another "):
            model.save_pretrained(tmp_path)
        assert content(tmp_path) == before
        (tmp_path / "config.json").unlink(missing_ok=True)


def test_a_run_under_a_name_that_is_no_utf8_is_refused_at_once(data: Path, tmp_path: Path) -> None:
    """It was trained, and --resume then could not read its own config.yaml."""
    run = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe")
    refused([*REAL, *words(data, run, "--trackers", "none")], tmp_path, "output_dir must be a name in UTF-8, got")
