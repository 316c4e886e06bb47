"""What `vtsum data check` accepts, training does, and what it names, training names in the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.once import once
from tests.vtsum.hostile import refused
from tests.vtsum.test_training_run import words
from tests.vtsum.training_corpus import WIDTH, write_corpus
from vtsum.data.check import check_dataset
from vtsum.data.feature_files import read_array, write_npz
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.training.train import main


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    data = once(tmp_path_factory, "corpus_of_16", write_corpus)
    return Path(shutil.copytree(data, tmp_path / "corpus"))


def shortest(root: Path, rank: int = 0) -> str:
    """The video that a data set begins with, or one that comes later."""
    return VideoXumDataset(root).video_ids[rank]


def features(change: Callable[[np.ndarray], np.ndarray], rank: int, root: Path) -> None:
    path = root / "feat" / "blip" / f"{shortest(root, rank)}.npz"
    write_npz(path, features=change(read_array(path, "features")))


def annotations(root: Path, **changes: Any) -> None:
    path = root / "anno" / "train_videoxum.json"
    entries = json.loads(path.read_text())
    entries[3] |= changes
    path.write_text(json.dumps(entries))


def with_nan(array: np.ndarray) -> np.ndarray:
    array[2, 1] = np.nan
    return array


def narrow(array: np.ndarray) -> np.ndarray:
    return array[:, :5]


CHANGES: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "nothing": (lambda root: None, None),
    "two frames more": (partial(features, lambda a: np.concatenate([a, a[:2]]), 2), None),
    "half precision": (partial(features, lambda a: a.astype(np.float16), 2), None),
    "NaN": (partial(features, with_nan, 2), "features must be finite, got 1 NaN and 0 infinite numbers, the first in"),
    "whole numbers": (partial(features, lambda a: a.astype(np.int64), 2), "must be floating point numbers, got dtype"),
    "no frames": (partial(features, lambda a: a[:0], 2), "features must be [T, C], got [0, 32]"),
    "three frames less": (partial(features, lambda a: a[:-3], 2), "features must have as many frames as the labels"),
    "a width of its own": (partial(features, narrow, 2), f"features must have width {WIDTH}, as most, got 5"),
    "the first video's width": (partial(features, narrow, 0), f"features must have width {WIDTH}, as most, got 5"),
    "other annotators": (partial(annotations, vsum_onehot=None), "vsum_onehot must be"),
    "frames stated": (partial(annotations, sampled_frames=99), "vsum_onehot must have sampled_frames (99) frames"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_check_and_training_accept_the_same_files(kind: str, root: Path) -> None:
    change, told = CHANGES[kind]
    change(root)
    problems = check_dataset(root, splits=["train"]).problems
    if told is None:
        assert problems == []
        assert len([item for item in VideoXumDataset(root)]) == 16  # noqa: C416  # every one is read
        return
    (problem,) = problems
    assert told in problem
    with pytest.raises(VTSumError) as caught:
        list(VideoXumDataset(root))
    assert str(caught.value) == problem


def test_fewer_annotators_are_named_by_both(root: Path) -> None:
    path = root / "anno" / "train_videoxum.json"
    entries = json.loads(path.read_text())
    for entry in entries[3:5]:
        entry["vsum_onehot"] = entry["vsum_onehot"][:7]
    path.write_text(json.dumps(entries))
    first, second = check_dataset(root, splits=["train"]).problems
    assert "entry 3: v_003: must have 10 annotators, as most, got 7" in first
    assert "entry 4" in second
    with pytest.raises(VTSumError) as caught:
        VideoXumDataset(root)
    assert str(caught.value) == f"{first} (and 1 more: vtsum data check)"


def test_a_command_blames_the_file(root: Path, tmp_path: Path) -> None:
    """NaN in a video that a reader process meets, and a pretrained model's width with one file that has another."""
    path = root / "feat" / "blip" / f"{shortest(root, 2)}.npz"
    features(with_nan, 2, root)
    said = refused("train", *words(root, tmp_path / "run", "--num_workers", "1"), names=path)
    assert f"{path}: features must be finite" in said
    features(np.nan_to_num, 2, root)
    assert main(words(root, tmp_path / "good", "--max_epoch", "1")) == 0
    assert VTSum.from_pretrained(tmp_path / "good" / "model").config.width == WIDTH
    features(narrow, 0, root)
    start = ["--data", str(root), "--pretrained", str(tmp_path / "good" / "model"), "--num_workers", "0"]
    with pytest.raises(VTSumError, match=rf"{shortest(root)}.npz: features must have width {WIDTH}, as most, got 5"):
        main([*start, "--output_dir", str(tmp_path / "next")])
