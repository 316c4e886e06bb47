"""What comes to an output's place while a command is at work stays there; what killed recipes left does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import numbered_clip
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.test_benchmark import write_h5
from vtsum.data.feature_files import write_npz

SPY = """
from pathlib import Path


class Spy:
    def fit(self, videos, validation, seed):
        Path("p.png").write_text("mine")

    def predict(self, features):
        return features[:, 0]
"""
RATED = """
import sys
from pathlib import Path

from vtsum.benchmarks import own_data
from vtsum.cli import main

write = own_data._write


def writes(*words):
    Path("m.h5").write_text("mine")
    write(*words)


own_data._write = writes
sys.exit(main())
"""
RECIPE = """
import os, sys

from vtsum.recipes import boundaries

boundaries.tvsum = boundaries.embed = lambda *words: []
boundaries.add_boundaries = lambda model, *words: (model, {})
if sys.argv.pop(1) == "killed":
    boundaries.vocabulary_text = lambda *words: os.kill(os.getpid(), 9)
sys.exit(boundaries.main())
"""


def test_a_picture_that_was_put_there_while_a_benchmark_ran_is_kept(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5")
    (tmp_path / "spy.py").write_text(SPY)
    words = ["benchmark", "tvsum", "--h5", "a.h5", "--method", "spy:Spy", "--seeds", "1", "--plot", "p.png"]
    env = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])}
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words], env=env, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "benchmark: output p.png must not exist yet" in done.stderr.splitlines()[-1]
    assert (tmp_path / "p.png").read_text() == "mine"
    assert (tmp_path / "benchmark_tvsum.jsonl").read_text().count("spy:Spy") > 1, "the rows are kept"


@pytest.fixture
def rated(tmp_path: Path) -> list[str]:
    """The words that make m.h5 of one video."""
    write_npz(tmp_path / "feats" / "a.npz", features=np.eye(20, 4, dtype=np.float32))
    video = {"source": "a.mp4", "bytes": 1, "frames": 20, "duration": 10.0}
    head = {"format": "vtsum-features/1", "encoder": "x", "weights_sha256": "a", "fps": 2.0, "image_size": 64, "dim": 4}
    (tmp_path / "feats" / "manifest.json").write_text(json.dumps({**head, "videos": {"a": video}}))
    (tmp_path / "r.json").write_text(json.dumps({"a": {"x": [[0, 2], [6, 4]], "y": [[0, 3]]}}))
    return ["data", "ratings", "r.json", "--features", "feats", "-o", "m.h5"]


def test_a_disk_without_room_for_ratings_is_one_line(rated: list[str], tmp_path: Path) -> None:
    """HDF5 ended the process, and left what it had written."""
    full = "import resource, signal, sys, vtsum.benchmarks.own_data, h5py; from vtsum.cli import main; "
    full += "sys.dont_write_bytecode = True; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    full += "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", full, *rated], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("vtsum: ratings: output m.h5 must be writable: ")
    assert done.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["feats", "r.json"]


def test_a_file_that_was_put_there_while_ratings_were_written_is_kept(rated: list[str], tmp_path: Path) -> None:
    done = forked.run([sys.executable, "-c", RATED, *rated], env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == ["vtsum: ratings: output m.h5 must not exist yet (--overwrite replaces it)"]
    assert (tmp_path / "m.h5").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["feats", "m.h5", "r.json"]
    done = forked.run([sys.executable, "-c", RATED, *rated, "--overwrite"], env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.h5").read_bytes()[1:4] == b"HDF"


LIMITED = """import resource, sys
sys.dont_write_bytecode = True
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""
"""A disk on which no file has room for more bytes. What Python compiles would be cut off there, for others, too."""


def test_a_recipe_whose_disk_was_full_can_be_started_again(tmp_path: Path) -> None:
    """The folder that it had made for its model was taken for somebody's model."""
    words = ["again", "--shared", str(tmp_path), "--out", str(tmp_path / "out")]
    limited = [sys.executable, "-c", LIMITED.format(10_000) + RECIPE, *words]
    done = subprocess.run(limited, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "the disk is full" in done.stderr
    assert not (tmp_path / "out" / "model").exists()
    again = forked.run([sys.executable, "-c", RECIPE, *words], env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr


def test_a_stream_whose_disk_was_full_can_be_started_again(tmp_path: Path) -> None:
    """The folder that it had made was taken for an older summary."""
    numbered_clip(tmp_path / "a.mp4", 75)
    words = ["summarize", "a.mp4", "--live", "--patience", "1", "-o", "o", "-q"]
    code = LIMITED.format(400) + "import sys; from vtsum.cli import main; sys.exit(main())"
    limited = [sys.executable, "-c", code, *words]
    done = subprocess.run(limited, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "o must have room for the summary, the disk is full" in done.stderr
    assert os.listdir(tmp_path) == ["a.mp4"]
    again = forked.run([sys.executable, "-m", "vtsum.cli", *words], env=ENVIRONMENT, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "o" / "summary.json").is_file()


def test_a_benchmark_without_room_for_a_row_names_its_records(tmp_path: Path) -> None:
    """What was left of the row was written once more as the file was closed, and that error told."""
    write_h5(tmp_path / "a.h5")
    code = LIMITED.format(2000) + "import sys; from vtsum.cli import main; sys.exit(main())"
    limited = [sys.executable, "-c", code, "benchmark", "tvsum", "--h5", "a.h5", "--seeds", "1"]
    done = subprocess.run(limited, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "vtsum: benchmark: benchmark_tvsum.jsonl must be writable: the disk is full\n"


@pytest.mark.parametrize("mine", [False, True])
def test_a_recipe_that_was_killed_as_it_wrote_its_model_can_be_started_again(tmp_path: Path, mine: bool) -> None:
    """What it had left was taken for somebody's model."""
    out = tmp_path / "out"
    words = ["--shared", str(tmp_path), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", RECIPE, "killed", *words], env=ENVIRONMENT, timeout=200)
    assert done.returncode == -signal.SIGKILL
    assert all(name.endswith(".part") for name in os.listdir(out / "model"))
    assert os.listdir(out / "model") != []
    (out / ".features.npz.0123456789abcdef.part").write_text("half")
    if mine:
        (out / "model" / "notes.txt").write_text("mine")
    again = forked.run([sys.executable, "-c", RECIPE, "again", *words], env=ENVIRONMENT)
    assert (again.returncode == 0) == (not mine), again.stderr
    assert os.listdir(out) == ["model"]
    made = ["config.json", "model.safetensors", "vocab.txt"]
    assert sorted(os.listdir(out / "model")) == (["notes.txt"] if mine else made)
    over = forked.run([sys.executable, "-c", RECIPE, "again", *words, "--overwrite"], env=ENVIRONMENT)
    assert over.returncode == 0, over.stderr  # it refused any folder
    assert sorted(os.listdir(out / "model")) == sorted(made + (["notes.txt"] if mine else []))
    (out / "model" / "vocab.txt").unlink()
    (out / "model" / "vocab.txt").symlink_to(tmp_path / "mine")
    over = forked.run([sys.executable, "-c", RECIPE, "again", *words, "--overwrite"], env=ENVIRONMENT)
    assert over.returncode == 2, over.stderr
    assert "vocab.txt must be writable: a symbolic link is in its place" in over.stderr
