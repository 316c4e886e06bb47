"""Evaluations that are killed at their end, or beside another: no batch that is done is lost or done again."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.videoxum_corpus import write_corpus, write_model

WORDS = ["evaluate", "--caption_tokenizer", "plain", "--batch_size", "4", "--resamples", "20", "--device", "cpu", "-q"]
KILLED = """
import os, sys
from vtsum.cli import main
from vtsum.evaluation import videoxum_plot, videoxum_run

when, draw = sys.argv.pop(1), videoxum_plot.draw


def killed(*words):
    if when == "after":
        draw(*words)
    os.kill(os.getpid(), 9)


if when != "again":
    videoxum_plot.draw = killed
else:
    videoxum_run.Job.run = lambda *words: sys.exit("a batch that was done is done again")
sys.exit(main())
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    corpus, model = write_corpus(tmp_path / "data"), write_model(tmp_path / "net")
    (tmp_path / "empty").mkdir()
    return [*WORDS, "--data", str(corpus), "--checkpoint", str(model), "-o", "e.json", "--plot", "e.png"]


def environment(folder: Path) -> dict[str, str]:
    """Without Java: METEOR, which takes seconds to start, is left out."""
    return {k: v for k, v in ENVIRONMENT.items() if k != "JAVA_HOME"} | {"PATH": str(folder / "empty")}


@pytest.mark.parametrize(("when", "last"), [("before", "e.json"), ("after", "e.png")])
def test_one_that_was_killed_as_its_plot_was_drawn_comes_to_its_end(
    words: list[str], when: str, last: str, tmp_path: Path
) -> None:
    """It was refused, its own figures, or its own picture, being in the way, and its part file stayed."""
    line, env, out = [sys.executable, "-c", KILLED], environment(tmp_path), tmp_path / "o"
    out.mkdir()
    done = subprocess.run([*line, when, *words], env=env, cwd=out, timeout=200)
    assert done.returncode == -signal.SIGKILL
    made = ["e.json", "e.json.part.jsonl", *(["e.png"] if when == "after" else [])]
    assert sorted(os.listdir(out)) == made
    whole = (out / last).read_bytes()
    (out / last).write_bytes(b"mine")
    refused = forked.run([*line, "again", *words], env=env, cwd=out)
    assert f"output {last} must not exist yet" in refused.stderr
    assert (out / last).read_bytes() == b"mine"
    (out / last).write_bytes(whole)
    again = forked.run([*line, "again", *words], env=env, cwd=out)
    assert again.returncode == 0, again.stderr
    assert sorted(os.listdir(out)) == ["e.json", "e.png"]
    assert (out / last).read_bytes() == whole


def test_what_another_one_at_work_has_done_is_not_removed(words: list[str], tmp_path: Path) -> None:
    """--overwrite begins anew, but not while another one is at the same output."""
    part = tmp_path / "e.json.part.jsonl"
    part.write_text('{"format": "vtsum-evaluation-part/1", "settings": {}}\n')
    line = [sys.executable, "-m", "vtsum.cli", *words, "--overwrite"]
    with part.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = forked.run(line, env=environment(tmp_path), cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "e.json.part.jsonl must be written by one evaluation at a time, got another at work" in done.stderr
        assert done.stderr.count("\n") == 1
        assert part.exists()
    done = forked.run(line, env=environment(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not part.exists()
