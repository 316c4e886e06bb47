"""Pickles of a few bytes that would have torch make gigabytes, or work for hours, without running any code."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vtsum.hostile import refused
from tests.vtsum.samples import small_clip
from vtsum.errors import VTSumError
from vtsum.model.files import read_pt

ODD = "bytes that are not made as Python's pickles make them"


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def encoded(argument: bytes, name: str) -> bytes:
    return b"c_codecs\nencode\n(" + argument + text(name) + b"tR"


def again_and_again(times: int) -> bytes:
    found = encoded(text("a"), "latin1")
    for _ in range(times):
        found = encoded(found, "hex")
    return found


def number(value: int) -> bytes:
    return b"\x8a\x05" + value.to_bytes(5, "little")


TWO = b"c_codecs\nencode\n" + text("ab") + text("latin1") + b"\x86R"
HOSTILE = {
    "hexadecimal of hexadecimal": again_and_again(35),
    "hexadecimal": b"c_codecs\nencode\n" + text("ab") + text("hex") + b"\x86R",
    "Punycode": encoded(text("".join(chr(0x4E00 + n % 5000) for n in range(60_000))), "punycode"),
    "zeros": b"cbuiltins\nbytearray\n(" + number(1 << 34) + b"tR",
    "zeros by Python 2's name": b"c__builtin__\nbytearray\n" + number(1 << 34) + b"\x85R",
    "a function from the memo": b"c_codecs\nencode\nq\x00h\x00(" + text("ab") + text("hex") + b"tR",
    "a text from the memo": text("ab" * 500) + b"q\x00" + b"c_codecs\nencode\nh\x00" + text("latin1") + b"\x86R",
    "an array of an array": b"cbuiltins\nbytearray\ncbuiltins\nbytearray\n" + TWO + b"\x85R\x85R",
    "bytes that were made before": TWO + b"q\x00cbuiltins\nbytearray\nh\x00\x85R",
}


def archive(path: Path, content: bytes) -> Path:
    """What torch.save writes, with another pickle in it."""
    torch.save({"a": 1}, path)
    with zipfile.ZipFile(path) as whole:
        found = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for name, data in found.items():
            made.writestr(name, content if name.endswith("data.pkl") else data)
    return path


def legacy(path: Path, content: bytes) -> Path:
    """What torch.save wrote before 1.6, with another pickle in it."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + content + pickle.dumps([], 2))
    return path


@pytest.mark.parametrize("form", [archive, legacy])
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_bytes_are_made_as_python_makes_them(content: bytes, form: Any, tmp_path: Path) -> None:
    path = form(tmp_path / "w.pth", b"\x80\x02" + content + b".")
    with pytest.raises(VTSumError, match=ODD):
        read_pt(path, "load")


@pytest.mark.parametrize("new", [True, False])
def test_bytes_that_torch_saved_are_read(new: bool, tmp_path: Path) -> None:
    """More than 256 of them, so that all kinds of memo are met; equal ones, and such as are called as a codec is."""
    odd = [b"x", b"x", b"latin1", b"encode", bytearray(b"abc"), bytearray(), bytes(range(256))]
    content = {"bytes": [*odd, *(bytes([n % 256, n // 256]) for n in range(700))], "encode": "bytearray"}
    content |= {"weight": torch.ones(2), "again": bytearray(b"abc"), "latin1": "latin1", "a": b"latin1"}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    found = read_pt(tmp_path / "w.pth", "load")
    assert found["bytes"] == content["bytes"]
    assert np.array_equal(found["weight"], content["weight"])
    assert {k: v for k, v in found.items() if k != "weight"} == {k: v for k, v in content.items() if k != "weight"}


def test_a_command_refuses_weights_without_end_in_one_line(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4").path
    archive(tmp_path / "blip.pth", b"\x80\x02" + HOSTILE["hexadecimal of hexadecimal"] + b".")
    words = ["extract", str(clip), "-o", str(tmp_path / "features"), "--encoder", str(tmp_path / "blip.pth")]
    assert ODD in refused(*words, names=tmp_path / "blip.pth")
