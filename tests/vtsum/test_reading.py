"""Strict reading of small files: what is no plain JSON of a sane size is refused in one line that names the file."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from vtsum.errors import VTSumError
from vtsum.reading import DEPTH, parse_json, read_json

HOSTILE = {
    "deep": (b"[" * 200_000 + b"]" * 200_000, "levels"),
    "one level too deep": (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "levels"),
    "deep and cut off": (b'{"a":' * 100_000, "levels"),
    "401 digits": (b'{"step": ' + b"9" * 401 + b"}", "more than 64 bits"),
    "5,000 digits": (b'{"step": -' + b"9" * 5000 + b"}", "more than 64 bits"),
    "65 bits": (b'{"step": 18446744073709551616}', "more than 64 bits"),
    "not a number": (b'{"fps": NaN}', "not finite"),
    "infinite": (b'{"fps": -Infinity}', "not finite"),
    "beyond float64": (b'{"fps": 1e999}', "not finite"),
    "twice": (b'{"a": 1, "a": 2}', "'a' stands there twice"),
    "no UTF-8": (b'{"a": "\xff"}', "byte 0xff at 7"),
    "half a pair": (b'{"a": "\\ud800"}', "surrogate"),
    "a list": (b"[{}]", "must hold an object, got a list"),
    "null": (b"null", "must hold an object, got null"),
    "empty": (b"", "must be JSON"),
    "cut off": (b'{"a": ', "must be JSON"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_json_is_refused_in_one_line(kind, tmp_path):
    content, reason = HOSTILE[kind]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(VTSumError) as caught:
        read_json(path, dict, "load")
    message = str(caught.value)
    assert message.startswith(f"load: {path} must ")
    assert reason in message
    assert "\n" not in message
    assert len(message) < 200 + len(str(path))


def test_plain_json_is_read_as_it_is(tmp_path):
    value = {"a": [1, -2.5, True, None, {"b": "\u00fc \U0001f600"}], "c": [2**64 - 1, -(2**63)]}
    path = tmp_path / "config.json"
    for text in (json.dumps(value), "\ufeff" + json.dumps(value, ensure_ascii=False)):
        path.write_text(text, encoding="utf-8")
        assert read_json(path, dict, "load") == value
    assert parse_json("[" * DEPTH + "]" * DEPTH, list, "deep")


def test_what_is_no_small_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"[" + b" " * 100 + b"]")
    for path, limit, rule in (
        (tmp_path / "pipe", 100, "regular file"),  # without a writer: waiting for one would never end
        (Path("/dev/zero"), 100, "regular file"),
        (tmp_path, 100, "readable file, got: Is a directory"),
        (tmp_path / "none", 100, "readable file, got: no such file"),
        (tmp_path / "large", 100, "at most 100 bytes"),
    ):
        with pytest.raises(VTSumError, match=rule) as caught:
            read_json(path, list, "load", limit)
        assert str(path) in str(caught.value)
    assert read_json(tmp_path / "large", list, "load") == []


def test_a_small_file_takes_little_memory_whatever_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[1]" + b" " * (5 << 20))
    tracemalloc.start()
    try:
        assert read_json(path, list, "load", 1 << 30) == [1]
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(VTSumError, match="at most 5242882 bytes, got more"):
        read_json(path, list, "load", (5 << 20) + 2)
