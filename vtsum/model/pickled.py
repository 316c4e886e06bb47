"""The calls that a pickle of torch.save's makes, looked at before torch makes them.

With weights_only=True torch runs no code of the file, but lets it call what bytes and byte arrays are made by, with
whatever the file says: a file of 33 bytes asks for 16 GiB of zeros, one of 795 bytes writes "a" in hexadecimal, that in
hexadecimal, and so on, until memory is full, and one of some 100 KiB has its letters written in Punycode for hours.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any, cast

from vtsum.model.pickled_keys import Keys

LONGEST_NAME = 1000
"""Characters; of a longer class torch makes a message in time that grows with the square."""
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING"}
_WORDS = {"TUPLE1": "one", "TUPLE2": "two", "EMPTY_TUPLE": "none", "REDUCE": "call"}
_BYTES = ["text", "latin1", "two", "call"]
"""What follows the name of the function by which Python's pickles make bytes."""
_ARRAY = ["bytes", "one", "call"]
"""What follows the class of byte arrays: bytes, made anew; or nothing at all."""
_AS_TEXT = {"letter", "latin1"}


class OddBytes(ValueError):
    """Bytes that are made otherwise than Python's pickles make them."""


def check_pickle(source: bytes | IO[bytes]) -> None:
    """Look at a pickle, which torch has still to read.

    Args:
        source: a file is left behind the pickle's end.
    Raises:
        OddBytes: it has bytes made otherwise than Python's pickles do, each from a text of its own, a letter a byte.
        ValueError: it is broken, or names a class of an endless name, or has keys that are hashed without end.
    """
    expected: list[str] = []
    for word in _words(source):
        wanted = expected.pop(0) if expected else None
        if wanted == "bytes" and word == "none":
            expected.remove("one")
        elif word == "encode" and wanted in (None, "bytes"):
            expected[:0] = _BYTES
        elif word == "bytearray" and wanted is None:
            expected = list(_ARRAY)
        elif wanted not in (None, word) and not (wanted == "text" and word in _AS_TEXT):
            raise OddBytes("bytes that are not made as Python's pickles make them")


def _words(source: bytes | IO[bytes]) -> Iterator[str]:
    """What each step of a pickle puts on the stack, as far as `check_pickle` goes by it."""
    memo: dict[int, str] = {}
    word, keys = "", Keys()
    for opcode, found, _ in pickletools.genops(source):
        name, argument = opcode.name, cast(Any, found)
        keys.see(name, argument)
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            # Of texts, Python has the letters and "latin1" once; any other may be long, and is not to be had again.
            memo[argument] = word if word in ("encode", "bytearray", *_AS_TEXT) else ""
            continue
        if name == "GLOBAL":
            if len(argument) > LONGEST_NAME:
                raise ValueError(f"a name of more than {LONGEST_NAME} characters")
            called = argument.rpartition(" ")[2]  # of whatever module: torch knows the names of Python 2, too
            word = called if called in ("encode", "bytearray") else ""
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            word = memo.get(argument, "")
        elif name in _TEXTS:
            word = "latin1" if argument == "latin1" else "letter" if len(argument) <= 1 else "text"
        else:
            word = _WORDS.get(name, "")
        yield word
