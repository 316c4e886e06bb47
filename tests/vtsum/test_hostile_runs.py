"""Training runs of a stranger: resuming one runs nothing that lies in it, and what is wrong with it is one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT, Payload, refused
from tests.vtsum.test_training_run import words
from tests.vtsum.training_corpus import write_corpus
from vtsum.errors import VTSumError
from vtsum.training import checkpoints, shards
from vtsum.training.checkpoints import Checkpoint
from vtsum.training.deepspeed_engine import convert
from vtsum.training.optimizers import moments_alone
from vtsum.training.resuming import claim
from vtsum.training.settings import TrainSettings
from vtsum.training.train import main

STEP = "checkpoints/step-00000004"
MODEL_STATES, OPTIMIZER = "zero/mp_rank_00_model_states.pt", "zero/zero_pp_rank_0_mp_rank_00_optim_states.pt"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of plain PyTorch, of four steps."""
    run = tmp_path_factory.mktemp("plain") / "run"
    assert main(words(data, run, "--max_epoch", "1")) == 0
    return run


def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def list_anew(run: Path) -> None:
    """Have the marker say what lies there, as one who means harm would."""
    folder = run / STEP
    facts = json.loads((folder / checkpoints.MARKER).read_text())
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != checkpoints.MARKER]
    facts["files"] = {str(p.relative_to(folder)): p.stat().st_size for p in files}
    facts["sha256"] = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    (folder / checkpoints.MARKER).write_text(json.dumps(facts))


def test_two_trainings_do_not_share_a_folder(data: Path, plain: Path, tmp_path: Path) -> None:
    run = copy(plain, tmp_path)
    before = sorted(p.name for p in run.rglob("*"))
    with claim(run, TrainSettings(resume=True)):
        refused(
            "train",
            *words(data, run, "--max_epoch", "1", "--resume"),
            names=Path(f"one training's at a time, got {run}"),
        )
    assert sorted(p.name for p in run.rglob("*")) == before


def test_the_settings_of_an_optimizer_are_not_taken_from_a_checkpoint() -> None:
    """A stranger's betas or weight decay would train in silence what the settings do not say."""

    def stepped(**options: Any) -> torch.optim.AdamW:
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([weight], **options)
        weight.grad = torch.ones(3)
        optimizer.step()
        return optimizer

    own, other = stepped(lr=0.1), stepped(lr=9.0, betas=(0.1, 0.1), weight_decay=0.9, maximize=True)
    before = {name: value for name, value in own.param_groups[0].items() if name != "params"}
    with moments_alone(own):
        own.load_state_dict(other.state_dict())
    assert {name: value for name, value in own.param_groups[0].items() if name != "params"} == before
    taken, given = (next(iter(optimizer.state.values())) for optimizer in (own, other))
    assert torch.equal(taken["exp_avg"], given["exp_avg"])


def test_moments_of_other_weights_are_refused(data: Path, plain: Path, tmp_path: Path) -> None:
    run = copy(plain, tmp_path)
    state = torch.load(run / STEP / "state.pt", weights_only=True)
    first = next(iter(state["optimizer"]["state"].values()))
    first["exp_avg"] = torch.zeros(3)
    torch.save(state, run / STEP / "state.pt")
    list_anew(run)
    with pytest.raises(VTSumError, match=r"state\.pt must hold this model and its optimizer, got: exp_avg \[3\]"):
        main(words(data, run, "--max_epoch", "1", "--resume"))


def test_weights_whose_checkpoints_are_gone_are_not_replaced(data: Path, plain: Path, tmp_path: Path) -> None:
    run = copy(plain, tmp_path)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(VTSumError, match="got none, and a new training would replace"):
        main(words(data, run, "--max_epoch", "1", "--resume"))
    assert (run / "model" / "model.safetensors").is_file()


