"""`vtsum data check` names every broken file, and nothing else."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.test_videoxum import write
from tests.vtsum.training_corpus import entry
from vtsum import cli
from vtsum.data.check import check_dataset
from vtsum.data.feature_files import read_array, write_npz
from vtsum.errors import VTSumError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 9), ("val", 2), ("test", 3)):
        names = [f"{split}_{n}" for n in range(count)]
        frames = {name: 5 + n for n, name in enumerate(names)}
        write(tmp_path, [entry(name, n + 0.5, n) for name, n in frames.items()], frames, split)
    return tmp_path


def problems(root: Path, **options: Any) -> list[str]:
    return [line.replace(f"{root}/", "") for line in check_dataset(root, **options).problems]


def test_good_data_is_good(root, capsys):
    write_npz(root / "feat/blip/other.npz", features=np.zeros((3, 6)))
    report = check_dataset(root)
    assert report.problems == []
    assert (report.width, report.clip_width, report.files, report.spare) == (6, 4, 28, 1)
    train = report.splits["train"]
    assert (train.videos, train.frames, train.shortest, train.longest, train.annotators) == (9, 81, 5, 13, 10)
    assert train.seconds == 81 + 4.5
    assert cli.main(["data", "check", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 9 videos, 1.4 minutes, 81 frames (5 to 13 a video), 10 annotators",
        "val: 2 videos, 0.2 minutes, 11 frames (5 to 6 a video), 10 annotators",
        "test: 3 videos, 0.3 minutes, 18 frames (5 to 7 a video), 10 annotators",
        "28 feature files, C 6, D 4, all good; 1 belong to no video",
    ]


def test_every_broken_feature_file_is_named_once(root, capsys):
    blip, clip = root / "feat/blip", root / "feat/vt_clipscore"
    (blip / "train_0.npz").unlink()
    (blip / "train_1.npz").write_bytes(b"")
    whole = (blip / "train_2.npz").read_bytes()
    (blip / "train_2.npz").write_bytes(whole[:-40])
    write_npz(blip / "train_3.npz", features=np.zeros((11, 6)))  # 8 labels
    write_npz(blip / "train_4.npz", features=np.zeros((9, 7)))
    write_npz(blip / "train_5.npz", features=np.zeros((10, 6), np.int64))
    numbers = np.zeros((11, 6), np.float32)
    numbers[4, 2], numbers[7, 0] = np.nan, np.inf
    write_npz(blip / "train_6.npz", features=numbers)
    (blip / "train_7.npz").write_text("no archive")
    damaged = bytearray((blip / "train_8.npz").read_bytes())
    damaged[-200] ^= 1
    (blip / "train_8.npz").write_bytes(bytes(damaged))
    write_npz(clip / "val_0.npz", vision=np.zeros((5, 4)))
    write_npz(clip / "val_1.npz", vision=np.zeros((6, 4)), text=np.zeros((2, 4)))
    write_npz(clip / "test_0.npz", vision=np.zeros((5, 4)), text=np.zeros((1, 3)))
    write_npz(clip / "test_1.npz", vision=np.zeros((6, 4)), text=np.full((1, 4), np.nan))
    write_npz(blip / "test_2.npz", features=np.zeros((9, 6)))  # 7 labels: within the slack
    found = problems(root)
    expected = {
        "feat/blip/train_0.npz must exist": 1,
        "feat/blip/train_1.npz must be an npz file, got an empty file (0 bytes)": 1,
        "feat/blip/train_2.npz must be a whole npz file, got one that is cut off": 1,
        "feat/blip/train_3.npz: features must have as many frames as the labels (8), give or take 2, got 11": 1,
        "feat/blip/train_4.npz: features must have width 6, as most, got 7": 1,
        "feat/blip/train_5.npz: features must be floating point numbers, got dtype int64": 1,
        "feat/blip/train_6.npz: features must be finite, got 1 NaN and 1 infinite numbers, the first in row 4": 1,
        "feat/blip/train_7.npz must be a whole npz file, got no zip archive": 1,
        "feat/blip/train_8.npz": 1,
        "feat/vt_clipscore/val_0.npz must hold an array 'text', got vision": 1,
        "feat/vt_clipscore/val_1.npz: text must be [1, D], got [2, 4]": 1,
        "feat/vt_clipscore/test_0.npz: text must have width 4, as most, got 3": 1,
        "feat/vt_clipscore/test_1.npz: text must be finite, got 4 NaN": 1,
    }
    assert {start: sum(line.startswith(start) for line in found) for start in expected} == expected
    assert len(found) == len(expected)
    # heads do not tell of NaN; of damage they do where the file is so small that it is read at once
    quick = problems(root, quick=True)
    assert set(found) - set(quick) == {line for line in found if "finite" in line}
    assert cli.main(["data", "check", str(root)]) == 2
    printed = capsys.readouterr()
    assert sorted(line.replace(f"{root}/", "") for line in printed.out.splitlines()) == sorted(found)
    assert printed.err == f"vtsum: 13 problems in {root}\n"
    assert cli.main(["data", "check", str(root), "--split", "val", "--no-clip"]) == 0


def test_every_broken_entry_is_named(root):
    path = root / "anno/train_videoxum.json"
    entries = json.loads(path.read_text())
    del entries[0]["tsum"]
    entries[1]["vsum_onehot"][3][2] = 2
    entries[2]["vsum_onehot"] = []
    entries[3]["vsum_onehot"] = entries[3]["vsum_onehot"][:7]
    entries[4] = dict(entries[5])
    entries[6]["sampled_frames"] = 99
    entries[7] = {**entry("test_1", 6.5, 6)}
    path.write_text(json.dumps(entries))
    found = problems(root)
    expected = [
        "anno/train_videoxum.json: entry 0: train_0: tsum must be there",
        "anno/train_videoxum.json: entry 1: train_1: vsum_onehot must be 0 or 1, got 2 for annotator 3, frame 2",
        "anno/train_videoxum.json: entry 2: train_2: vsum_onehot must be [annotators x frames]",
        "anno/train_videoxum.json: entry 5: train_5: must be there once, got it in entry 4",
        "anno/train_videoxum.json: entry 6: train_6: vsum_onehot must have sampled_frames (99) frames",
        "anno/train_videoxum.json: entry 3: train_3: must have 10 annotators, as most, got 7",
        "test_1: must be in one split, got train and test",
    ]
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_broken_annotation_files_are_named(root):
    path = root / "anno/val_videoxum.json"
    path.write_bytes(path.read_bytes()[:100])
    (root / "anno/test_videoxum.json").unlink()
    found = problems(root)
    assert len(found) == 2
    assert found[0].startswith("anno/val_videoxum.json must be JSON, got: ")
    assert found[1].startswith("anno/test_videoxum.json must be a readable file, got: no such file")
    assert problems(root, splits=["train"]) == []


def test_missing_folders(root, tmp_path):
    shutil.rmtree(root / "feat/vt_clipscore")
    assert problems(root) == []
    assert problems(root, clip=True) == [
        "feat/vt_clipscore must be a folder of feature files, got nothing of that name"
    ]
    shutil.rmtree(root / "feat/blip")
    assert problems(root) == ["feat/blip must be a folder of feature files, got nothing of that name"]
    with pytest.raises(VTSumError, match="root must be a folder"):
        check_dataset(root / "nowhere")
    with pytest.raises(VTSumError, match="split must be one of train, val, test, got 'valid'"):
        check_dataset(root, splits=["valid"])


def test_videos_that_nobody_annotated(root):
    path = root / "anno/train_videoxum.json"
    entries = json.loads(path.read_text())
    for one in entries:
        del one["vsum_onehot"]
    path.write_text(json.dumps(entries))
    assert len(problems(root)) == 9
    assert problems(root, unannotated=True) == []


def test_progress_counts_files(root):
    told: list[tuple[str, int, int]] = []
    check_dataset(root, progress=lambda *seen: told.append(seen))
    assert told[0] == ("heads", 0, 28)
    assert ("heads", 28, 28) in told
    assert told[-1] == ("numbers", 28, 28)
    assert read_array(root / "feat/blip/val_0.npz", "features").shape == (5, 6)


def test_bars_are_drawn_on_a_terminal_only(root, capsys):
    """Counts on standard error where that is a terminal; standard output stays the report's."""
    command = [sys.executable, "-m", "vtsum.cli", "data", "check", str(root)]
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=100)
        drawn = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)
    for title in ("Reading heads", "Reading numbers"):
        assert re.search(rf"{title} .*28/28", drawn), drawn
    assert cli.main(["data", "check", str(root)]) == 0
    assert capsys.readouterr() == (done.stdout, "")
