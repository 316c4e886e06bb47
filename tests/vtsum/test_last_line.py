"""What no part of a command expected: one line and an exit status, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from vtsum import cli
from vtsum.errors import VTSumError
from vtsum.files import make_folder
from vtsum.shown import last_words
from vtsum.summary.staging import check_output


def test_what_nobody_foresaw_is_one_line_to_a_process_and_an_exception_to_a_caller(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "import vtsum.env, vtsum.cli, sys; vtsum.env.report = lambda: 1 // 0; sys.argv[1:] = ['env']; "
    command = [sys.executable, "-c", broken + "sys.exit(vtsum.cli.main())"]
    done = forked.run(command, env=ENVIRONMENT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1)
    assert done.stderr.startswith("vtsum: this should not have happened, ZeroDivisionError: ")
    assert "VTSUM_TRACEBACK=1" in done.stderr
    shown = forked.run(command, env=ENVIRONMENT | {"VTSUM_TRACEBACK": "1"}, timeout=60)
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    monkeypatch.setattr("vtsum.env.report", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["env"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT])
def test_a_full_disk_is_the_users_to_mend(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Python finds no folder for temporary files on it, and says so in its own words."""
    words = "No usable temporary directory found in ['/tmp']" if number == errno.ENOENT else os.strerror(number)
    assert last_words(OSError(number, words)) == 2
    told = "the disk is full" if number == errno.ENOSPC else words
    assert capsys.readouterr().err == f"vtsum: the disk and a temporary folder (TMPDIR) must have room, got: {told}\n"


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["plot", LONG],
        ["data", "check", LONG],
        ["data", "activitynet", "c.json", "-o", "out.json", "--features", LONG],
        ["train", "--data", LONG],
        ["evaluate", "--checkpoint", LONG, "--data", "."],
        ["extract", LONG, "-o", "out"],
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_the_system_refuses_is_told_in_one_line(words: list[str], tmp_path: Path) -> None:
    done = forked.run(
        [sys.executable, "-m", "vtsum.cli", *words],
        env=ENVIRONMENT,
        cwd=tmp_path,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.endswith(": File name too long\n")
    assert os.listdir(tmp_path) == []


def test_the_training_module_has_a_last_line_too(tmp_path: Path) -> None:
    broken = "import runpy, sys, vtsum.training.settings as s; s.parse = lambda words: 1 // 0; sys.argv[1:] = []; "
    command = [sys.executable, "-c", broken + "runpy.run_module('vtsum.training.train', run_name='__main__')"]
    done = forked.run(command, env=ENVIRONMENT, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1), done.stderr
    assert done.stderr.startswith("vtsum: this should not have happened, ZeroDivisionError: ")


def test_a_launcher_that_counts_in_words_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vtsum.training.train"]
    environment = ENVIRONMENT | {"RANK": "first"}
    done = forked.run(command, env=environment, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "must be numbers, as torchrun sets them, got first" in done.stderr


@pytest.mark.parametrize(
    ("module", "part", "words"),
    [
        ("vtsum.recipes.film", "vtsum.files.check_new", ["out.mp4"]),
        ("vtsum.evaluation.tvsum_table", "vtsum.data.tvsum.load_tvsum", ["--shared", "."]),
    ],
)
def test_other_modules_that_are_run_have_a_last_line_too(
    module: str, part: str, words: list[str], tmp_path: Path
) -> None:
    holder, name = part.rsplit(".", 1)
    broken = f"import runpy, sys, {holder} as h; h.{name} = lambda *words: 1 // 0; sys.argv[1:] = {words}; "
    command = [sys.executable, "-c", broken + f"runpy.run_module({module!r}, run_name='__main__')"]
    done = forked.run(command, env=ENVIRONMENT, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1), done.stderr
    assert done.stderr.startswith("vtsum: this should not have happened, ZeroDivisionError: ")


@pytest.mark.parametrize(
    "words",
    [
        ["summarize", "CLIP", "-o"],
        ["batch", "CLIP", "-o"],
        ["extract", "CLIP", "-o"],
        ["data", "synth"],
        ["table", "none.json", "-o"],
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_is_too_long_in_a_folder_that_is_not_there_is_told_before_the_work(
    words: list[str], clip: Path, tmp_path: Path
) -> None:
    """The folder was made, and stayed."""
    command = [sys.executable, "-m", "vtsum.cli", *(str(clip) if word == "CLIP" else word for word in words)]
    done = forked.run([*command, f"new/{LONG}/out.md"], env=ENVIRONMENT, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.endswith(": File name too long\n")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_refused_at_once_and_leaves_none_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VTSumError, match=r"^summarize: output .*a must be writable: File name too long$"):
        check_output(tmp_path / f"new/{LONG}/a", overwrite=False)
    for name, told in ((f"new/{LONG}/a", "File name too long"), ("file/a/b", "Not a directory")):
        with pytest.raises(OSError, match=told):
            make_folder(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]
