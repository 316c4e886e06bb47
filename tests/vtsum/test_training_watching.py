"""Trackers and callbacks: TensorBoard's and wandb's own files, and parts of the user's own, by plain commands."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import forked
from tests.once import once
from tests.vtsum.test_own_model import NO_JAVA
from tests.vtsum.test_training_run import measures, words
from tests.vtsum.training_corpus import write_corpus
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.training.trackers import WeightsAndBiases, trackers_of
from vtsum.training.train import main

MINE = """
import json
from pathlib import Path

def write(*what):
    with open(Path(__file__).with_name("seen"), "a") as file:
        file.write(json.dumps(what) + "\\n")

class Tracker:
    def start(self, run, step, settings):
        write("start", run.name, step, settings["optimizer"], settings["model"]["width"])
    def log(self, values, step):
        write("log", step, sorted(values)[0], len(values))
    def finish(self):
        write("finish")

class Callback:
    def checkpoint_written(self, run, folder, step):
        assert (folder / "complete.json").is_file() and (run / "model" / "config.json").is_file()
        write("checkpoint", folder.name, step)
    def epoch_end(self, run, line):
        write("epoch", line["epoch"], line["step"])
    def validated(self, run, line):
        write("validated", line["step"], "f1" in line)

class Broken(Callback):
    def epoch_end(self, run, line):
        raise KeyError("mine")

class Refused(Callback):
    def epoch_end(self, run, line):
        raise ConnectionRefusedError(111, "Connection refused")

class Half:
    def start(self, run, step, settings): ...
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen videos to train on and six to validate on."""

    def make(root: Path) -> None:
        write_corpus(root, videos=22)
        path = root / "anno" / "train_videoxum.json"
        entries = json.loads(path.read_text())
        path.write_text(json.dumps(entries[:16]))
        (root / "anno" / "val_videoxum.json").write_text(json.dumps(entries[16:]))

    return once(tmp_path_factory, "corpus_of_16_and_6", make)


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.remove(''); from vtsum.cli import main; sys.exit(main())"
    own = {**NO_JAVA, "HOME": str(folder), **environment}
    return forked.run(
        [sys.executable, "-c", code, "train", *arguments],
        cwd=folder,
        env=own,
    )


def stored(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: a head of 7 bytes, then in blocks of 32 KiB checksum, length and kind
    (whole, first, middle or last) of each piece."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        if at + 7 + length > len(content):
            return  # still being written
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def whole(path: Path) -> list[Any]:
    """The records of a run of wandb's; its service may still be writing the last of them when `finish` returns."""
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + 30
    while True:
        records = [wandb_internal_pb2.Record.FromString(content) for content in stored(path.read_bytes())]
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.1)


def wandb_records(run: Path) -> list[tuple[str, dict[int, dict[str, Any]], dict[str, Any]]]:
    """Of each offline run below RUN: its id, what was logged by steps, and its configuration."""
    found = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        name, config = "", {}
        logged: dict[int, dict[str, Any]] = {}
        for record in whole(path):
            if record.HasField("run"):
                name = record.run.run_id
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                logged.setdefault(record.history.step.num or items.get("_step", 0), {}).update(items)
        found.append((name, logged, config))
    return found


