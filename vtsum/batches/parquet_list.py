"""Lists of videos in Parquet files of other programs. Such a file is unpacked by a process of its own: its reader, in
C++, ends the process on some of what a stranger can state, and takes the memory that a page asks for, whatever the
file says of its size elsewhere. Run as a program, this module is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.extras import require
from vtsum.files import AnyPath, check_regular, plain
from vtsum.memory import limit
from vtsum.shown import clean

COLUMN = "path"
_ROWS, _LETTERS = 1 << 20, 64 << 20  # of a list, at most; bytes
_AT_ONCE = 16  # rows: one text that is kept once may stand in a million of them
_SECONDS, _MEMORY = 120, 1 << 30  # of computing; bytes


def read_paths(path: AnyPath, op: str) -> list[str]:
    """The videos that a Parquet file lists: its column "path", of texts; empty ones are passed over.

    Raises:
        VTSumError: it cannot be read, has no such column or another kind of values in it, or more than a million rows
            or 64 MiB of texts.
    """
    require("cluster", op)
    words = [sys.executable, "-P", "-m", "vtsum.batches.parquet_list", os.fspath(path), op]
    env = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # its own reserves more than it is to have
    done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:  # a signal, of its limits or of what no one has caught
        last = clean(done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])[:200]
        raise VTSumError(
            f"{op}: {plain(path)} must be a Parquet file that can be read: its reader ended with status "
            f"{done.returncode}: {last or 'no word'}"
        ) from None
    if "failed" in found:
        raise VTSumError(found["failed"])
    return list(found["paths"])


def unpacked(path: AnyPath, op: str) -> list[str]:
    """As `read_paths`, in this process."""
    import pyarrow as pa
    from pyarrow import parquet

    where = f"{op}: {plain(path)}"
    try:
        check_regular(Path(os.path.realpath(path)))  # a pipe would be waited for
        file = parquet.ParquetFile(path, memory_map=False)
        names = file.schema_arrow.names
        if names.count(COLUMN) != 1:
            raise VTSumError(f"{where} must have one column {COLUMN!r}, got {clean(', '.join(names))[:200]}")
        kind = file.schema_arrow.field(COLUMN).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise VTSumError(f"{where}: column {COLUMN!r} must be of texts, got {kind}")
        return [value for value in _texts(file, where) if value and value.strip()]
    except UnicodeDecodeError:
        raise VTSumError(f"{where}: column {COLUMN!r} must be of texts in UTF-8, got other bytes") from None
    except MemoryError:
        raise VTSumError(f"{where} must be a Parquet file that unpacks in {_MEMORY} bytes, got more") from None
    except (OSError, pa.ArrowException) as error:
        raise VTSumError(f"{where} must be a Parquet file that can be read: {_line(error)}") from None


def _texts(file: Any, where: str) -> Iterator[str | None]:
    """The column's values; what a small file says that it unpacks to is looked at before it is there."""
    at = [number for number in range(len(file.schema)) if file.schema.column(number).path == COLUMN]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    sizes = [group.column(number).total_uncompressed_size for group in groups for number in at]
    if file.metadata.num_rows > _ROWS or sum(sizes) > _LETTERS:
        raise VTSumError(f"{where} must have at most {_ROWS} rows and {_LETTERS} bytes of texts, got more")
    left = _LETTERS
    for rows in file.iter_batches(_AT_ONCE, columns=[COLUMN], use_threads=False):
        left -= rows.nbytes
        if left < 0:
            raise VTSumError(f"{where} must have at most {_LETTERS} bytes of texts, got more")
        yield from rows.column(0).to_pylist()


def _line(error: Any) -> str:
    return clean(str(error).partition("\n")[0])[:200]


def _main() -> None:
    import pyarrow.parquet  # noqa: F401  # what is there before the list is no part of what the list takes

    limit(_SECONDS, _MEMORY)
    try:
        told: dict[str, Any] = {"paths": unpacked(*sys.argv[1:])}
    except VTSumError as error:
        told = {"failed": str(error)}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    _main()
