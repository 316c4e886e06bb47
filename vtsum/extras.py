"""What an optional part of VTSum needs, and the line that says how to get it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from vtsum.errors import VTSumError


def extras() -> dict[str, list[str]]:
    """The distributions that each extra of pyproject.toml adds, without VTSum's other extras; where VTSum is not
    installed, as pyproject.toml beside its sources has them."""
    try:
        listed = metadata.requires("vtsum") or []
    except metadata.PackageNotFoundError:
        path = Path(__file__).parents[1] / "pyproject.toml"
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        optional = project["optional-dependencies"].items()
        listed = [f'{wanted}; extra == "{extra}"' for extra, all_wanted in optional for wanted in all_wanted]
    found: dict[str, list[str]] = {}
    for requirement in listed:
        extra = re.search(r"""extra == ['"]([\w-]+)""", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and name[0] != "vtsum":
            found.setdefault(extra[1], []).append(name[0])
    return found


def require(extra: str, function: str) -> None:
    """Raise VTSumError, naming the packages and the command that installs them, if an extra is not complete."""
    missing = [name for name in extras()[extra] if version_of(name) is None]
    if missing:
        raise VTSumError(f"{function}: {', '.join(missing)} must be installed: pip install vtsum[{extra}]")


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