def board(run: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_all_of_them_at_once_and_again_after_resuming(data, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    run = tmp_path / "run"
    own = ["--trackers", "tensorboard,mine:Tracker", "--callbacks", "mine:Callback"]
    first = command(tmp_path, *words(data, run, "--val_every", "1", "--max_epoch", "1"), *own)
    assert first.returncode == 0, first.stderr
    # A config.yaml does not name code; of our own it may.
    again = ["--resume", "--output_dir", str(run), "--max_epoch", "2"]
    for missing, said in (("trackers", own[2:]), ("callbacks", own[:2])):
        with pytest.raises(VTSumError, match=f"{missing} names code to run and must be given on the command line"):
            main([*again, *said])
    second = command(tmp_path, *again, *own)
    assert second.returncode == 0, second.stderr

    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    validation = json.loads((run / "validation.jsonl").read_text().splitlines()[0])
    measured = sum(value is not None for value in validation.values()) - len(("step", "epoch"))
    epochs = [
        [
            ["start", "run", 4 * epoch, "AdamW", 32],
            *(["log", step, "train/grad_norm", 9] for step in range(4 * epoch + 1, 4 * epoch + 5)),
            ["checkpoint", f"step-{4 * epoch + 4:08d}", 4 * epoch + 4],
            ["epoch", epoch + 1, 4 * epoch + 4],
            ["log", 4 * epoch + 4, "val/bleu4", measured],
            ["validated", 4 * epoch + 4, True],
            ["finish"],
        ]
        for epoch in (0, 1)
    ]
    assert seen == epochs[0] + epochs[1]

    lines = measures(run)
    shown = board(run)
    assert shown["train/loss"] == pytest.approx({line["step"]: line["loss"] for line in lines}, rel=1e-6)
    assert set(shown["val/f1"]) == {4, 8}


def test_a_strangers_link_tells_wandb_of_no_other_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    (tmp_path / "secret").write_text("key")
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / "run-id").symlink_to(tmp_path / "secret")
    board = WeightsAndBiases.__new__(WeightsAndBiases)  # wandb need not be installed
    with pytest.raises(VTSumError, match="run-id must lie where it is named, got a symbolic link"):
        board.start(tmp_path / "run", 1, {})


def test_a_strangers_run_sends_wandb_to_no_server_of_theirs(tmp_path, monkeypatch):
    """wandb takes the settings that lie in the folder in which it is started, its server's address among them."""
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nbase_url = http://theirs\n")
    monkeypatch.chdir(tmp_path)
    board = WeightsAndBiases.__new__(WeightsAndBiases)
    with pytest.raises(VTSumError, match=r"settings must not say which server wandb tells, .*; move it away"):
        board.start(Path(), 1, {})


def test_wandb_keeps_a_run_offline_and_goes_on_in_the_same_one(data, tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(java, "_java", lambda: None)
    run = tmp_path / "run"
    for epochs, more in ((1, []), (2, ["--resume"])):
        own = ["--trackers", "wandb", "--val_every", "1", "--max_epoch", str(epochs), *more]
        assert main(words(data, run, *own)) == 0
    assert "wandb" not in capfd.readouterr().err.replace(str(run), "")  # it keeps quiet
    kept = wandb_records(run)
    assert len(kept) == 2
    assert kept[0][0] == kept[1][0] == (run / "wandb" / "run-id").read_text()
    assert kept[0][2]["optimizer"] == "AdamW"
    logged = kept[0][1] | kept[1][1]
    for line in measures(run):
        assert logged[line["step"]]["train/loss"] == line["loss"]
    validation = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [logged[step]["val/f1"] for step in (4, 8)] == [line["f1"] for line in validation]
    assert not (run / "tensorboard").exists()


def test_none_leaves_the_lines_of_json_alone(data, tmp_path):
    run = tmp_path / "run"
    assert main(words(data, run, "--max_epoch", "1", "--trackers", "none")) == 0
    assert not (run / "tensorboard").exists()
    assert len(measures(run)) == 4


def test_a_failure_of_ones_own_part_is_not_the_runs(data, tmp_path, monkeypatch):
    """A connection of theirs that is refused is no output_dir that cannot be written."""
    (tmp_path / "theirs.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VTSumError, match="epoch_end of theirs:Refused must not fail, got: Connection refused"):
        main(words(data, tmp_path / "run", "--callbacks", "theirs:Refused"))


def test_what_a_callback_raises_ends_the_run_in_one_line(data, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = command(tmp_path, *words(data, tmp_path / "run", "--callbacks", "mine:Broken", "--print_freq", "100"))
    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert "KeyError: 'mine'" in line


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--trackers", "mlflow"],
            "tracker: must be module:Class or the name of an entry point of vtsum.trackers, got",
        ),
        (["--trackers", "wandb,wandb"], "trackers must be named once each, got wandb,wandb"),
        (
            ["--callbacks", "json:JSONDecoder"],
            "json:JSONDecoder must have what vtsum.protocols.Callback lists, got none",
        ),
        (
            ["--trackers", "half:Half"],
            "half:Half must have what vtsum.protocols.Tracker lists, got none of its log, fin",
        ),
        (["--callbacks", "nowhere:Mine"], "callback: nowhere:Mine must be a class that can be imported"),
    ],
)
def test_what_is_no_tracker_or_callback_is_told_before_anything_is_written(data, tmp_path, monkeypatch, more, told):
    (tmp_path / "half.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VTSumError, match=told):
        main(words(data, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "extra"), [("tensorboard", "train"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_told_with_its_extra(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(
        VTSumError, match=rf"{name} must be installed: pip install vtsum\[{extra}\]; or --trackers none"
    ):
        trackers_of(name)


def test_wandb_without_an_account_is_one_line(data, tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    nobody = {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": ""}
    done = command(tmp_path, *words(data, tmp_path / "run", "--trackers", "wandb"), **nobody)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "wandb must be ready (wandb login), or WANDB_MODE=offline be set, got: " in line
