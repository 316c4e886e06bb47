"""Parquet files: lists of videos that come from other programs, and what became of them for others to read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vtsum.batches.results import Result
from vtsum.errors import VTSumError
from vtsum.extras import require
from vtsum.files import AnyPath, check_inputs, check_regular, plain, written
from vtsum.shown import clean, reason, without_secrets

ENDING = ".parquet"
COLUMN = "path"
_COLUMNS = ["source", "output", "status", "reason", "seconds", "notes"]
_ROWS, _LETTERS = 1 << 20, 64 << 20  # of a list, at most; bytes
_AT_ONCE = 16  # rows: one text that is kept once may stand in a million of them


def read_paths(path: AnyPath, op: str) -> list[str]:
    """The videos that a Parquet file lists: its column "path", of texts; empty ones are passed over.

    Raises:
        VTSumError: it cannot be read, has no such column or another kind of values in it, or more than a million rows
            or 64 MiB of texts.
    """
    require("cluster", op)
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
    except (OSError, pa.ArrowException) as error:
        raise VTSumError(f"{where} must be a Parquet file that can be read: {_line(error)}") from None


def _texts(file: Any, where: str) -> Iterator[str | None]:
    """The column's values; what a small file unpacks to is looked at before it is there."""
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


def check_table(op: str, path: AnyPath | None, inputs: Sequence[AnyPath], overwrite: bool) -> None:
    """Refuse a table that could not be written, or would be written over an input or, without `overwrite`, over a file
    that is no such table.

    Raises:
        VTSumError: so.
    """
    if path is None:
        return
    if Path(path).suffix.lower() != ENDING:
        raise VTSumError(f"{op}: table must end in {ENDING}, got {plain(path)}")
    require("cluster", op)
    check_inputs(op, path, inputs)
    try:
        check_regular(Path(path))
    except OSError as error:
        raise VTSumError(f"{op}: table {plain(path)} must be a file or new: {reason(error)}") from None
    place = next(folder for folder in Path(os.path.abspath(path)).parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):  # hours before the table is; os.access knows of modes alone
            pass
    except OSError as error:
        raise VTSumError(
            f"{op}: table {plain(path)} must lie in a folder to write to, got {plain(place)}: {reason(error)}"
        ) from None
    if os.path.lexists(path) and not overwrite and not _is_ours(path):
        raise VTSumError(
            f"{op}: table {plain(path)} must be new or an older table of a batch, got another file "
            "(--overwrite replaces it)"
        )


def _is_ours(path: AnyPath) -> bool:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return bool(parquet.read_schema(path, memory_map=False).names == _COLUMNS)
    except (OSError, pa.ArrowException):
        return False


def write_table(op: str, path: AnyPath, results: Sequence[Result]) -> None:
    """Write what became of each video: source, output, status, reason (or null), seconds, notes; a row each.

    Raises:
        VTSumError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            *((name, pa.string()) for name in _COLUMNS[:4]),
            ("seconds", pa.float64()),
            ("notes", pa.list_(pa.string())),
        ]
    )
    rows = [
        {
            "source": without_secrets(clean(str(result.source))),
            "output": clean(str(result.output)),
            "status": result.status,
            "reason": result.reason and clean(result.reason),
            "seconds": result.seconds,
            "notes": [clean(note) for note in result.notes],
        }
        for result in results
    ]
    try:
        with written(path) as part:
            parquet.write_table(pa.Table.from_pylist(rows, schema), part)
    except OSError as error:
        raise VTSumError(f"{op}: table {plain(path)} must be writable: {reason(error)}") from None


def _line(error: Any) -> str:
    return clean(str(error).partition("\n")[0])[:200]
