"""Parquet files around a batch: the list of its videos, and the table of what became of each."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.vtsum.test_batch import _clip, _run
from vtsum.batches.inputs import find_videos
from vtsum.errors import VTSumError


def _list(path, values, name="path", kind=None):
    parquet.write_table(pa.table({name: pa.array(values, kind), "size": [1.0] * len(values)}), path)
    return f"@{path}"


def test_a_list_in_and_a_table_out(tmp_path):
    """As a second run tells it, too; the failed one's reason is told, and passwords in addresses are not."""
    good, bad = _clip(tmp_path / "good.mp4", 100), tmp_path / "bad.mp4"
    bad.write_text("no video")
    there = "http://me:secret@127.0.0.1:9/x.mp4"
    listed, table = _list(tmp_path / "list.parquet", [str(good), None, str(bad), "", there]), tmp_path / "t.parquet"
    for status in ("done", "skipped"):
        done = _run(listed, "-o", tmp_path / "out", "--table", table)
        assert done.returncode == 2, done
        rows = {os.path.basename(row["source"]): row for row in parquet.read_table(table).to_pylist()}
        assert {name: row["status"] for name, row in rows.items()} == {
            "good.mp4": status,
            "bad.mp4": "failed",
            "x.mp4": "failed",
        }
        assert rows["good.mp4"]["output"] == str(tmp_path / "out" / "good")
        assert "must be a video file" in rows["bad.mp4"]["reason"]
        assert rows["good.mp4"]["reason"] is None
        assert rows["good.mp4"]["seconds"] > 0 or status == "skipped"
        assert "secret" not in str(rows)
    assert sorted(os.listdir(tmp_path)) == ["bad.mp4", "good.mp4", "list.parquet", "out", "t.parquet"]


def test_lists_that_are_none(tmp_path):
    text = tmp_path / "text.parquet"
    text.write_text("PAR1 no parquet PAR1")
    pipe = tmp_path / "pipe.parquet"
    os.mkfifo(pipe)
    wrong = {
        f"@{text}": "must be a Parquet file that can be read",
        f"@{pipe}": "must be a Parquet file that can be read",
        _list(tmp_path / "names.parquet", ["a"], "video\x1b[2J"): "must have one column 'path', got video.*, size",
        _list(tmp_path / "numbers.parquet", [1, 2]): "column 'path' must be of texts, got int64",
        _list(tmp_path / "none.parquet", [], kind=pa.string()): "must name at least one video, got none",
        _list(tmp_path / "gone.parquet", ["/nowhere/a.mp4"]): "/nowhere/a.mp4: no such file",
    }
    for given, reason in wrong.items():
        with pytest.raises(VTSumError, match=reason) as told:
            find_videos([given], "batch")
        assert "\x1b" not in str(told.value)


def test_tables_that_cannot_be(tmp_path):
    video = _clip(tmp_path / "a.mp4", 100)
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "film.parquet").hardlink_to(video)
    for name, reason in {
        "t.csv": "table must end in .parquet, got ",
        "folder.parquet": "must be a file or new: ",
        "film.parquet": "must not be an input, got ",
    }.items():
        done = _run(video, "-o", tmp_path / "o", "--table", tmp_path / name)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert reason in done.stderr
        assert not (tmp_path / "o").exists()
    assert video.stat().st_nlink == 2
