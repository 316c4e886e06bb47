"""Words of a command line and plain data of a file as values of settings, and the settings that they may have meant."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from vtsum.errors import VTSumError
from vtsum.reading import parse_json

_LARGEST = 3e38  # training computes in float32


def nearest(name: str, known: Sequence[str]) -> str:
    """`: did you mean "..."?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the last part of a dotted name may be all that was given
        near = [k for k in known if k.rpartition(".")[2] == name][:1]
    return f'; did you mean "{near[0]}"?' if near else ""


def coerce(name: str, kind: Any, value: Any) -> Any:
    """`value`, a word of the command line or plain data of the file, as the type of the setting `name`.

    Raises:
        VTSumError: it is of another type.
    """
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) else (kind,)
    if type(None) in options:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        options = tuple(o for o in options if o is not type(None))
    want = options[0]
    if want is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
    elif want in (int, float):
        # A string too: YAML 1.1 reads 1e-5, without a point, as one.
        if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
            try:
                number = float(value)
                if want is float and abs(number) <= _LARGEST:
                    return number
                if want is int and number == int(number) and abs(number) < 2**63:
                    return int(number)
            except (ValueError, OverflowError):
                pass
    elif is_mapping(want):
        return _mapping(name, value)
    elif want is str and isinstance(value, str) and "\0" not in value:
        with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair
            os.fsencode(value)
            return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    rule = kinds.get(want, str(want)) + (" or none" if type(None) in typing.get_args(kind) else "")
    raise VTSumError(f"train: {name} must be {rule}, got {value!r}")


def is_mapping(kind: Any) -> bool:
    """Whether a setting of this type takes values by name."""
    return any(typing.get_origin(option) is Mapping for option in (kind, *typing.get_args(kind)))


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """Values by name: of a file as they are, of a command line as JSON; a word that says a number becomes one."""
    if isinstance(value, str):
        value = parse_json(value.encode("utf-8", "replace"), dict, f"train: {name}")
    try:
        made = json.loads(json.dumps(value, allow_nan=False))
        if made != value or not isinstance(made, dict):  # JSON makes words of other names
            raise ValueError
        os.fsencode(json.dumps(made, ensure_ascii=False))  # half a surrogate pair
    except (TypeError, ValueError, RecursionError):
        raise VTSumError(f'train: {name} must be values by name, such as {{"a": 1}}, got {value!r:.200}') from None
    return {key: _numbers(item) for key, item in made.items()}


def _numbers(value: Any) -> Any:
    """The same with the words that say a number as one: YAML 1.1 reads 1e-5, without a point, as a word."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return number if math.isfinite(number := float(value)) else value
    return value
