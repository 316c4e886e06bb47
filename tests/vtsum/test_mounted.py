"""What is mounted in a folder of ours lies elsewhere: it is not removed with the folder."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import vtsum
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import small_clip
from tests.vtsum.test_no_run_is_lost import words
from tests.vtsum.test_nothing_is_lost import ENVIRONMENT, FAKE, REAL, content
from tests.vtsum.training_corpus import write_corpus
from vtsum import cli
from vtsum.errors import VTSumError
from vtsum.files import strangers
from vtsum.summary.staging import OURS
from vtsum.training import checkpoints


def with_mounted(place: str, command: list[str], folder: Path) -> str | None:
    """The one line in which a command refuses, with `what I keep` mounted at `place`; None in a container that lets
    nobody mount anything."""
    mount = ["unshare", "--mount", "sh", "-c", f"mount --bind 'what I keep' '{place}' && exec {shlex.join(command)}"]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        mount = ["unshare", "--map-root-user", *mount[1:]]
    done = subprocess.run(mount, env=ENVIRONMENT, cwd=folder, capture_output=True, text=True)
    if "unshare: " in done.stderr or "mount: " in done.stderr:
        return None
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["keyframes", "summary.json"])
def test_what_is_mounted_in_a_summary_is_not_deleted(name: str, tmp_path: Path) -> None:
    """It is called as a summary's own, and lies on the same disk."""
    clip = small_clip(tmp_path / "small.mp4").path
    out = vtsum.summarize(clip, tmp_path / "an o", model=ColourModel(), formats=["mp4", "keyframes", "json"]).output
    kept = tmp_path / "what I keep"
    shutil.copytree(out / "keyframes", kept) if name == "keyframes" else shutil.copy(out / name, kept)
    before = content(tmp_path)
    told = with_mounted(f"an o/{name}", [*FAKE, "summarize", str(clip), "-o", "an o", "--overwrite"], tmp_path)
    assert content(tmp_path) == before
    assert told is None or f"with {name} in it" in told


@pytest.mark.parametrize("name", ["step-00000009", ".step-00000009.part"])
def test_a_checkpoint_that_is_mounted_is_not_deleted(name: str, tmp_path: Path) -> None:
    """What lies in it has the names of ours; but it lies elsewhere."""
    corpus = write_corpus(tmp_path / "corpus", videos=4)
    assert cli.main(words(corpus, tmp_path / "a run")) == 0
    place = f"a run/checkpoints/{name}"
    (tmp_path / place).mkdir()
    shutil.copytree(tmp_path / "a run/checkpoints/step-00000001", tmp_path / "what I keep")
    before = content(tmp_path)
    told = with_mounted(place, [*REAL, *words(corpus, "a run", "--max_epoch", "2")], tmp_path)
    assert content(tmp_path) == before
    rule = f"train: {place} must be a checkpoint's folder, got one that is mounted there; move it away"
    assert told is None or rule in told


def test_a_folder_that_the_system_says_is_mounted_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a run"
    folder = run / "checkpoints" / "step-00000009"
    folder.mkdir(parents=True)
    (folder / "state.pt").touch()
    line = f"36 35 98:0 /kept {str(folder).replace(' ', chr(92) + '040')} rw - ext4 /dev/sda1 rw\n"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: line.encode())
        checkpoints.sweep(run, 0)
        assert (folder / "state.pt").exists()
        with pytest.raises(VTSumError, match="got one that is mounted there"):
            checkpoints.check(run)
    checkpoints.check(run)
    checkpoints.sweep(run, 0)
    assert not folder.exists()


def test_what_the_system_says_is_mounted_is_no_file_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a container lets nobody mount anything; a space in a path is written as octal."""
    (tmp_path / "an o" / "keyframes").mkdir(parents=True)
    for name in ("summary.txt", "keyframes/shot_0001.jpg"):
        (tmp_path / "an o" / name).touch()
    place = str(tmp_path / "an o" / "keyframes").replace(" ", "\\040")
    line = f"36 35 98:0 /kept {place} rw,noatime master:1 - ext4 /dev/sda1 rw\n"
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: line.encode() if self.name == "mountinfo" else read(self))
    assert strangers(tmp_path / "an o", OURS.fullmatch) == ["keyframes"]
    line = ""
    assert strangers(tmp_path / "an o", OURS.fullmatch) == []
