"""Inputs made from good ones: bytes changed, pieces repeated, moved and taken from others, values of JSON replaced.

By hypothesis, which the tests use anyway and which makes what it finds as small as it can; a fuzzer that is led by
coverage would see nothing of what torch, NumPy and zlib do, and be a dependency of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

LONGEST = 1 << 15  # bytes
TOKENS = (
    *(b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\x85"),
    *(b"\n", b"\r", b"\n\n", b" ", b"\t", b"\x1b[31m", b"\x1b]0;x\x07", "\u202e\u2028\u200b".encode(), b"\\ud800"),
    *(b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"9" * 30, b"9" * 5000, b"18446744073709551615", b"1e-320"),
    *(b"[", b"]", b"{", b"}", b"(", b")", b"<", b">", b'"', b"'", b",", b":", b"&", b"*", b"!", b"|", b"%", b"#"),
    *(b"null", b"true", b"[]", b"{}", b'""', b"../../../etc/passwd", b"/", b"..", b"\\", b"[" * 200, b"(" * 200),
)
_NAMES = ("x", "", "\0", "__class__", "../a", "9" * 400)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63, 2**64 - 1, -(2**63), 10**6, 10**9, 10**15),
    *(0.5, -0.0, 1e308, -1e308, 5e-324, "", "x", "0", "nan", "auto", "..", "/", "a/b", "\0", "\x1b[31m", "\ud800"),
    *(
        "\u202e",
        "x" * 3000,
        "9" * 400,
        [],
        {},
        [[]],
        [{}],
        [None],
        {"": None},
        [[0, 1], [2]],
        [1, "a"],
        {"a": {"a": {}}},
    ),
)


@st.composite
def changed_bytes(draw: DrawFn, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of the seeds with up to eight changes."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.one_of(st.integers(0, 8), st.integers(0, len(data) - at)))
        how = draw(st.sampled_from(("byte", "token", "cut", "repeat", "splice")))
        piece = b""
        if how == "byte":
            size, piece = 1, bytes([draw(st.integers(0, 255))])
        elif how == "token":
            size, piece = draw(st.sampled_from((0, size))), draw(st.sampled_from((*tokens, *TOKENS)))
        elif how == "repeat":
            piece = data[at : at + size] * draw(st.sampled_from((2, 3, 17, 1000)))
        elif how == "splice":
            other = draw(st.sampled_from(seeds))
            begin = draw(st.integers(0, len(other)))
            piece = other[begin : begin + draw(st.integers(0, len(other) - begin))]
        data = (data[:at] + piece + data[at + size :])[:LONGEST]
    return data


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(list or object, index or name) of every value within a value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


@st.composite
def changed_json(draw: DrawFn, seeds: Sequence[bytes]) -> bytes:
    """JSON, or YAML of its kind, with up to four values replaced, left out or doubled."""
    content = {"": json.loads(draw(st.sampled_from(seeds)))}
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(content))
        within, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(("replace", "replace", "move", "leave out", "add")))
        if how == "leave out" and within is not content:
            del within[key]
        elif how == "add" and isinstance(within, dict):
            within[draw(st.sampled_from(_NAMES))] = deepcopy(within[key])
        elif how == "add":
            within.insert(key, deepcopy(draw(st.sampled_from(_VALUES))))
        elif how == "move":
            source, name = places[draw(st.integers(0, len(places) - 1))]
            within[key] = deepcopy(source[name])
        else:
            within[key] = deepcopy(draw(st.sampled_from(_VALUES)))
    return json.dumps(content[""]).encode()


def inputs(seeds: Sequence[bytes], tokens: Sequence[bytes] = (), is_json: bool = False) -> SearchStrategy[bytes]:
    """Changed bytes of the seeds; where `is_json` is set, changed values too, of those that are objects or lists."""
    values = [seed for seed in seeds if is_json and seed[:1] in (b"{", b"[")]
    by_bytes = changed_bytes(seeds, tokens)
    return st.one_of(by_bytes, changed_json(values)) if values else by_bytes
