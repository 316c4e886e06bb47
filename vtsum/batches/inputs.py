"""The videos of a batch: files, folders that are searched, globs, lists of these; and where their summaries go."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vtsum.batches.ledger import FILE
from vtsum.batches.parquet_list import read_paths
from vtsum.batches.patterns import matching
from vtsum.batches.tables import ENDING
from vtsum.errors import VTSumError
from vtsum.files import plain, shortened
from vtsum.reading import read_file
from vtsum.shown import clean, reason
from vtsum.video.incoming import Address, host_of, is_address
from vtsum.video.stores import in_store, objects

ENDINGS = frozenset(
    {
        *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"),
        *(".ts", ".m2ts", ".mts", ".flv", ".wmv", ".3gp", ".ogv", ".vob"),
    }
)
"""What a folder is searched for; a file that is named itself may end in anything."""

_LISTS = 16 << 20  # bytes of a list
_NAME = 100  # bytes of a folder's name


def find_videos(inputs: Sequence[str | os.PathLike[str]], op: str) -> list[Path | Address]:
    """All videos that the inputs name, each once, in order.

    Args:
        inputs: files; addresses on the web (http, https) or in an object store (s3, gs, az); folders, searched for
            names that end as videos do ("talks", "s3://talks/2026/"); patterns ("talks/**/*.mp4",
            "s3://talks/**/*.mp4"); "@FILE", a text file with one of these a line; "@FILE.parquet", whose column "path"
            has them. op: begins messages.
    Raises:
        VTSumError: one of them names nothing.
    """
    found: dict[Path | Address, None] = {}
    for given in inputs:
        if not os.fspath(given):  # Path would have it that this is the folder where one is
            raise VTSumError(f"{op}: inputs must name videos, got an empty name")
        for path in _named(os.fsdecode(os.fspath(given)), op):
            found.setdefault(path if isinstance(path, Address) else Path(os.path.abspath(path)))
    if not found:
        raise VTSumError(f"{op}: inputs must name at least one video, got none")
    return list(found)


def _inside(folder: Path) -> Iterator[Path]:
    """The videos in a folder, at any depth; not in links to folders, nor what is hidden.

    Raises:
        OSError: it, or a folder in it, cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in ENDINGS and path.is_file():
                yield path


def lists_among(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that are read as lists of videos."""
    names = [os.fsdecode(os.fspath(given)) for given in inputs]
    return [Path(name[1:]) for name in names if _is_list(name)]


def _is_list(given: str) -> bool:
    return given.startswith("@") and not Path(given).exists()


def _named(given: str, op: str, *, listed: bool = False) -> Iterator[Path | Address]:
    path = Path(given)
    if in_store(given):
        yield from map(Address, objects(given, f"{op}: {clean(given)}", ENDINGS))
    elif is_address(given):
        yield Address(given)
    elif _is_list(given) and not listed:
        if path.suffix.lower() == ENDING:
            lines = read_paths(given[1:], op)
        else:
            lines = read_file(given[1:], op, _LISTS).decode("utf-8", "surrogateescape").splitlines()
            lines = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        for line in lines:
            yield from _named(line, op, listed=True)
    elif path.is_dir():
        try:
            inside = sorted(_inside(path))
        except OSError as error:  # what is in it would be left out in silence
            raise VTSumError(f"{op}: {plain(error.filename or given)}: cannot be read: {reason(error)}") from None
        if not inside:
            raise VTSumError(f"{op}: {plain(given)} must hold videos, got a folder without any")
        yield from inside
    elif path.exists():
        yield path
    else:
        try:
            matches = matching(given) if glob.has_magic(given) else []
        except OSError as error:
            raise VTSumError(f"{op}: {plain(error.filename or given)}: cannot be read: {reason(error)}") from None
        if not matches:
            raise VTSumError(f"{op}: {plain(given)}: no such file")
        yield from (match for match in matches if match.is_file())


def place(
    videos: Sequence[Path | Address],
    folder: Path,
    known: Mapping[Path | Address, str],
    called: Callable[[str], str] = str,
) -> dict[Path | Address, Path]:
    """A folder for each summary: the video's name, with that of its folder or a number where two have one.

    Args:
        known: names that a run before gave. called: from the name of a video to that of its folder.
    """
    taken = {FILE, *known.values()}
    numbers: dict[str, int] = {}  # the first that may be free: a list may have a million videos of one name
    placed: dict[Path | Address, Path] = {}
    for video in videos:
        name = known.get(video, "")
        if not name:
            short = _short(video.stem) or "video"
            names = (called(given) for given in (short, _short(f"{_around(video)}_{short}")))
            name = next((given for given in names if given not in taken), "")
        if not name:
            number = numbers.get(short, 2)
            while (name := called(f"{short}_{number}")) in taken:
                number += 1
            numbers[short] = number + 1
        taken.add(name)
        placed[video] = folder / name
    return placed


def _around(video: Path | Address) -> str:
    """Where a video is: the name of its folder, or of its machine."""
    return clean(host_of(video)) or "web" if isinstance(video, Address) else video.parent.name


def _short(name: str) -> str:
    whole = os.fsencode(name).decode(errors="replace")  # the ledger is in Unicode
    return shortened(whole, _NAME).lstrip(".")
