"""The rows that `vtsum benchmark` keeps: hours of work, of which nothing is left out that the file holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.test_benchmark import write_h5

COMMAND = [sys.executable, "-m", "vtsum.cli", "benchmark", "tvsum", "--h5", "a.h5", "--seeds", "1", "-q"]


def rows(folder: Path) -> Any:
    """`vtsum benchmark --records rows.jsonl` as a process in a folder."""
    return forked.run([*COMMAND, "--records", "rows.jsonl"], cwd=folder, env=ENVIRONMENT, timeout=240)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_h5(folder / "a.h5")
    done = rows(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def _cut(content: bytes) -> bytes:
    return content[: content.rindex(b'"seed"')]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        pytest.param(lambda content: content[:-1], lambda content: content, id="without the last line's end"),
        pytest.param(
            lambda content: content.replace(b"\n", b"\r"),
            lambda content: content.replace(b"\n", b"\r"),
            id="of old Macs",
        ),
        pytest.param(lambda content: content[:-1] + b"\0" * 900, lambda content: content, id="a write that was lost"),
    ],
)
def test_rows_that_are_whole_are_not_made_again(
    made: Path, change: Callable[[bytes], bytes], kept: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Those that end in \\r were all thrown away, and the last one where an editor had taken the end of its line."""
    content = (made / "rows.jsonl").read_bytes()
    (tmp_path / "a.h5").write_bytes((made / "a.h5").read_bytes())
    (tmp_path / "rows.jsonl").write_bytes(change(content))
    done = rows(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "rows.jsonl").read_bytes() == kept(content)


def test_a_row_that_was_broken_off_is_made_again_and_notes_stay(made: Path, tmp_path: Path) -> None:
    content = (made / "rows.jsonl").read_bytes()
    (tmp_path / "a.h5").write_bytes((made / "a.h5").read_bytes())
    file = tmp_path / "rows.jsonl"
    file.write_bytes(_cut(content))
    assert rows(tmp_path).returncode == 0
    assert len(file.read_bytes().splitlines()) == len(content.splitlines())
    file.write_bytes(content + b"# what I think of these")
    done = rows(tmp_path)
    assert done.returncode == 2
    told = "vtsum: benchmark: rows.jsonl must end in a row, got '# what I think of these'; move that away\n"
    assert done.stderr == told
    assert file.read_bytes() == content + b"# what I think of these"


def test_a_disk_without_room_for_the_first_row_names_the_file(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes((made / "a.h5").read_bytes())
    limited = ["bash", "-c", 'ulimit -f 0; exec "$0" "$@"', *COMMAND, "--records", "rows.jsonl"]
    done = subprocess.run(
        limited, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vtsum: benchmark: rows.jsonl must be writable: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "change", "told"),
    [
        pytest.param(0, {"folds": 5}, 'line 1 must be the head of a benchmark (vtsum-benchmark/1), got: 5 in "folds", '
                     "which must be a list", id="no list of folds"),
        pytest.param(0, {"folds": ["x"]}, '"x" in "folds", which must be an object', id="a fold that is text"),
        pytest.param(0, {"folds_name": None}, 'null in "folds_name", which must be text', id="no name"),
        pytest.param(1, {"videos": [1]}, '[1] in "videos", which must be an object', id="a list of videos"),
        pytest.param(1, {"videos": {"video_0": 1}}, '1 in "video_0", which must be a list', id="a number of scores"),
        pytest.param(1, {"videos": {"video_0": [0, 1]}}, '2 scores of "video_0"', id="two scores"),
        pytest.param(1, {"videos": {"video_0": [0, {}, 1]}}, "a score of {}", id="a score that is none"),
        pytest.param(1, {"fold": True}, 'true in "fold", which must be a whole number', id="a truth value"),
        pytest.param(1, {"code": 1}, '1 in "code", which must be text', id="a number for code"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_line_is_told_in_the_files_words(
    made: Path, line: int, change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """It was told in Python's: "string indices must be integers, not 'str'"."""
    (tmp_path / "a.h5").write_bytes((made / "a.h5").read_bytes())
    lines = (made / "rows.jsonl").read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | change)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    done = rows(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Error" not in done.stderr
    assert (tmp_path / "rows.jsonl").read_text() == "\n".join(lines) + "\n"
