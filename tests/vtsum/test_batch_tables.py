"""Parquet files around a batch: the list of its videos, and the table of what became of each."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.test_batch import _clip, _run
from vtsum.batches.inputs import find_videos
from vtsum.errors import VTSumError

#: The command, in at most 6 GiB (most of which is what libraries reserve).
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from vtsum.cli import main
sys.exit(main())
"""


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


def _repeated(path, text, rows, groups=8):
    """A small file of many rows: the text is kept once, and each row says that it is this one."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * (rows // groups), pa.int32()), pa.array([text]))
    table = pa.table({"path": column})
    with parquet.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
        for _ in range(groups):
            writer.write_table(table, row_group_size=len(table))
    return path


def _not_utf8(path):
    bytes_of = pa.array([b"\xff\xfe.mp4"], pa.binary())
    parquet.write_table(pa.table({"path": pa.Array.from_buffers(pa.string(), 1, bytes_of.buffers())}), path)
    return path


def _encrypted(path):
    """Its foot is plain and its column is not: to ask pyarrow how large that is ends the process."""
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):
        def __init__(self, _):
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key, _):
            return base64.b64encode(key)

        def unwrap_key(self, key, _):
            return base64.b64decode(key)

    how = encryption.EncryptionConfiguration(footer_key="foot", column_keys={"c": ["path"]}, plaintext_footer=True)
    keys = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), how)
    table = pa.table({"path": ["a.mp4"]})
    with parquet.ParquetWriter(path, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    return path


def _lying(path):
    """One text of 600 million letters, said to have 100 bytes unpacked."""
    table = pa.table({"path": ["x" * 600_000_000]})
    parquet.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    content = path.read_bytes()
    stated = parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    varint = [2 * stated >> 7 * place & 127 | 128 for place in range(5)]  # as Thrift has it, of 5 bytes
    varint[-1] &= 127
    assert content.count(bytes(varint)) == 2  # of the column and of its group
    path.write_bytes(content.replace(bytes(varint), bytes([200, 129, 128, 128, 0])))
    return path


def test_hostile_lists_are_one_line(tmp_path):
    """What unpacks to gigabytes or to millions of names, whatever it states, bytes that are no text, an encrypted
    column, a link to itself."""
    loop = tmp_path / "loop.parquet"
    loop.symlink_to(loop)
    wrong = {
        _repeated(tmp_path / "large.parquet", "x" * (1 << 20), 16_000): " bytes of texts, got more",
        _repeated(tmp_path / "many.parquet", "/x", 2_000_000): "must have at most 1048576 rows and ",
        _lying(tmp_path / "lying.parquet"): "must be a Parquet file that unpacks in 1073741824 bytes, got more",
        _encrypted(tmp_path / "encrypted.parquet"): "must be a Parquet file that can be read: its reader ended",
        _not_utf8(tmp_path / "bytes.parquet"): "column 'path' must be of texts in UTF-8, got other bytes",
        loop: "must be a Parquet file that can be read: ",
    }
    for path, reason in wrong.items():
        words = [sys.executable, "-c", LIMITED, "batch", f"@{path}", "-o", str(tmp_path / "o")]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert reason in done.stderr, done
    assert not (tmp_path / "o").exists()


def test_no_file_but_an_older_table_is_replaced(tmp_path):
    """A list that the videos come from never; what else lies there, with --overwrite."""
    video = _clip(tmp_path / "a.mp4", 100)
    listed, mine = _list(tmp_path / "list.parquet", [str(video)]), tmp_path / "mine.parquet"
    _list(mine, ["precious"])
    before = {path: path.read_bytes() for path in (tmp_path / "list.parquet", mine)}
    for table, more, reason in [
        ("list.parquet", ["--overwrite"], "must not be an input, got "),
        ("mine.parquet", [], "must be new or an older table of a batch, got another file (--overwrite replaces it)"),
    ]:
        done = _run(listed, "-o", tmp_path / "o", "--table", tmp_path / table, *more)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert reason in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "o").exists()
    for more in (["--overwrite"], []):  # another file, an older table
        assert _run(listed, "-o", tmp_path / "o", "--table", mine, *more).returncode == 0
        assert parquet.read_table(mine).column_names[0] == "source"


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


def test_a_place_for_no_table_is_told_before_the_work(tmp_path):
    video = _clip(tmp_path / "a.mp4", 100)
    (tmp_path / "file").write_text("")
    for place in ("/proc", tmp_path / "file"):
        done = _run(video, "-o", tmp_path / "o", "--table", f"{place}/t.parquet")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert f"table {place}/t.parquet must " in done.stderr
        assert not (tmp_path / "o").exists()
