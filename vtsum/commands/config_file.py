"""Options of a command from a file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import typer

from vtsum.errors import VTSumError
from vtsum.files import plain

_NOT = ("config", "help", "install-completion", "show-completion")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Let what a YAML file says stand in for what the command line leaves out.

    Raises:
        VTSumError: it cannot be read, names what is no option of the command, or gives a value of another kind.
    """
    if path is None:
        return None
    from vtsum.summary.staging import READ
    from vtsum.training.yaml_file import read_mapping

    command = str(context.info_name)
    where = f"{command}: --config {plain(path)}"
    known = {
        word.removeprefix("--"): parameter
        for parameter in context.command.params
        for word in getattr(parameter, "opts", ())
        if word.startswith("--") and word.removeprefix("--") not in _NOT
    }
    given: dict[str, Any] = {}
    for name, value in read_mapping(path, command, words=True).items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise VTSumError(f"{where}: must name options of vtsum {command}, got {str(name)!r:.60}{hint}")
        parameter = known[name]
        given[str(parameter.name)] = _value(parameter, value, f"{where}: {name}")
    READ.append(path)
    context.call_on_close(READ.clear)  # another command of this process has not read it
    context.default_map = {**(context.default_map or {}), **given}
    return path


def _value(parameter: Any, value: Any, where: str) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in values):
        raise VTSumError(f"{where} must be a word or a list of words, got {value!r:.60}")
    if getattr(parameter, "is_flag", False):
        if value not in ("true", "false"):
            raise VTSumError(f"{where} must be true or false, got {value!r:.60}")
        return value == "true"
    return values if parameter.multiple else ",".join(values)
