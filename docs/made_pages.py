"""The pages of the site that are made from the program itself."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from types import ModuleType

from vtsum.summary import schema, settings


def commands() -> str:
    """All commands, as the program tells of them."""
    pages = _said("typer", "vtsum.commands", "utils", "docs", "--name", "vtsum", "--title", "Commands")
    every = f"## All settings of `vtsum train`\n\n```text\n{_said('vtsum', 'train', '--help')}```\n"
    return pages.replace("**Usage**:\n\n```console\n$ ", "```text\n") + "\n" + every


def _said(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, text=True).stdout


def summary_json() -> str:
    """The fields of summary.json, by the classes and comments of the modules that declare them."""
    parts = ["# summary.json", inspect.cleandoc(schema.__doc__ or "").partition("\n\n")[2]]
    for module in (schema, settings):
        parts += _classes(module)
    return "\n\n".join(parts) + "\n"


def _classes(module: ModuleType) -> list[str]:
    source = inspect.getsource(module)
    lines = source.splitlines()
    parts = []
    for found in ast.parse(source).body:
        if not isinstance(found, ast.ClassDef):
            continue
        fields = [one for one in found.body if isinstance(one, ast.AnnAssign)]
        rows = ["| field | is | |", "|---|---|---|"]
        for field in fields:
            kind = ast.unparse(field.annotation).strip("'")
            kind = kind.replace("|", "\\|")  # in a table
            rows.append(f"| `{ast.unparse(field.target)}` | `{kind}` | {_comment(lines, field)} |")
        if fields:
            said = inspect.cleandoc(ast.get_docstring(found) or "")
            parts += [f"## {found.name}", said, "\n".join(rows)]
    return parts


def _comment(lines: list[str], field: ast.AnnAssign) -> str:
    """What stands behind a field, or in the lines of comment above it."""
    behind = re.search(r"  # (.*)$", lines[(field.end_lineno or field.lineno) - 1])
    if behind:
        return behind[1].replace("|", "\\|")
    above: list[str] = []
    for line in reversed(lines[: field.lineno - 1]):
        if not line.strip().startswith("# "):
            break
        above.insert(0, line.strip()[2:])
    return " ".join(above).replace("|", "\\|")
