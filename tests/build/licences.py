"""Under which licences the packages come that VTSum asks for: `python -m tests.build.licences` prints the table of
docs/licences.md, from what is installed."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def asked_for() -> dict[str, list[str]]:
    """Each package that pyproject.toml names, with the extras that ask for it; without one: "VTSum itself"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"VTSum itself": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, list[str]] = {}
    for group, lines in groups.items():
        for name in (Requirement(line).name for line in lines):
            if name != "vtsum":
                found.setdefault(name, []).append(group)
    return found


def licence(package: str) -> str | None:
    """What an installed package says of itself: an SPDX expression, else its field, else its classifiers."""
    try:
        about = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return None
    if expression := about.get("License-Expression"):
        return expression
    field = (about.get("License") or "").strip()
    named = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    if field == "UNKNOWN":
        field = ""
    if field and "\n" not in field and len(field) < 60:
        return field
    return ", ".join(named) or (re.split(r"\n", field)[0] if field else "says none")


def rows() -> list[str]:
    found = {name: licence(name) for name in asked_for()}
    missing = [name for name, said in found.items() if said is None]
    if missing:
        raise SystemExit(f"licences: every package must be installed, got none of {', '.join(missing)}")
    return [f"| {name} | {found[name]} | {', '.join(groups)} |" for name, groups in sorted(asked_for().items())]


if __name__ == "__main__":
    print("\n".join(rows()))
