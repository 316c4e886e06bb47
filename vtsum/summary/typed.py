"""A strict check of decoded JSON against types."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any

from vtsum.errors import VTSumError
from vtsum.reading import kinds_named, named, quoted

_hints = functools.cache(typing.get_type_hints)


def check_type(value: Any, kind: Any, where: str) -> None:
    """Check decoded JSON against a TypedDict, a dataclass, or what these are made of.

    Raises:
        VTSumError: naming the first field that is missing, unknown or of a wrong type; `where` begins the message.
    """
    origin = typing.get_origin(kind)
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        if not isinstance(value, dict):
            raise VTSumError(f"{where} must be an object, got {named(value)}")
        for name in sorted(hints.keys() ^ value.keys()):
            raise VTSumError(f"{where}.{name:.80} is {'missing' if name in hints else 'unknown'}")
        for name, inner in hints.items():
            check_type(value[name], inner, f"{where}.{name}")
    elif origin is tuple:
        kinds = typing.get_args(kind)
        if not isinstance(value, list) or len(value) != len(kinds):
            raise VTSumError(f"{where} must be a list of {len(kinds)}, got {quoted(value)}")
        for i, item in enumerate(value):
            check_type(item, kinds[i], f"{where}[{i}]")
    elif origin is list:
        if not isinstance(value, list):
            raise VTSumError(f"{where} must be a list, got {named(value)}")
        for i, item in enumerate(value):
            check_type(item, typing.get_args(kind)[0], f"{where}[{i}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise VTSumError(f"{where} must be an object, got {named(value)}")
        for name, item in value.items():
            check_type(item, typing.get_args(kind)[1], f"{where}.{name:.80}")
    elif origin is types.UnionType:
        if value is not None:
            check_type(value, next(k for k in typing.get_args(kind) if k is not types.NoneType), where)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise VTSumError(f"{where} must be a finite number, got {quoted(value)}")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise VTSumError(f"{where} must be {kinds_named(kind)}, got {quoted(value)}")
