"""Parquet files of what became of a batch's videos, for other programs to read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vtsum.batches.results import Result
from vtsum.errors import VTSumError
from vtsum.extras import require
from vtsum.files import AnyPath, check_inputs, check_regular, plain, written
from vtsum.shown import clean, reason, without_secrets

ENDING = ".parquet"
_COLUMNS = ["source", "output", "status", "reason", "seconds", "notes"]


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
