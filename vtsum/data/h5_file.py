"""h5 files of a stranger: a group a video, whose fields lie in the file itself and unpack to what it can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.rules import too_many_raters
from vtsum.errors import VTSumError

H5_LIMIT = 2**30
"""Bytes that one field of a video may have, as numbers of 4 bytes or more."""
WIDEST = 8192
"""Numbers that a frame's features may have: a ridge on them and their surroundings then takes 9 GB. Encoders make 512
to 4,096."""
_CHUNK = 4096
"""Bytes that HDF5 itself takes for each chunk of a field that it reads, be the chunk one number that is not there."""
_SAME_SIZE, _PACKERS = {2, 3}, {1, 32000}
"""HDF5's filters for chunks that keep their size (shuffle, fletcher32), and those that unpack them to what is there
(gzip, lzf); packed twice, a small file becomes a million times its size on the way. The others (szip, nbit,
scale-offset) take the memory that a chunk's own bytes or the filter's numbers state, some GiB for 30 bytes, or are
plug-ins."""
_PACKED, _SPARE = 1100, 1 << 26
"""Bytes that one byte of a file unpacks to at most (zlib's are 1,032), and those that it may have besides: HDF5 reads
what was never written as zeros, and one field by many names."""


@contextmanager
def opened(path: Path, function: str, layout: str) -> Iterator[H5File]:
    """The file, open; whatever goes wrong with it inside the block is told in one line.

    Args:
        function: begins messages. layout: what the file is to be in, such as "TVSum's schema".
    Raises:
        VTSumError: h5py is not installed, the file is missing or no h5 file, or the block failed on what it holds.
    """
    try:
        import h5py
    except ImportError:
        raise VTSumError(f"{function}: h5py must be installed to read {path}; pip install 'vtsum[eval]'") from None
    if not path.is_file():
        raise VTSumError(f"{function}: h5_path must be a file, got {path}")
    try:
        with h5py.File(path, "r") as file:
            yield H5File(file, path, function)
    except VTSumError:
        raise
    except Exception as error:  # HDF5 and NumPy on what a broken file holds, each with kinds of its own
        reason = " ".join(str(error).split())
        raise VTSumError(f"{function}: {path} must be an h5 file in {layout}, got: {reason:.200}") from None


class H5File:
    """An open file. `keys`: of its groups, in no order of meaning."""

    def __init__(self, file: Any, path: Path, function: str) -> None:
        self._file, self._where = file, f"{function}: {path}"
        self._left = _PACKED * path.stat().st_size + _SPARE
        self.keys: list[str] = list(file)
        if odd := [key for key in self.keys if not isinstance(key, str)]:  # h5py gives these as bytes
            raise VTSumError(f"{self._where}: groups must have names in UTF-8, got {odd[0]!r:.80}")

    def group(self, key: str) -> H5Group:
        import h5py

        where = f"{self._where}: {key}"
        return H5Group(_own(self._file, key, h5py.Group, where), where, self)

    def take(self, count: int) -> None:
        """Count bytes that are about to be read."""
        self._left -= count
        if self._left < 0:
            raise VTSumError(f"{self._where} must hold what it states, got a file that unpacks to more")


class H5Group:
    """What there is of a video. `where` begins messages."""

    def __init__(self, group: Any, where: str, file: H5File) -> None:
        self._group, self.where, self._file = group, where, file

    def __contains__(self, name: str) -> bool:
        return self._group.get(name, getlink=True) is not None  # `name in` would follow a link

    def read(self, name: str) -> Any:
        """A field: an array of numbers, a number or text."""
        import h5py

        found = _own(self._group, name, h5py.Dataset, self.where)
        self._file.take(_size(found))
        return found[()]

    def numbers(self, name: str, dtype: type, dimensions: int) -> Any:
        """A field as finite numbers of a kind, int64 if they must be whole; one number where it has no dimensions."""
        array = np.asarray(self.read(name))
        if array.dtype.kind not in "fiub":
            raise VTSumError(f"{self.where}: {name} must hold numbers, got text")
        if array.ndim != dimensions:
            raise VTSumError(f"{self.where}: {name} must have {dimensions} dimensions, got shape {list(array.shape)}")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is told
            made: Any = array.astype(dtype)
            bad = made != array if dtype is np.int64 else ~np.isfinite(made)
        if bad.any():
            rule = "whole numbers" if dtype is np.int64 else "finite"
            raise VTSumError(f"{self.where}: {name} must be {rule}, got {array[bad][0]}")
        return made if dimensions else made.item()

    def features(self, name: str, rows: int) -> np.ndarray | None:
        """What an encoder made of each frame, float32 [rows, C]; None where there is no such field.

        Raises:
            VTSumError: it is no such matrix, or wider than `WIDEST`.
        """
        import h5py

        if name not in self:
            return None
        shape = _own(self._group, name, h5py.Dataset, self.where).shape
        if len(shape) == 2 and not 1 <= shape[1] <= WIDEST:
            raise VTSumError(f"{self.where}: {name} must be 1 to {WIDEST:,} wide, got shape {list(shape)}")
        found: np.ndarray = self.numbers(name, np.float32, 2)
        return self.checked(name, found, (rows, shape[1]))

    def rated(self, name: str, frames: int, most: float) -> np.ndarray:
        """What each rater said of each frame, [raters, frames] from 0 to `most`."""
        array = np.asarray(self.read(name))
        self.checked(name, array, (*array.shape[:1], frames))
        if told := too_many_raters(len(array), frames):
            raise VTSumError(f"{self.where}: {name}: {told}")
        if not (good := (array >= 0) & (array <= most)).all():
            raise VTSumError(f"{self.where}: {name} must be from 0 to {most:g}, got {array[~good][0]}")
        return array

    def text(self, name: str) -> str:
        """ "" where there is no such field."""
        value = self.read(name) if name in self else b""
        try:
            return value.decode("utf-8") if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError as error:
            raise VTSumError(f"{self.where}: {name} must be text in UTF-8, got {error.object!r:.80}") from None

    def checked(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The array, once it was found to be of that shape and finite."""
        if array.shape != shape:
            raise VTSumError(f"{self.where}: {name} must be of shape {list(shape)}, got {list(array.shape)}")
        if array.dtype.kind not in "fiub":
            raise VTSumError(f"{self.where}: {name} must hold numbers, got text")
        if not np.isfinite(array).all():
            raise VTSumError(f"{self.where}: {name} must be finite, got {array[~np.isfinite(array)][0]}")
        return array


def _own(group: Any, name: str, kind: type, where: str) -> Any:
    """A member of `group` that lies in this very file: links and mapped data could show any other file's content."""
    import h5py

    link = group.get(name, getlink=True)  # first: to ask whether `name in group` would follow the link
    if link is None:
        raise VTSumError(f"{where} must have the field {name}, got {sorted(map(str, group))!s:.200}")
    if not isinstance(link, h5py.HardLink):
        raise VTSumError(f"{where}: {name} must lie in the file itself, got a link")
    found: Any = group[name]
    right = isinstance(found, kind)  # apart from the `if`, which would have mypy forget what `found` can do
    if not right:
        raise VTSumError(f"{where}: {name} must be an h5 {kind.__name__.lower()}, got {type(found).__name__}")
    if kind is h5py.Dataset:
        if found.is_virtual or found.external:
            raise VTSumError(f"{where}: {name} must lie in the file itself, got one mapped from elsewhere")
        if found.shape is None:
            raise VTSumError(f"{where}: {name} must hold values, got a field without any")
        text = h5py.check_string_dtype(found.dtype) is not None
        if found.dtype.kind not in "fiub" and not text:
            raise VTSumError(f"{where}: {name} must hold numbers or text, got {found.dtype!s:.80}")
        if text and found.shape != ():  # each of many texts may be the same long one
            raise VTSumError(f"{where}: {name} must be one text or hold numbers, got text of shape {found.shape!s:.80}")
        if _size(found) > H5_LIMIT:
            parts = f" in chunks of {found.chunks!s:.80}" if found.chunks else ""
            raise VTSumError(
                f"{where}: {name} must have at most {H5_LIMIT} bytes, got shape {found.shape!s:.80}{parts}"
            )
        filters = _filters(found)
        if odd := [number for number in filters if number not in _SAME_SIZE | _PACKERS]:
            raise VTSumError(f"{where}: {name} must be packed by gzip or lzf, got HDF5's filter {odd[0]}")
        if (packed := len([number for number in filters if number in _PACKERS])) > 1:
            raise VTSumError(f"{where}: {name} must be packed at most once, got {packed} times")
    return found


def _size(found: Any) -> int:
    """Bytes of a field, with what its chunks, each unpacked whole, have beyond it, and what HDF5 takes for them;
    numbers become float32 at least."""
    if not found.size:
        return 0
    chunks = found.chunks or found.shape
    counts = [-(-length // part) for length, part in zip(found.shape, chunks, strict=True)]
    numbers, many = math.prod(counts) * math.prod(chunks), math.prod(counts) if found.chunks else 0
    return int(numbers * max(found.dtype.itemsize, 4) + many * _CHUNK)


def _filters(found: Any) -> list[int]:
    """What each chunk goes through, by HDF5's numbers."""
    made = found.id.get_create_plist()
    return [made.get_filter(number)[0] for number in range(made.get_nfilters())]
