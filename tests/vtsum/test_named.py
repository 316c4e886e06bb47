"""Where a folder of outputs has something else in a file's place, the one line names that file, not the folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.files import spot, written
from vtsum.recipes.tiny_clip import check_place

LIMITED = """
import resource, sys
from vtsum.cli import main
if sys.argv.pop(1) == "limited":
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
sys.exit(main())
"""


def synth(limit: str, folder: Path) -> str:
    words = ["data", "synth", str(folder), "--train", "1", "--val", "1", "--test", "1", "-q"]
    done = forked.run([sys.executable, "-c", LIMITED, limit, *words], env=ENVIRONMENT, timeout=200)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["vocab.txt", "anno/train_videoxum.json"])
@pytest.mark.parametrize("kind", ["no regular file", "a symbolic link"])
def test_a_corpus_names_the_file_in_whose_place_something_lies(name: str, kind: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    assert synth("limited", corpus) == f"vtsum: synth: {corpus} must be writable and have room: the disk is full\n"
    (corpus / name).parent.mkdir(exist_ok=True)
    (corpus / name).unlink(missing_ok=True)
    if kind == "a symbolic link":
        (corpus / name).symlink_to("elsewhere")
    else:
        os.mkfifo(corpus / name)
    said = synth("as it is", corpus)
    assert said == f"vtsum: synth: {corpus / name} must be writable and have room: {kind} is in its place\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "notes.txt"])
def test_a_clip_that_cannot_take_its_place_is_not_trained(name: str, tmp_path: Path) -> None:
    """It was trained first, for half a minute or more."""
    check_place(tmp_path / "clip")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "tokenizer.json").write_text("{}")
    check_place(tmp_path / "clip")
    (tmp_path / "clip" / name).symlink_to("elsewhere")
    with pytest.raises(VTSumError, match=rf"{name} in it would be lost"):
        check_place(tmp_path / "clip")


def test_a_temporary_file_is_told_of_as_its_folder(tmp_path: Path) -> None:
    with written(tmp_path / "a.txt") as part:
        assert spot(OSError(13, "no", str(part)), tmp_path) == str(tmp_path)
    assert spot(OSError(13, "no", str(part), None, str(tmp_path / "a.txt")), tmp_path) == str(tmp_path / "a.txt")
    assert spot(OSError(13, "no", 7), tmp_path) == str(tmp_path)
    assert spot(OSError("no"), tmp_path) == str(tmp_path)


def test_a_recipe_names_what_it_cannot_write_without_the_systems_number(tmp_path: Path) -> None:
    code = """
import errno, os, sys
from vtsum.recipes.command import status

def work():
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "disk/model")

sys.exit(status(work))
"""
    done = forked.run([sys.executable, "-c", code], env=ENVIRONMENT, cwd=tmp_path, timeout=200)
    told = "vtsum: disk/model must be a path that can be used, got: Read-only file system\n"
    assert (done.returncode, done.stderr) == (2, told)
