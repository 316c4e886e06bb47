"""Files are written whole or not at all, and nothing but what is ours is replaced or removed."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.samples import small_clip
from vtsum.data import feature_files
from vtsum.errors import VTSumError
from vtsum.files import check_inputs, check_new, replace_folder, replacing, strangers, write_text, written
from vtsum.summary.staging import check_output

OURS = re.compile(r"a\.txt|below/(b\d+\.txt)?")


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with written(tmp_path / "a") as part:
            part.write_text("new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_new_file_is_as_public_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with written(tmp_path / "deep" / "a") as part:
        part.write_text("new")
        part.chmod(0o600)  # as some writers do
    assert (tmp_path / "deep" / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    long = "ö" * 120 + ".json"  # as long as a name may be, in bytes
    write_text(tmp_path / long, "x")
    assert (tmp_path / long).read_text() == "x"


def test_no_link_is_followed_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "folder").mkdir()
    for name, kind in (("link", "a symbolic link"), ("folder", "a folder")):
        with pytest.raises(FileExistsError, match=f"{kind} is in its place"):
            write_text(tmp_path / name, "new")

    def late() -> None:
        with written(tmp_path / "late") as part:
            part.write_text("new")
            (tmp_path / "late").symlink_to("mine")  # laid in meanwhile

    def several() -> None:
        with replacing(tmp_path) as part:
            part("first").write_text("new")
            part("link").write_text("new")

    for action in (late, several):
        with pytest.raises(FileExistsError, match="a symbolic link is in its place"):
            action()
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["folder", "late", "link", "mine"]


@pytest.mark.parametrize("kind", ["a symbolic link", "a folder", "no regular file"])
@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--checkpoint", "none", "--data", "none", "--overwrite", "-o"],
        ["evaluate", "--checkpoint", "none", "--data", "none", "--overwrite", "--plot"],
        ["score", "none.json", "--data", "none", "--overwrite", "-o"],
        ["table", "none.json", "--overwrite", "-o"],
        ["table", "none.json", "--overwrite", "--plot"],
        ["plot", "none", "--overwrite", "-o"],
        ["benchmark", "tvsum", "--h5", "none.h5", "--plot"],
        ["data", "activitynet", "none.json", "--overwrite", "-o"],
        ["data", "ratings", "none.csv", "--features", "none", "--overwrite", "-o"],
    ],
    ids=lambda words: " ".join(words[:2]) + " " + words[-1],
)
def test_what_no_file_takes_the_place_of_is_refused_before_the_work(
    words: list[str], kind: str, tmp_path: Path
) -> None:
    """An evaluation said so after its hours."""
    name = "taken.md" if words[0] == "table" and words[-1] == "-o" else "taken.png"
    taken = tmp_path / name
    if kind == "a folder":
        taken.mkdir()
    elif kind == "no regular file":
        os.mkfifo(taken)
    else:
        taken.symlink_to("elsewhere")
    words = [*words, name] if words[0] != "benchmark" else [*words, name, "--overwrite"]
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words], env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    op = words[1] if words[0] == "data" else words[0]
    assert done.stderr.splitlines() == [f"vtsum: {op}: output {name} must be writable: {kind} is in its place"]


def test_inputs_are_known_through_links(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    out.mkdir()
    data.mkdir()
    (out / "a.txt").touch()
    check_inputs("op", out, [data, None, "no/such", "", "a\0b", tmp_path])  # an output may lie in an input folder
    check_inputs("op", data / "new", [data])
    (tmp_path / "soft").symlink_to(out / "a.txt")
    (tmp_path / "out too").symlink_to(out)
    os.link(out / "a.txt", tmp_path / "hard")
    (data / "c").touch()
    for given in (out / "a.txt", "soft", "hard", out, "out too", "out too/a.txt"):
        with pytest.raises(VTSumError, match=r"op: output .* must not hold an input, got .*; give another output"):
            check_inputs("op", tmp_path / "out too", [tmp_path / given])
    for given in (data, data / "c"):
        with pytest.raises(VTSumError, match="must not be an input"):
            check_inputs("op", data / "c", [given])
    (data / "weights").symlink_to(out / "a.txt")  # as in the folders that a hub keeps
    with pytest.raises(VTSumError, match="must not hold an input"):
        check_inputs("op", out, [data])


def make(folder: Path, text: str) -> Path:
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    (folder / "below" / "b1.txt").write_text(text)
    return folder


@pytest.mark.parametrize("name", ["c.txt", "below/a.txt", "below/b.txt", "below/b2.txt/", "below/b2.txt@", "other/"])
def test_a_folder_with_anything_else_is_not_replaced(tmp_path: Path, name: str) -> None:
    """A trailing / stands for a folder, @ for a link."""
    final, made = make(tmp_path / "final", "old"), make(tmp_path / "made", "new")
    path = final / name.rstrip("/@")
    if name.endswith("@"):
        path.symlink_to("b1.txt")
    elif name.endswith("/"):
        path.mkdir()
    else:
        path.write_text("mine")
    assert strangers(final, OURS.fullmatch) == [name.rstrip("/@")]
    with pytest.raises(FileExistsError, match=re.escape(f"{name.rstrip('/@')} in it would be lost")):
        replace_folder(made, final, OURS.fullmatch)
    assert sorted(os.listdir(tmp_path)) == ["final", "made"]
    assert (final / "below" / "b1.txt").read_text() == "old"
    assert os.path.lexists(path)


def test_what_is_laid_in_at_the_last_moment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final, made = make(tmp_path / "final", "old"), make(tmp_path / "made", "new")
    rename = os.rename

    def lays_in(source: Path, target: Path) -> None:
        if source == final:
            (final / "below" / "notes").write_text("mine")
        rename(source, target)

    monkeypatch.setattr(os, "rename", lays_in)
    with pytest.raises(FileExistsError, match="below/notes in it would be lost"):
        replace_folder(made, final, OURS.fullmatch)
    assert (final / "below" / "notes").read_text() == "mine"
    (final / "below" / "notes").unlink()

    def lays_in_later(source: Path, target: Path) -> None:
        rename(source, target)
        if source == made:
            (tmp_path / "made.old" / "below" / "notes").write_text("mine")

    monkeypatch.setattr(os, "rename", lays_in_later)
    with pytest.raises(FileExistsError, match=r"the new one is in place, what is left .* is in .*made\.old"):
        replace_folder(made, final, OURS.fullmatch)
    assert (final / "a.txt").read_text() == "new"
    assert (tmp_path / "made.old" / "below" / "notes").read_text() == "mine"


def test_an_older_folder_is_replaced(tmp_path: Path) -> None:
    final, made = make(tmp_path / "final", "old"), make(tmp_path / "made", "new")
    replace_folder(made, final, OURS.fullmatch)
    assert os.listdir(tmp_path) == ["final"]
    assert (final / "below" / "b1.txt").read_text() == "new"


def test_hard_links_are_sought_in_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three thousand of them took a minute: each had all that lies in the output looked at."""
    (tmp_path / "out" / "older").mkdir(parents=True)
    (tmp_path / "out" / "older" / "summary.mp4").write_text("mine")
    (tmp_path / "a").write_text("video")
    links = [tmp_path / f"link{number}" for number in range(20)]
    for link in links:
        link.hardlink_to(tmp_path / "a")
    walked, walk = list[str](), os.walk

    def looked(place: str | Path, **more: object) -> Iterator[tuple[str, list[str], list[str]]]:
        walked.append(str(place))
        return walk(place, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "walk", looked)
    check_inputs("op", tmp_path / "out", links)
    assert walked.count(str(tmp_path / "out")) == 1
    (tmp_path / "out" / "older" / "b").hardlink_to(tmp_path / "a")
    with pytest.raises(VTSumError, match=r"out must not hold an input, got .*link\d"):
        check_inputs("op", tmp_path / "out", links)