NONSENSE: dict[str, Any] = {
    "weights alone": {},
    "a list": [1, 2],
    "numbers for weights": {"model": {"position_embeddings.weight": 3}, "optimizer": {}},
    "no random states": {"torch": [1], "cuda": None, "numpy": 3, "python": None},
}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("state.pt", lambda s: None, 'no "model"'),
        ("state.pt", lambda s: {**s, "optimizer": 3}, '"optimizer" that is no dictionary'),
        ("state.pt", lambda s: {**s, "model": {**s["model"], "a": "x"}}, '"a" that is no tensor'),
        ("state.pt", lambda s: {**s, "model": {}}, "Missing key"),
        ("state.pt", lambda s: with_moment(s, step=torch.zeros(2)), "step that is no number"),
        ("state.pt", lambda s: with_moment(s, step="x"), "values that do not belong together"),
        ("state.pt", lambda s: with_moment(s, exp_avg=3), "exp_avg that is no tensor of real numbers"),
        ("state.pt", lambda s: with_moment(s, exp_avg=torch.zeros(3)), "exp_avg [3] of weights"),
        ("state.pt", lambda s: {**s, "optimizer": {**s["optimizer"], "state": {0: 3}}}, "values that do not belong"),
        ("rng-00000.pt", lambda s: {**s, "torch": "x"}, "values that do not belong together"),
        ("rng-00000.pt", lambda s: {**s, "python": (3, None)}, "values that do not belong together"),
        ("rng-00000.pt", lambda s: {**s, "numpy": ()}, "values that do not belong together"),
        ("rng-00000.pt", lambda s: {}, 'no "torch"'),
    ],
)
def test_what_does_not_fit_is_told_in_the_files_words(
    name: str, change: Callable[[Any], Any], said: str, data: Path, plain: Path, tmp_path: Path
) -> None:
    """Not in Python's, as "'NoneType' object is not subscriptable"."""
    run = copy(plain, tmp_path)
    state = torch.load(run / STEP / name, weights_only=True)
    torch.save(change(state), run / STEP / name)
    list_anew(run)
    with pytest.raises(VTSumError, match=rf"{name} must hold .*, got: {re.escape(said)}"):
        main(words(data, run, "--max_epoch", "1", "--resume"))


def with_moment(state: dict[str, Any], **held: Any) -> dict[str, Any]:
    kept = state["optimizer"]["state"]
    return {**state, "optimizer": {**state["optimizer"], "state": {**kept, 0: {**kept[0], **held}}}}


