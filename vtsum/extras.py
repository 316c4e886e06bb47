"""What an optional part of VTSum needs, and the line that says how to get it."""

from __future__ import annotations

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from vtsum.errors import VTSumError

_HUB = ("HF_ENDPOINT", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


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
    """Raise VTSumError, naming the packages and the command that installs them, if an extra is not complete; or
    where the environment keeps the hub's client from being imported."""
    missing = [name for name in extras()[extra] if version_of(name) is None]
    if missing:
        raise VTSumError(f"{function}: {', '.join(missing)} must be installed: pip install vtsum[{extra}]")
    _check_hub(function)


def _check_hub(function: str) -> None:
    """Raise VTSumError where the environment has settings of the hub's client by which it, and transformers with it,
    cannot be imported."""
    try:
        from huggingface_hub import constants

        _ = urlsplit(constants.ENDPOINT).port
    except ImportError:
        return  # who needs it says so
    except ValueError as error:
        found = ", ".join(f"{name}={os.environ[name]}" for name in _HUB if os.environ.get(name))
        raise VTSumError(
            f"{function}: HF_ENDPOINT must be an address (https://HOST) and HF_HUB_*_TIMEOUT whole seconds, got "
            f"{found}: {error}"
        ) from None


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
