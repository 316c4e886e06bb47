"""Recipes on data and half-done work that cannot be used: one line before the hours of work, not after them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT
from tests.vtsum.test_tvsum import write_h5
from vtsum.config import Range
from vtsum.data.feature_files import write_npz
from vtsum.data.tvsum import load_tvsum
from vtsum.errors import VTSumError
from vtsum.recipes.embeddings import embeddings, fingerprint

KEYS = tuple(range(1, 11))
FOLD = {"train": ["video_1", "video_2"], "test": ["video_5"]}
EARLY = """
import sys

from vtsum.recipes import {name} as recipe

recipe.distill = recipe.embed = recipe.embeddings = lambda *words, **more: sys.exit("at work")
sys.exit(recipe.main())
"""


def said(module: str, *words: object, code: str = "") -> str:
    """What a recipe refuses: its one line."""
    command = ["-c", code] if code else ["-m", module]
    done = forked.run([sys.executable, *command, *words], env=ENVIRONMENT, cwd=ROOT, timeout=200)
    assert done.returncode == 2, done.stderr
    assert (done.stderr.count("\n"), done.stderr[:7]) == (1, "vtsum: "), done.stderr
    return done.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "tvsum").mkdir()
    write_h5(tmp_path / "tvsum" / "tvsum.h5", keys=KEYS)
    (tmp_path / "tvsum" / "splits.json").write_text(json.dumps({"disjoint_folds": [FOLD], "random_splits": [FOLD]}))
    (tmp_path / "tvsum" / "captions.json").write_text(json.dumps({f"video_{key}": [] for key in KEYS}))
    return tmp_path


@pytest.mark.parametrize("name", ["embedded", "saliency"])
@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"random_splits": [FOLD]}, "splits.json must have splits called disjoint_folds, got none"),
        (
            {"disjoint_folds": [FOLD | {"test": ["video_99"]}]},
            "disjoint_folds must name videos of the h5 file, got ['video_99']",
        ),
    ],
)
def test_folds_that_are_not_there_are_told_before_the_work(name: str, splits: dict, told: str, data: Path) -> None:
    """The embedded model was trained for hours, and lost for want of them."""
    (data / "tvsum" / "splits.json").write_text(json.dumps(splits))
    words = ["--shared", data, "--out", data / "out"]
    assert told in said("", *words, code=EARLY.format(name=name))


def test_a_table_of_folds_that_are_not_there_is_one_line(data: Path) -> None:
    (data / "tvsum" / "splits.json").write_text(json.dumps({"disjoint_folds": [FOLD]}))
    told = said("vtsum.evaluation.tvsum_table", "--shared", data)
    assert "splits.json must have splits called random_splits, got none" in told


@pytest.mark.parametrize("name", ["distill", "boundaries", "saliency", "embedded"])
def test_videos_too_few_are_one_line(name: str, data: Path) -> None:
    write_h5(data / "tvsum" / "tvsum.h5", keys=(1, 2))
    out = data / "out" / ("w.safetensors" if name == "distill" else "")
    told = said(f"vtsum.recipes.{name}", "--shared", data, "--out", out)
    assert f"{name}: {data}/tvsum/tvsum.h5 must have videos to learn from" in told
    assert "got 1, 1, 0 of them" in told


def test_captions_of_some_videos_alone_are_one_line(data: Path) -> None:
    (data / "tvsum" / "captions.json").write_text('{"video_1": []}')
    told = said("", "--shared", data, "--out", data / "out", code=EARLY.format(name="embedded"))
    assert "captions.json must have every video, got none of ['video_2'" in told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("encoder.json", "{", "out/encoder.json must be JSON, got:"),
        ("encoder.json", "{}", "out/encoder.json must have cosine, cosine_of_mean, centred_cosine, epochs, minutes"),
        ("encoder.safetensors", "mine", "out/encoder.safetensors must be a safetensors file, got:"),
    ],
)
def test_what_is_no_stages_work_is_one_line(name: str, content: str, told: str, data: Path) -> None:
    out = data / "out"
    out.mkdir()
    figures = dict.fromkeys(("cosine", "cosine_of_mean", "centred_cosine", "epochs", "minutes"), 1)
    (out / "encoder.json").write_text(json.dumps(figures))
    (out / name).write_text(content)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert told in said("vtsum.recipes.embedded", "--shared", data, "--out", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embedded", ["--epochs", "0"]),
        ("embedded", ["--text-epochs=-1"]),
        ("embedded", ["--seed=-1"]),
        ("boundaries", ["--epochs", "0"]),
        ("distill", ["--epochs", "0"]),
        ("distill", ["--seed", "9" * 400]),
    ],
)
def test_numbers_that_no_training_has_are_refused(name: str, words: list[str], data: Path) -> None:
    command = [sys.executable, "-m", f"vtsum.recipes.{name}", "--shared", data, "--out", data / "out" / "a", *words]
    done = forked.run(command, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "must be a whole number from" in done.stderr.splitlines()[-1]
    assert not (data / "out").exists()


@pytest.mark.parametrize("seeds", ["9" * 401, "0," + "9" * 19])
def test_seeds_that_no_training_has_are_told_before_the_first(seeds: str, data: Path) -> None:
    command = [sys.executable, "-m", "vtsum.cli", "train", "--data", data, "--output_dir", data / "run"]
    done = forked.run([*command, "--seeds", seeds], env=ENVIRONMENT, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "seeds must be different whole numbers of at most 18 digits, such as" in done.stderr
    assert not (data / "run").exists()


def test_a_whole_number_beyond_all_that_has_a_point_is_in_no_range() -> None:
    assert not Range(0).holds(10**400)
    assert Range(0).holds(10**18)


def test_what_another_encoder_has_embedded_is_not_taken_for_this_ones(data: Path) -> None:
    """Beside another --model in the same --out it was, in silence."""
    videos = load_tvsum(data / "tvsum" / "tvsum.h5")
    kept, state = data / "features.npz", {"a": torch.ones(2)}
    whose = fingerprint("one", state)
    arrays = {
        f"{v.key}/{part}": np.zeros(shape) for v in videos for part, shape in (("features", (3, 4)), ("index", 3))
    }
    write_npz(kept, encoder=whose, **arrays)

    def encode(images: np.ndarray) -> np.ndarray:
        raise AssertionError("they are there")

    assert embeddings(kept, whose, data, videos, encode).keys() == arrays.keys()
    for other in (fingerprint("other", state), fingerprint("one", {"a": torch.zeros(2)})):
        with pytest.raises(VTSumError, match="must be of this encoder, is of another; remove it"):
            embeddings(kept, other, data, videos, encode)