@pytest.mark.parametrize("name", ["state.pt", "rng-00000.pt"])
@pytest.mark.parametrize("kind", [*NONSENSE, "code", "text"])
def test_a_plain_runs_files_are_read_without_running_them(
    name: str, kind: str, data: Path, plain: Path, tmp_path: Path
) -> None:
    run = copy(plain, tmp_path)
    path, mark = run / STEP / name, tmp_path / "mark"
    if kind == "text":
        path.write_text("hello")
    else:
        torch.save(Payload(mark) if kind == "code" else NONSENSE[kind], path)
    list_anew(run)
    with pytest.raises(VTSumError) as caught:
        main(words(data, run, "--max_epoch", "1", "--resume"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        ("[" * 100_000, "levels"),
        ("[]", "must hold an object"),
        ('{"format": "vtsum-checkpoint/1", "step": ' + "9" * 401 + "}", "more than 64 bits"),
        ({"files": ["state.pt"]}, "files of its complete.json is not an object"),
        ({"step": "4"}, "step of its complete.json is not a whole number"),
        ({"ranks": None}, "ranks of its complete.json is not a whole number"),
        ({"global_batch": 0}, "out of range"),
    ],
)
def test_nonsense_in_a_marker_is_told(
    content: Any, flaw: str, data: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(plain, tmp_path)
    marker = run / STEP / checkpoints.MARKER
    if isinstance(content, dict):
        content = json.dumps(json.loads(marker.read_text()) | content)
    marker.write_text(content)
    found, lines = checkpoints.find(run)
    assert found is None
    assert flaw in lines[0]
    assert str(run / STEP) in lines[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [("[" * 100_000, "levels"), ("{}", "must have a step, got none"), ('{"step": NaN}', "not finite")],
)
def test_nonsense_among_the_measures_is_told(line: str, message: str, data: Path, plain: Path, tmp_path: Path) -> None:
    run = copy(plain, tmp_path)
    (run / "metrics.jsonl").write_text(line + "\n" + (run / "metrics.jsonl").read_text())
    with pytest.raises(VTSumError, match=rf"{run}/metrics\.jsonl: line 1 .*{message}"):
        main(words(data, run, "--max_epoch", "1", "--resume"))


def test_a_command_resumes_no_code(data: Path, plain: Path, tmp_path: Path) -> None:
    run = copy(plain, tmp_path)
    torch.save({"model": Payload(tmp_path / "mark")}, run / STEP / "state.pt")
    list_anew(run)
    resume = words(data, run, "--max_epoch", "1", "--resume")
    assert "got posix.mkdir" in refused("train", *resume, names=run / STEP / "state.pt")
    assert not (tmp_path / "mark").exists()


def test_a_file_is_read_once_whatever_names_a_marker_has_for_it(data: Path, plain: Path, tmp_path: Path) -> None:
    """Else some kilobytes, with a file of nothing but a hole, would be work for hours."""
    run = copy(plain, tmp_path)
    (run / STEP / "zero").mkdir()
    with open(run / STEP / MODEL_STATES, "wb") as file:
        file.truncate(100 << 20)
    list_anew(run)
    marker = run / STEP / checkpoints.MARKER
    facts = json.loads(marker.read_text())
    for key in ("files", "sha256"):
        facts[key] |= {MODEL_STATES.replace("/", "/" + "./" * n): facts[key][MODEL_STATES] for n in range(1, 2000)}
    marker.write_text(json.dumps(facts))
    with pytest.raises(VTSumError, match="must find a whole checkpoint"):
        main(words(data, run, "--max_epoch", "1", "--resume"))
    assert "'zero/./mp_rank_00_model_states.pt', which is no plain name" in checkpoints.find(run)[1][0]


@pytest.fixture(scope="module")
def sharded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DeepSpeed, stage 1, one process."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    run = tmp_path_factory.mktemp("sharded") / "run"
    arguments = words(data, run, "--max_epoch", "1", "--deepspeed", "configs/ds_zero1.json")
    command = [sys.executable, "-m", "vtsum.cli", "train", *arguments]
    done = forked.run(command, cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def code(run: Path, mark: Path) -> Path:
    path = run / STEP / OPTIMIZER
    torch.save({"optimizer_state_dict": Payload(mark)}, path)
    list_anew(run)
    return path


def old_form(run: Path, mark: Path) -> Path:
    """PyTorch's form before zip files, which it still reads."""
    path = run / STEP / MODEL_STATES
    torch.save({"module": Payload(mark)}, path, _use_new_zipfile_serialization=False)
    list_anew(run)
    return path


def bare_pickle(run: Path, mark: Path) -> Path:
    path = run / STEP / MODEL_STATES
    path.write_bytes(pickle.dumps(Payload(mark)))
    list_anew(run)
    return path


def unlisted(run: Path, mark: Path) -> Path:
    path = run / STEP / "zero" / "layer_0_expert_0_mp_rank_00_model_states.pt"
    torch.save({"a": torch.zeros(1)}, path)
    return path


def converted(run: Path, mark: Path) -> Path:
    """In the universal form, which is made after the marker and so not listed."""
    path = run / STEP / "universal" / "zero" / "weight" / "fp32.pt"
    path.parent.mkdir(parents=True)
    torch.save(Payload(mark), path)
    return path


def link(run: Path, mark: Path) -> Path:
    path = run / STEP / MODEL_STATES
    path.rename(mark.with_name("elsewhere.pt"))
    path.symlink_to(mark.with_name("elsewhere.pt"))
    return path


def linked_folder(run: Path, mark: Path) -> Path:
    path = run / STEP / "zero"
    path.rename(mark.with_name("elsewhere"))
    path.symlink_to(mark.with_name("elsewhere"))
    return path


def leading_away(run: Path, mark: Path) -> Path:
    """The converter writes a file for each parameter, under its name."""
    path = run / STEP / MODEL_STATES
    state = torch.load(path, weights_only=True)
    state["module"][f"../../../../{mark.name}/x"] = torch.zeros(1)
    torch.save(state, path)
    list_anew(run)
    return path


def hidden(run: Path, mark: Path) -> Path:
    """Such names, unseen by who asks for `keys`: the converter, which asks for `items`, wrote beside the run."""
    for name, parts in ((MODEL_STATES, "param_shapes"), (OPTIMIZER, "param_slice_mappings")):
        state = torch.load(run / STEP / name, weights_only=False)
        named = (state["optimizer_state_dict"] if name == OPTIMIZER else state)[parts][0]
        named[f"../../../../../../{mark.name}"] = next(iter(named.values()))
        named.keys = OrderedDict
        torch.save(state, run / STEP / name)
    list_anew(run)
    return run / STEP / MODEL_STATES


def patterns(run: Path, mark: Path) -> Path:
    """The converter searched names by them, for years."""
    path = run / STEP / MODEL_STATES
    state = torch.load(path, weights_only=False)
    state["universal_checkpoint_info"] = {"tp_replicated_parameter_patterns": [r"([\w.]+)+!"]}
    torch.save(state, path)
    list_anew(run)
    return path


def name_as_pattern(run: Path, mark: Path) -> Path:
    path = run / STEP / OPTIMIZER
    state = torch.load(path, weights_only=False)
    named = state["optimizer_state_dict"]["param_slice_mappings"][0]
    named["(a+)+!"] = next(iter(named.values()))
    torch.save(state, path)
    list_anew(run)
    return path


def other_ranks(run: Path, mark: Path) -> Path:
    """It went on with status 0."""
    path = run / STEP / checkpoints.MARKER
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ranks": 10**12}))
    return path


CHANGES: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "code": (code, r"must hold tensors and plain data alone, got posix\.mkdir"),
    "code in the old form": (old_form, "must hold tensors and plain data alone, got posix.mkdir"),
    "a bare pickle": (bare_pickle, "must hold tensors and plain data alone, got something else"),
    "a file that is not listed": (unlisted, "must be listed in the checkpoint's marker"),
    "code in the universal form": (converted, "must hold tensors and plain data alone"),
    "a link": (link, "must be a file of its own"),
    "a linked folder": (linked_folder, "must be a file of its own"),
    "another number of ranks": (other_ranks, r"must be those whose shards it lists, \[0\], got 1000000000000"),
    "a name that leads away": (leading_away, r"must name parameters, got '\.\./"),
    "a name that is hidden": (hidden, "must hold dictionaries with their own methods, got another keys"),
    "patterns": (patterns, "must name parameters, got 'universal_checkpoint_info'"),
    "a name that is a pattern": (name_as_pattern, r"must name parameters, got '\(a\+\)\+!'"),
}


def found_in(run: Path) -> Checkpoint:
    return Checkpoint(run / STEP, json.loads((run / STEP / checkpoints.MARKER).read_text()))


@pytest.mark.parametrize("kind", CHANGES)
def test_shards_are_looked_at_before_deepspeed_reads_them(kind: str, sharded: Path, tmp_path: Path) -> None:
    run, mark = copy(sharded, tmp_path), tmp_path / "mark"
    shards.check(found_in(run))
    change, message = CHANGES[kind]
    path = change(run, mark)
    with pytest.raises(VTSumError, match=message) as caught:
        shards.check(found_in(run))
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_the_converter_writes_through_no_link(sharded: Path, tmp_path: Path) -> None:
    run, elsewhere = copy(sharded, tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / STEP / ".universal.part").symlink_to(elsewhere)
    with pytest.raises(VTSumError, match=r"\.universal\.part must lie where it is named, got a symbolic link"):
        convert(run / STEP, 1)
    assert not list(elsewhere.iterdir())
    (run / STEP / ".universal.part").unlink()
    convert(run / STEP, 1)  # and what it writes itself is let in
    assert (run / STEP / "universal" / "zero").is_dir()
    shards.check(found_in(run))


def test_a_converted_checkpoint_is_one_still(sharded: Path, tmp_path: Path) -> None:
    """DeepSpeed's converter leaves a file beside its output; whoever resumed such a run again, perhaps before it came
    to the next checkpoint, would have been told that a stranger's file is in it."""
    run = copy(sharded, tmp_path)
    before = set(os.listdir(run / STEP))
    convert(run / STEP, 1)
    assert set(os.listdir(run / STEP)) == before | {"universal"}
    checkpoints.check(run)
    (run / STEP / "latest_universal").write_text("universal")  # as it was left once
    checkpoints.check(run)
    (run / STEP / "universal/zero/mine.txt").write_text("mine")
    with pytest.raises(VTSumError, match=r"got universal/zero/mine\.txt; move it away"):
        checkpoints.check(run)


def test_deepspeed_itself_is_kept_from_running_code(sharded: Path, tmp_path: Path) -> None:
    """Whatever took the place of a shard after it was looked at."""
    run, mark = copy(sharded, tmp_path), tmp_path / "mark"
    code(run, mark)
    with shards.weights_only(), pytest.raises(pickle.UnpicklingError, match="mkdir"):
        torch.load(run / STEP / OPTIMIZER, weights_only=False)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    folders = ["--input_folder", str(run / STEP / "zero"), "--output_folder", str(tmp_path / "out")]
    command = [sys.executable, "-m", "vtsum.training.shards", *folders, "--inject_missing_state"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "weights_only" in done.stderr.lower() or "Weights only" in done.stderr
    assert not mark.exists()


def test_a_command_resumes_no_shard_that_holds_code(data: Path, sharded: Path, tmp_path: Path) -> None:
    run = copy(sharded, tmp_path)
    path = code(run, tmp_path / "mark")
    resume = words(data, run, "--max_epoch", "1", "--resume", "--deepspeed", "configs/ds_zero1.json")
    assert "tensors and plain data alone" in refused("train", *resume, names=path)
    assert not (tmp_path / "mark").exists()
