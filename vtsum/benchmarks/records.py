"""The rows that are done, a JSON line each, so that what was killed goes on where it stood."""

from __future__ import annotations

import fcntl
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from vtsum.benchmarks.data import VALIDATION, Data
from vtsum.data.tvsum import Split
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import VideoScore
from vtsum.files import check_regular, make_folder, plain
from vtsum.reading import field, of_kind, parse_json, quoted, read_file
from vtsum.shown import reason
from vtsum.version import __version__

FORMAT = "vtsum-benchmark/1"
LIMIT = 2**30
"""Bytes of a file of rows: months of work on the largest set."""
_BROKEN_OFF = b'{"method": '
"""How a row begins that `Records.add` writes."""


@dataclass(frozen=True)
class Row:
    """One method on one fold with one seed.

    Attributes:
        method, code: see `vtsum.benchmarks.methods.Entry`. seconds: it took to fit and predict. device: of networks of
            ours, "" of others. videos: the result on each test video, by key.
    """

    method: str
    code: str | None
    fold: int
    seed: int
    seconds: float
    device: str
    videos: dict[str, VideoScore]


@dataclass(frozen=True)
class Head:
    """What all rows of a file share: the file's first line."""

    benchmark: str
    h5_sha256: str
    folds_name: str
    folds: tuple[Split, ...]

    @classmethod
    def of(cls, data: Data) -> Head:
        return cls(data.benchmark, data.h5_sha256, data.folds_name, data.folds)

    def line(self) -> dict[str, Any]:
        folds = [
            {"train": list(fold.train), "test": list(fold.test)}
            | ({"val": list(fold.validation)} if fold.validation else {})
            for fold in self.folds
        ]
        held = "of the folds" if any(fold.validation for fold in self.folds) else f"1 in {VALIDATION}"
        return {"format": FORMAT, **asdict(self), "folds": folds, "validation": held}


