"""Names of outputs that say what is in them: "{stem}_{budget}"."""

from __future__ import annotations

import datetime
import os
import string
from collections.abc import Mapping
from pathlib import Path

from vtsum.enhance.summary_refinement import Budget
from vtsum.errors import VTSumError
from vtsum.files import shortened

LONGEST = 100  # bytes of a video's name in that of a folder


def short(name: str) -> str:
    """A name of at most 100 bytes: one may be as long as the file system allows, with nothing to spare."""
    return shortened(name, LONGEST)


def fields_of(budget: Budget, source: Path | None = None) -> dict[str, str]:
    """What the words of a template stand for; without a video, those that are of no video."""
    known = {"budget": "".join(budget.text.split()), "date": datetime.date.today().isoformat()}
    if source is not None:
        stem = short(source.stem)
        known["stem"] = "video" if stem in ("", ".", "..") else stem
    return known


def filled(output: str | os.PathLike[str], fields: Mapping[str, str], op: str) -> Path:
    """An output's path: a text with each {name} replaced, a path object as it is.

    Args:
        fields: what may stand in braces. op: begins the message.
    Raises:
        VTSumError: something else does; {{ and }} stand for the braces themselves.
    """
    if not isinstance(output, str):
        return Path(output)
    parts = []
    known = " or ".join(f"{{{name}}}" for name in sorted(fields))
    rule = f"{op}: output must hold {known}, or braces twice ({{{{ }}}}) where they are meant, got"
    try:
        for text, name, spec, conversion in string.Formatter().parse(output):
            if name is not None and (name not in fields or spec or conversion):
                whole = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise VTSumError(f"{rule} {{{whole}}}")
            parts.append(text + ("" if name is None else fields[name]))
    except ValueError:
        raise VTSumError(f"{rule} {output!r:.80}") from None
    return Path("".join(parts))


def parted(output: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], str]:
    """The folder of a batch, and the template of the names in it: "{stem}" where the last part of the path has none."""
    folder, slash, name = output.rpartition("/") if isinstance(output, str) else ("", "", "")
    return (folder or slash or ".", name) if "{stem}" in name else (output, "{stem}")