@pytest.mark.parametrize("full", [False, True])
def test_who_may_look_into_a_folder_stays_as_it_was(full: bool, tmp_path: Path) -> None:
    """A folder that was made for one's own eyes alone was open to all once a summary lay in it."""
    small_clip(video := tmp_path / "clip.mp4")
    (out := tmp_path / "out").mkdir(mode=0o700)
    words = ["summarize", str(video), "-o", str(out), "--no-ocr", "--no-speech", "-q", "-f", "txt"]
    for _ in range(1 + full):
        done = forked.run([sys.executable, "-m", "vtsum.cli", *words, "--overwrite"], env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert (os.listdir(out), stat.S_IMODE(out.stat().st_mode)) == (["summary.txt"], 0o700)


def test_an_empty_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was replaced by one that may be: its own parent's owner can do that."""
    (out := tmp_path / "out").mkdir(mode=0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == out and mode & os.W_OK))  # as for all but root
    with pytest.raises(VTSumError, match=r"summarize: output .*out must be writable: Permission denied"):
        check_output(out, overwrite=True)
    assert stat.S_IMODE(out.stat().st_mode) == 0o500


def test_pictures_that_could_not_be_removed_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new summary was in place, and the rest of the older one beside it."""
    (pictures := tmp_path / "out" / "keyframes").mkdir(parents=True)
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (path == pictures and mode & os.W_OK)
    )  # as for all but root
    with pytest.raises(VTSumError, match=r"summarize: output .*keyframes must be writable: Permission denied"):
        check_output(tmp_path / "out", overwrite=True)


def test_a_file_that_cannot_be_made_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table was reckoned for minutes whose plot had no place."""
    (locked := tmp_path / "locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == locked and mode & os.W_OK))  # as for all but root
    for output in (locked / "plot.png", locked / "new" / "plot.png"):
        with pytest.raises(VTSumError, match=r"table: output .*plot\.png must be writable, got a folder .*locked that"):
            check_new("table", output, overwrite=True)
    check_new("table", tmp_path / "new" / "plot.png", overwrite=False)
    assert os.listdir(tmp_path) == ["locked"]


def test_an_archive_that_may_not_be_read_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called no zip archive."""
    np.savez(path := tmp_path / "a.npz", features=np.zeros((2, 2), np.float32))

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(feature_files, "opened", denied)  # as for all but root
    with pytest.raises(VTSumError, match=r"a\.npz must be a readable file, got: Permission denied"):
        feature_files.array_header(path, "features")


@pytest.mark.parametrize(
    "words",
    [
        "data activitynet captions.json -o new/../mine.json",
        "data ratings captions.json --features feats -o new/../mine.json",
        "data synth new/../feats --train 1 --val 1 --test 1",
        "evaluate --checkpoint run --data feats -o new/../mine.json",
        "table captions.json -o new/../mine.md",
        "plot run -o new/../mine.png",
        "train --data feats --output_dir new/../run",
        "extract clip.mp4 -o mine.json/../feats",
        "benchmark summe --h5 captions.json --records captions.json/../new/../mine.json",
    ],
)
def test_an_output_goes_back_out_of_no_folder_that_is_not_there(words: str, tmp_path: Path) -> None:
    """A file of the user's was replaced: no check had seen it before the folder was made on the way."""
    for name in ("captions.json", "mine.json", "mine.md", "mine.png", "clip.mp4"):
        (tmp_path / name).write_text("{}")
    for name in ("run", "feats"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words.split()], env=ENVIRONMENT, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "must be writable: it goes back (..) out of " in done.stderr
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_file_is_written_by_no_way_back_out_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileNotFoundError, match=r"goes back \(\.\.\) out of .*new"):
        write_text(tmp_path / "new" / ".." / "mine", "ours")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "new").mkdir()
    write_text(tmp_path / "new" / ".." / "mine", "ours")
    assert (tmp_path / "mine").read_text() == "ours"
