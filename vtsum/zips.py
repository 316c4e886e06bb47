"""Zip archives that a stranger may have made."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

LIST = 1 << 17
"""Bytes that an archive's list of its members may have: a thousand members, and more than what ends an archive."""


class _Reader(io.BufferedReader):
    """A file of which zipfile, while it opens it, gets no list that is longer than `most`: of every member in it an
    object is made before there is anything to look at."""

    most: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile(f"a list of its members of {size} bytes, more than {self.most}")
        return super().read(size)


@contextmanager
def opened(path: str | os.PathLike[str], most: int = LIST) -> Iterator[zipfile.ZipFile]:
    """An archive to read, whose list of members has at most `most` bytes and names each once: of two members of one
    name zipfile shows the last.

    Raises:
        zipfile.BadZipFile: it has more, names one twice, or is none.
        OSError: it cannot be read.
    """
    with _Reader(io.FileIO(path)) as file:
        file.most = most
        with zipfile.ZipFile(file) as archive:
            file.most = None
            names: set[str] = set()
            for name in archive.namelist():
                if name in names:
                    raise zipfile.BadZipFile(f"two members named {name!r:.80}")
                names.add(name)
            yield archive
