"""Parquet files: lists of videos that come from other programs, and what became of them for others to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vtsum.batches.results import Result
from vtsum.errors import VTSumError
from vtsum.extras import require
from vtsum.files import AnyPath, check_inputs, check_regular, plain, written
from vtsum.shown import clean, reason, without_secrets

ENDING = ".parquet"
COLUMN = "path"


def read_paths(path: AnyPath, op: str) -> list[str]:
    """The videos that a Parquet file lists: its column "path", of texts; empty ones are passed over.

    Raises:
        VTSumError: it cannot be read, has no such column, or another kind of values in it.
    """
    require("cluster", op)
    import pyarrow as pa
    from pyarrow import parquet

    where = f"{op}: {plain(path)}"
    try:
        check_regular(Path(path).resolve())  # a pipe would be waited for
        file = parquet.ParquetFile(path, memory_map=False)
        names = file.schema_arrow.names
        if names.count(COLUMN) != 1:
            raise VTSumError(f"{where} must have one column {COLUMN!r}, got {clean(', '.join(names))[:200]}")
        kind = file.schema_arrow.field(COLUMN).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise VTSumError(f"{where}: column {COLUMN!r} must be of texts, got {kind}")
        return [value for value in file.read([COLUMN]).column(0).to_pylist() if value and value.strip()]
    except (OSError, pa.ArrowException) as error:
        raise VTSumError(f"{where} must be a Parquet file that can be read: {_line(error)}") from None


def check_table(op: str, path: AnyPath | None, inputs: Sequence[AnyPath]) -> None:
    """Refuse a table that could not be written, or would be written over an input.

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


def write_table(op: str, path: AnyPath, results: Sequence[Result]) -> None:
    """Write what became of each video: source, output, status, reason (or null), seconds, notes; a row each.

    Raises:
        VTSumError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("source", "output", "status", "reason")),
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