class Records:
    """A file of rows, written by one process at a time; a context manager.

    Args:
        path: there or not; hours of work, so what is in it is never replaced. head: of the rows that will be added.
    Attributes:
        rows: those that the file has.
    Raises:
        VTSumError: it is another file, one of other data or folds, broken, or in use; or the place cannot be written.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path, self.rows = path, list[Row]()
        where = f"benchmark: {plain(path)}"
        try:
            check_regular(path)
            make_folder(path.parent)
            self._file: BinaryIO = open(path, "ab")  # noqa: SIM115 (kept open until the end)
        except OSError as error:
            raise VTSumError(f"{where} must be a file that can be written: {reason(error)}") from None
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise VTSumError(
                    f"{where} must be written by one benchmark at a time, got another at work; wait for it, or give "
                    "other --records"
                ) from None
            content = read_file(path, "benchmark", LIMIT)
            _check_ours(content, where)
            whole = _whole(content, where)
            if whole:
                found, self.rows = parse_records(whole, where)
                if found != head:
                    raise VTSumError(
                        f"{where} must hold rows of the same h5 file and folds, got those of others; give other "
                        "--records, or remove it"
                    )
            os.truncate(path, len(whole))
            if not whole:
                self._write(head.line())
            elif not whole.endswith((b"\n", b"\r")):  # as an editor leaves it that strips what ends a file
                self._add(b"\n")
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise VTSumError(f"{where} must be writable: {reason(error)}") from None
            raise

    def add(self, row: Row) -> None:
        """Keep a row.

        Raises:
            VTSumError: the disk is full.
        """
        videos = {key: [_number(value) for value in (s.tau, s.rho, s.f)] for key, s in row.videos.items()}
        own = {name: getattr(row, name) for name in ("method", "code", "fold", "seed", "seconds", "device")}
        try:
            self._write({**own, "vtsum": __version__, "videos": videos})
        except OSError as error:
            raise VTSumError(f"benchmark: {plain(self.path)} must be writable: {reason(error)}") from None
        self.rows.append(row)

    def _write(self, line: dict[str, Any]) -> None:
        self._add(json.dumps(line, allow_nan=False).encode() + b"\n")

    def _add(self, text: bytes) -> None:
        self._file.write(text)
        self._file.flush()

    def _close(self) -> None:
        with suppress(OSError):  # of what there was no room for, as is told; it would be written once more
            self._file.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def parse_records(content: bytes, where: str) -> tuple[Head, list[Row]]:
    """What whole lines of a file of rows say.

    Raises:
        VTSumError: they say nothing of the kind; `where` begins the message.
    """
    lines = content.splitlines()
    head = parse_json(lines[0], dict, f"{where}: line 1")
    try:
        if head.get("format") != FORMAT:
            raise ValueError(f"format {quoted(head.get('format'))}")
        folds = tuple(
            Split(_keys(fold, "train"), _keys(fold, "test"), _keys({"val": []} | fold, "val"))
            for fold in (of_kind(fold, "folds", dict) for fold in field(head, "folds", list))
        )
        made = Head(field(head, "benchmark", str), field(head, "h5_sha256", str), field(head, "folds_name", str), folds)
    except ValueError as error:
        raise VTSumError(f"{where}: line 1 must be the head of a benchmark ({FORMAT}), got: {error}") from None
    rows = []
    for i, line in enumerate(lines[1:], 2):
        values = parse_json(line, dict, f"{where}: line {i}")
        try:
            rows.append(_row(values, made))
        except ValueError as error:
            raise VTSumError(f"{where}: line {i} must be a row of a benchmark, got: {error}") from None
    return made, rows


def _row(values: dict[str, Any], head: Head) -> Row:
    fold, seed, seconds = field(values, "fold", int), field(values, "seed", int), field(values, "seconds", float)
    if not 0 <= fold < len(head.folds):
        raise ValueError(f"fold {fold} of {len(head.folds)}")
    videos = {key: _scores(key, scores) for key, scores in field(values, "videos", dict).items()}
    if videos.keys() != set(head.folds[fold].test):
        raise ValueError(f"videos other than those that fold {fold} tests on")
    return Row(
        field(values, "method", str),
        None if "code" in values and values["code"] is None else field(values, "code", str),
        fold,
        seed,
        seconds,
        field(values, "device", str),
        videos,
    )


def _check_ours(content: bytes, where: str) -> None:
    begin = json.dumps({"format": FORMAT}).encode()[:-1]
    if not begin.startswith(content[: len(begin)]):
        raise VTSumError(f"{where} must be a file of rows of a benchmark, or not there yet, got another file")


def _whole(content: bytes, where: str) -> bytes:
    """Without a line that was broken off in writing, which is not continued. Nothing else is left out.

    Raises:
        VTSumError: the file ends in something else, which nobody wrote but the user.
    """
    *_, last = content.splitlines(keepends=True) or [b""]
    text = last.rstrip(b"\0")  # as a lost write leaves them
    if last.endswith((b"\n", b"\r")):
        return content
    with suppress(VTSumError):
        parse_json(text, dict, where)
        return content[: len(content) - len(last) + len(text)]
    if len(text) < len(last) or len(last) == len(content) or text.startswith(_BROKEN_OFF[: len(text)]):
        return content[: len(content) - len(last)]
    raise VTSumError(f"{where} must end in a row, got {plain(os.fsdecode(text))!r:.80}; move that away")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _scores(key: str, values: Any) -> VideoScore:
    if len(of_kind(values, key, list)) != len(fields(VideoScore)):
        raise ValueError(f"{len(values)} scores of {quoted(key)}")
    return VideoScore(*map(_score, values))


def _score(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not -1 <= value <= 1:
        raise ValueError(f"a score of {quoted(value)}")
    return float(value)


def _keys(values: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(of_kind(key, name, str) for key in field(values, name, list))
