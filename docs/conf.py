"""The site: `make docs` builds it into docs/_build, warnings as errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from vtsum import __version__

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import made_pages  # noqa: E402 - it lies beside this file

project, author, version, release = "VTSum", "the VTSum authors", __version__, __version__
copyright = f"{author}, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme, html_title = "furo", "VTSum"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # README.md's of ops begin at their own level
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring, napoleon_numpy_docstring = True, False

#: Pages of the root and of the ops, which the site shows under names of its own.
OUTSIDE = {
    "../README.md": "index.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
    "../CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "../memory_attention/README.md": "memory_attention.md",
}


def _linked(app: Any, page: str, source: list[str]) -> None:
    """Links as they are right in the repository -> as they are right on the site."""

    def to(match: re.Match[str]) -> str:
        target = OUTSIDE.get(match[1], match[1])
        return f"]({target.removeprefix('docs/')})"

    source[0] = re.sub(r"\]\(([\w./-]+)\)", to, source[0])
    source[0] = re.sub(r"<!-- .*? -->\n?", "", source[0])


def _included(app: Any, path: Path, parent: str, source: list[str]) -> None:
    _linked(app, parent, source)


def _docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written as they read best in an editor; Sphinx is told what is code."""
    free, code, made = True, False, list[str]()
    for line in lines:
        free = free and not re.match(r"(Args|Attributes|Returns|Yields|Raises):$", line)
        is_code = free and (line.startswith("    ") or line.startswith("|"))
        if is_code and not code:
            made += ["::", ""]
        elif code and not is_code and line:
            made.append("")
        code = is_code or (code and not line)
        text = f"    {line}" if is_code and line.startswith("|") else line
        made.append(text if code else re.sub(r"\|(?=\S)|(?<=\S)\|", r"\\|", text))
    lines[:] = made


def setup(app: Any) -> None:
    (HERE / "commands.md").write_text(made_pages.commands(), encoding="utf-8")
    (HERE / "summary_json.md").write_text(made_pages.summary_json(), encoding="utf-8")
    app.connect("source-read", _linked)
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    app.connect("include-read", _included)
