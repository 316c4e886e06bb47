"""Reading small files that a stranger may have made: JSON above all. What is wrong with one is told in one line."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import types
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from vtsum.errors import VTSumError
from vtsum.shown import with_slashes

LIMIT = 64 * 2**20
"""Bytes that a file may have, unless its reader says otherwise."""
DEPTH = 64
"""Lists and objects that may stand in one another."""

_PIECE = 1 << 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}
_T = TypeVar("_T")


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_file(path: str | os.PathLike[str], op: str, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file; a pipe or a device is not waited for.

    Raises:
        VTSumError: it is missing, no regular file, cannot be read, or has more than `limit` bytes.
    """
    where = _where(path, op)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise VTSumError(f"{where} must be a regular file, got something else")
            content = read_at_most(file, limit + 1)
    except VTSumError:
        raise
    except (OSError, ValueError) as error:  # a name that no file can have, with a NUL in it, is a ValueError
        missing = isinstance(error, OSError) and error.errno == errno.ENOENT
        reason = "no such file" if missing else getattr(error, "strerror", None) or error
        raise VTSumError(f"{where} must be a readable file, got: {reason}") from None
    if len(content) > limit:
        raise VTSumError(f"{where} must have at most {limit} bytes, got more")
    return content


def read_at_most(file: _Reader, size: int) -> bytes:
    """The next `size` bytes of a file, or as many as it has. Asked for all at once, Python would make room for `size`
    before it looks how many there are."""
    parts = []
    while size > 0 and (part := file.read(min(size, _PIECE))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_json(path: str | os.PathLike[str], kind: type[_T], op: str, limit: int = LIMIT, bits: int = 64) -> _T:
    """The JSON of a file, checked as `parse_json` does; `op` begins the message, the file's name where it is empty.

    Raises:
        VTSumError: see `read_file` and `parse_json`.
    """
    return parse_json(read_file(path, op, limit), kind, _where(path, op), bits)


def _where(path: str | os.PathLike[str], op: str) -> str:
    name = with_slashes(os.fsdecode(path))
    return f"{op}: {name}" if op else name


def parse_json(text: bytes | str, kind: type[_T], where: str, bits: int = 64) -> _T:
    """Strict JSON: numbers finite and of at most `bits` bits, each name once, at most `DEPTH` levels, valid Unicode.

    Args:
        text: bytes are UTF-8, a byte order mark is passed over.
        kind: dict, list, or object where either will do. where: what the message names. bits: of whole numbers.
    Raises:
        VTSumError: it is anything else.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        integer = partial(_integer, bits=bits)
        value = json.loads(text, parse_int=integer, parse_float=_real, parse_constant=_real, object_pairs_hook=_object)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        _check_depth(value)
    except RecursionError:
        raise VTSumError(f"{where} must be JSON of at most {DEPTH} levels, got more") from None
    except UnicodeEncodeError:
        raise VTSumError(f"{where} must be JSON in Unicode, got half a surrogate pair") from None
    except UnicodeDecodeError as error:
        raise VTSumError(
            f"{where} must be JSON in UTF-8, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from None
    except ValueError as error:
        raise VTSumError(f"{where} must be JSON, got: {error}") from None
    if not isinstance(value, kind):
        raise VTSumError(f"{where} must hold {_KINDS[kind]}, got {named(value)}")
    return value


def _integer(digits: str, bits: int) -> int:
    # The length first: what it takes to read a number grows with its square.
    if len(digits) > bits or not -(2 ** (bits - 1)) <= (value := int(digits)) < 2**bits:
        raise ValueError(f"a number of more than {bits} bits ({digits[:20]}...)")
    return value


def _real(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"a number that is not finite ({digits[:20]})")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:80]!r} stands there twice")
    return made


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    raise RecursionError


def named(value: Any) -> str:
    """What a value of decoded JSON or YAML is, as a message calls it: "a list"; null and truth values as they stand
    in the file."""
    return quoted(value) if value is None or isinstance(value, bool) else _KINDS.get(type(value)) or quoted(value)


def kinds_named(*kinds: type) -> str:
    """What a field may be, as a message calls it: "a whole number or null"."""
    return " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds)


_PYTHONS = re.compile(
    r"(not enough|too many) values to unpack|could not convert|invalid literal|dictionary update|must be real number"
)
"""What Python's own ValueErrors say of values that are of another kind or number."""


def misfit(error: Exception) -> str:
    """Why values of a file do not belong together, in the file's words: what a ValueError of ours says, or the name
    that is missing. What Python says of the others tells nothing to whoever has the file."""
    if isinstance(error, KeyError) and error.args:
        return f"no {quoted(error.args[0])}"
    if isinstance(error, ValueError) and not _PYTHONS.match(str(error)):
        return str(error)
    return "values that do not belong together"


def field(values: dict[str, Any], name: str, kind: type[_T]) -> _T:
    """What an object of decoded JSON holds by a name.

    Raises:
        ValueError: it has nothing by it, or something else; said in the file's words, not in Python's.
    """
    if name not in values:
        raise ValueError(f"no {quoted(name)}")
    return of_kind(values[name], name, kind)


def of_kind(value: Any, name: str, kind: type[_T]) -> _T:
    """A value of decoded JSON, which a message calls by `name`. A whole number is a number too, a truth value is none.

    Raises:
        ValueError: it is of another kind.
    """
    if kind is float and type(value) is int:
        return value  # type: ignore[return-value]
    if type(value) is not kind:
        raise ValueError(f"{quoted(value)} in {quoted(name)}, which must be {_KINDS[kind]}")
    return value


def quoted(value: Any) -> str:
    """A value of decoded JSON as the file has it, cut off."""
    return f"{json.dumps(value, ensure_ascii=False, default=str):.60}"


def as_said(value: Any, most: int = 80) -> str:
    """A value of decoded JSON or YAML in a message: a text in quotes, whatever else as the file has it, so that nothing
    in it is "None"."""
    said = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said[:most]


def said_of(values: Mapping[str, Any], name: str, most: int = 80) -> str:
    """`as_said` of what an object has of this name, "none" where it has none."""
    return as_said(values[name], most) if name in values else "none"


def whole_numbers(arrays: Mapping[str, Any], name: str, count: int) -> list[int]:
    """The `count` whole numbers that an array of a file holds.

    Raises:
        KeyError, ValueError: it is not there, or holds something else.
    """
    numbers = arrays[name].tolist()
    if not isinstance(numbers, list) or len(numbers) != count or any(type(number) is not int for number in numbers):
        raise ValueError(f"{quoted(numbers)} in {quoted(name)}, which must be {count} whole numbers")
    return numbers
