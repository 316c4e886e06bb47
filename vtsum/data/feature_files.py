"""Feature files: npz archives of plain arrays, read strictly and written whole or not at all."""

from __future__ import annotations

import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vtsum.errors import VTSumError
from vtsum.files import written
from vtsum.shown import reason
from vtsum.zips import opened

LIMIT = 2**30
"""Bytes that an array may have: a day of frames, one a second, 3,000 numbers of 32 bits each."""

_UNREADABLE = re.compile(r"malformed node|Cannot parse header|Header is not a dictionary|EOF: ")
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, NotImplementedError)


_NO_ID = re.compile(r"^\.|[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST_ID = 230  # bytes: a file's name has 255, and some of ours have more to it than the id and an ending


def check_id(video: object, where: str) -> str:
    """The id of a video, after which its files are called: one that climbs out of their folder is refused.

    Raises:
        VTSumError: it is no file's name without its folder; `where` begins the message.
    """
    if not isinstance(video, str) or not video or _NO_ID.search(video) or len(video.encode()) > _LONGEST_ID:
        raise VTSumError(
            f"{where} must be a file's name without its folder, of at most {_LONGEST_ID} bytes, that begins with no "
            f"dot and holds no control character, got {video!r:.200}"
        )
    return video


def feature_file(folder: str | os.PathLike[str], video: str) -> Path:
    """Where the features of a video lie: the one place where an id becomes a path.

    Raises:
        VTSumError: see `check_id`.
    """
    return Path(folder) / f"{check_id(video, f'{os.fspath(folder)}: the id of a video')}.npz"


def array_header(path: str | os.PathLike[str], key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one array of an npz file, without reading its numbers.

    Raises:
        VTSumError: the file is missing, empty, cut off or no npz file, holds no array of this name or of no real
            numbers, or of more than `LIMIT` bytes.
    """
    path = Path(path)
    with _member(path, key) as (file, size):
        return _header(file, size, f"{path}: {key}")


def cut_off(path: Path) -> bool:
    """Whether a file is but the beginning of an npz file, or empty, as a full disk leaves it."""
    return path.is_file() and b"PK\x03\x04".startswith(_head(path)) and not zipfile.is_zipfile(path)


def read_array(path: str | os.PathLike[str], key: str) -> np.ndarray:
    """One array of an npz file; nothing that would run code is unpacked.

    Returns:
        np.ndarray: floating point numbers as float32, those beyond it infinite; all others as they are.
    Raises:
        VTSumError: as for `array_header`; or the numbers do not fit the file's own checksum.
    """
    path = Path(path)
    with _member(path, key) as (file, size):
        _header(file, size, f"{path}: {key}")  # before anything is allocated
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # reading to the end is what has the checksum compared
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is for whoever uses it to tell
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write arrays to an npz file through a temporary name in the same folder; the folder is made if need be."""
    with written(path) as part, open(part, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _header(file: IO[bytes], size: int, where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype at the start of a stored array, once they were found to be those of the bytes that follow."""
    if (head := file.read(len(np.lib.format.MAGIC_PREFIX))) != np.lib.format.MAGIC_PREFIX:
        raise ValueError(f"one that begins with {head.hex(' ') or 'nothing'}")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except EOFError:
        raise
    except Exception as error:  # what Python's own parser of literals says, and some kinds of it, are of no use
        if "max_header_size" in str(error):  # NumPy would have the file trusted
            raise ValueError("a header of more than 10,000 bytes") from None
        if isinstance(error, ValueError) and not _UNREADABLE.match(str(error)):
            raise
        raise ValueError("a header that is none of NumPy's") from None
    stored = size - file.tell()
    if dtype.kind not in "fiub":
        raise VTSumError(f"{where} must hold real numbers, got dtype {dtype!s:.40}")
    if stored > LIMIT:
        raise VTSumError(f"{where} must have at most {LIMIT} bytes, got {stored}")
    # An array without numbers may have any other size, which NumPy cannot multiply.
    if min(shape, default=1) < 0 or max(shape, default=1) > LIMIT or math.prod(shape) * dtype.itemsize != stored:
        raise ValueError(f"shape {list(shape)!s:.80} of {dtype} in {stored} bytes")
    return shape, dtype


@contextmanager
def _member(path: Path, key: str) -> Iterator[tuple[IO[bytes], int]]:
    """The stored file of one array and its bytes; what goes wrong with it is told in one line."""
    with ExitStack() as stack:
        archive = _open(path, stack)
        names = archive.namelist()
        if f"{key}.npy" not in names:
            stored = ", ".join(sorted(name.removesuffix(".npy")[:40] for name in names)[:5]) or "nothing"
            raise VTSumError(f"{path} must hold an array {key!r}, got {stored}")
        try:
            # NumPy reads a header as Python, whose compiler remarks on odd numbers in it.
            with warnings.catch_warnings(), archive.open(f"{key}.npy") as file:
                warnings.simplefilter("ignore")
                yield file, archive.getinfo(f"{key}.npy").file_size
        except VTSumError:
            raise
        except Exception as error:  # zipfile, its decompressors and NumPy's parser, each with kinds of its own
            raise VTSumError(f"{path}: {key} must be a whole NumPy array, got: {reason(error)}") from None


def _open(path: Path, stack: ExitStack) -> zipfile.ZipFile:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise VTSumError(f"{path} must be an npz file, got {'a folder' if path.is_dir() else 'no regular file'}")
        if size == 0:
            raise VTSumError(f"{path} must be an npz file, got an empty file (0 bytes)")
        return stack.enter_context(opened(path))
    except FileNotFoundError:
        raise VTSumError(f"{path} must exist, got no such file") from None
    except PermissionError as error:
        raise VTSumError(f"{path} must be a readable file, got: {reason(error)}") from None
    except _BROKEN as error:
        if isinstance(error, VTSumError):
            raise
        if zipfile.is_zipfile(path):
            found = reason(error)
        elif _head(path) == b"PK\x03\x04":
            found = f"one that is cut off at {size} bytes"
        else:
            found = f"no zip archive ({reason(error)})"
        raise VTSumError(f"{path} must be a whole npz file, got {found}") from None


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4)
    except OSError:
        return b""
