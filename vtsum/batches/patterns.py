"""Paths that a pattern matches, as `glob` has it, but in time that goes with the folders there are.

`glob` follows a link to a folder as often as it meets it: where two links in a folder lead back to it, "**" walks for
ever. Here each folder is looked at once, by the name that has no link in it where there is one.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path


def matching(pattern: str) -> list[Path]:
    """What a pattern names: "*", "?" and "[a-z]" within a name, "**" for folders at any depth; hidden names only where
    the pattern has the dot. In order of their names.

    Raises:
        OSError: a folder on the way cannot be read; what is in it would be left out in silence.
    """
    path = Path(pattern)
    parts = list(path.parts[1:] if path.anchor else path.parts)
    if parts and parts[-1] == "**":
        parts.append("*")
    found = [Path(path.anchor)]
    for part in parts:
        if part == "**":
            found = list(_folders(found))
        elif glob.has_magic(part):
            found = [place / name for place in _once(found) for name in _names(place) if _fits(name, part)]
        else:
            found = [place / part for place in _once(found) if os.path.lexists(place / part)]
    return sorted(found)


def _fits(name: str, part: str) -> bool:
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(begin: Iterable[Path]) -> Iterator[Path]:
    """These folders and all below them, each once."""
    waiting, links = deque(_once(begin)), deque[Path]()
    seen = set()
    while waiting or links:
        place = waiting.popleft() if waiting else links.popleft()
        known = _identity(place)
        if known is None or known in seen:
            continue
        seen.add(known)
        yield place
        for inside in sorted(place / name for name in _names(place) if not name.startswith(".")):
            if inside.is_dir():
                (links if inside.is_symlink() else waiting).append(inside)


def _once(places: Iterable[Path]) -> list[Path]:
    """The folders among these, each by the first of its names, those that are no links before."""
    found: dict[tuple[int, int], Path] = {}
    for place in sorted(places, key=lambda place: place.is_symlink()):
        if place.is_dir() and (known := _identity(place)) is not None:
            found.setdefault(known, place)
    return list(found.values())


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        at = os.stat(folder)
    except OSError:
        return None
    return at.st_dev, at.st_ino
