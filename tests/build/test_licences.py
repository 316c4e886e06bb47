"""docs/licences.md lists every package that is asked for, with the licence that it names itself."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from tests.build.licences import asked_for, licence

ROOT = Path(__file__).resolve().parents[2]


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def test_every_package_is_listed_with_its_licence() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8").partition("## Packages that pip installs")[2]
    listed = {name: (said, who) for name, said, who in re.findall(r"^\| ([\w-]+) \| (.+) \| (.+) \|$", text, re.M)}
    listed.pop("package")
    assert {name: who for name, (_, who) in listed.items()} == {n: ", ".join(g) for n, g in asked_for().items()}
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([\w.-]+)==([\w.]+)", constraints, re.MULTILINE))
    compared = {name for name in listed if version_of(name) == tested[name]}
    assert compared  # other versions may say it in other words
    assert {name: licence(name) for name in compared} == {name: listed[name][0] for name in compared}


def test_what_lies_in_the_package_is_listed() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "vtsum" / "assets").iterdir() if f"assets/{path.name}" not in text] == []
