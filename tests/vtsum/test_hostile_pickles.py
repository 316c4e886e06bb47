"""Pickles of a few bytes that would have torch make gigabytes, or work for hours, without running any code."""

from __future__ import annotations

import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vtsum.hostile import refused
from tests.vtsum.samples import small_clip
from vtsum.errors import VTSumError
from vtsum.model.files import read_pt
from vtsum.training import checkpoints

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


def _multiple(times: int) -> bytes:
    value = (times * (2**61 - 1)).to_bytes(11, "little")
    return b"\x8a\x0b" + value


KEYS = {
    "a tuple in a tuple, a million times": b"})" + b"\x85" * 1_000_000 + b"Ns",
    "a tuple that doubles": b"})q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60)) + b"Ns",
    "one that a function takes": b"ccollections\nOrderedDict\n])" + b"\x85" * 1_000_000 + b"a\x85R",
    "numbers of one hash": b"}(" + b"".join(_multiple(n) + b"N" for n in range(1, 60_000)) + b"u",
    "numbers chosen for one place": b"}("
    + b"".join(b"\x8a\x06" + struct.pack("<Q", 2**40 + n)[:6] + b"N" for n in range(30_000))
    + b"u",
    "fractions": b"}(" + b"".join(b"G" + struct.pack(">d", float(n)) + b"N" for n in range(30_000)) + b"u",
    "a set of such": b"c__builtin__\nset\n]("
    + b"".join(b"G" + struct.pack(">d", float(n)) for n in range(30_000))
    + b"e\x85R",
    "a list, filled behind its tuple": b"c__builtin__\nset\n]q\x00\x85q\x01h\x00("
    + b"".join(b"G" + struct.pack(">d", float(n)) for n in range(30_000))
    + b"e0R",
    "pairs of such": b"ccollections\nOrderedDict\n]("
    + b"".join(b"](G" + struct.pack(">d", float(n)) + b"Ne" for n in range(30_000))
    + b"e\x85R",
    "one set again and again": b"c__builtin__\nset\nq\x00]("
    + b"K\x01" * 2000
    + b"eq\x010"
    + b"h\x00h\x01\x85R0" * 6000
    + b"N",
    "one dictionary again and again": b"ccollections\nOrderedDict\nq\x00)R("
    + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(2000))
    + b"u}bq\x010"
    + b"h\x00h\x01\x85R0" * 6000
    + b"N",
    "odd keys": b"}(" + b"".join(b"K\x01" + b"M" + struct.pack("<H", n) + b"\x86N" for n in range(60_000)) + b"u",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", [archive, legacy])
def test_keys_are_not_hashed_without_end(kind: str, form: Any, tmp_path: Path) -> None:
    path = form(tmp_path / "a.pt", b"\x80\x02" + KEYS[kind] + b".")
    with pytest.raises(
        VTSumError, match=r"of more than 10000000 parts|more than 1000 keys or numb|20000 keys of hash|10000000 members"
    ):
        read_pt(path, "test")


def test_keys_that_a_training_writes_are_read(tmp_path: Path) -> None:
    weights = {f"{n}.weight": torch.zeros(2, 3) for n in range(3000)}
    moments = {n: {"step": torch.tensor(1.0), "betas": (0.9, 0.999), ("a", n % 500): n} for n in range(500)}
    content = {"model": weights, "optimizer": moments, "random": (3, tuple(range(625)), None), "seed": 2**64 - 1}
    torch.save(content, tmp_path / "a.pt")
    found = read_pt(tmp_path / "a.pt", "test")
    assert found["optimizer"].keys() == moments.keys()
    assert found["random"] == content["random"]


def test_what_one_file_holds_is_not_counted_of_the_next(tmp_path: Path) -> None:
    """A broken pickle that adds to what is no list: every value of later files had as many members."""
    archive(tmp_path / "a.pt", b"\x80\x02N(" + b"G" * 9 * 30_000 + b"e.")
    with pytest.raises(VTSumError):
        read_pt(tmp_path / "a.pt", "test")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "b.pt")
    assert read_pt(tmp_path / "b.pt", "test")["weight"].shape == (3,)


def test_an_attribute_takes_no_methods_place(tmp_path: Path) -> None:
    for name in ("numel", "untyped_storage", "mine"):
        weight = torch.nn.Parameter(torch.zeros(3))
        setattr(weight, name, 3)
        torch.save({"weight": weight}, tmp_path / "a.pt")
        if name == "mine":
            assert read_pt(tmp_path / "a.pt", "test")["weight"].shape == (3,)
        else:
            with pytest.raises(VTSumError, match=f"tensors with their own methods, got another {name}"):
                read_pt(tmp_path / "a.pt", "test")


@pytest.mark.parametrize("name", ["keys", "values", "items", "get"])
def test_an_attribute_takes_no_dictionarys_methods_place(name: str, tmp_path: Path) -> None:
    """Whoever asks for `keys`, which a class can be, would find none, and another who asks for `items` all of them."""
    named: OrderedDict[str, Any] = OrderedDict(weight=torch.zeros(3))
    named._metadata = 3  # type: ignore[attr-defined]  # as torch's own have
    torch.save({"deeper": [named]}, tmp_path / "a.pt")
    assert read_pt(tmp_path / "a.pt", "test")["deeper"][0]["weight"].shape == (3,)
    setattr(named, name, OrderedDict)
    torch.save({"deeper": [named]}, tmp_path / "a.pt")
    with pytest.raises(VTSumError, match=f"dictionaries with their own methods, got another {name}"):
        read_pt(tmp_path / "a.pt", "test")


@pytest.mark.parametrize("kind", ["a tuple in a tuple, a million times", "a tuple that doubles"])
def test_a_command_refuses_keys_without_end_in_one_line(kind: str, tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4").path
    archive(tmp_path / "blip.pth", b"\x80\x02" + KEYS[kind] + b".")
    words = ["extract", str(clip), "-o", str(tmp_path / "features"), "--encoder", str(tmp_path / "blip.pth")]
    assert "tuples of more than" in refused(*words, names=tmp_path / "blip.pth")


@pytest.mark.parametrize(
    "odd",
    [{"numpy": ("MT19937", torch.zeros(10_000), 9_999, 0, 0.0)}, {"python": (*random.getstate()[:2], "x")}],
    ids=["a place behind NumPy's state", "a text for Python's number"],
)
def test_random_states_are_those_of_generators(odd: dict[str, Any], tmp_path: Path) -> None:
    checkpoints.save_random_states(tmp_path, 0)
    torch.save(torch.load(tmp_path / "rng-00000.pt") | odd, tmp_path / "rng-00000.pt")
    before = np.random.get_state(), random.getstate()
    try:
        with pytest.raises(VTSumError, match=r"must hold random states"):
            checkpoints.load_random_states(tmp_path, 0)
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])


def test_a_command_refuses_weights_without_end_in_one_line(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4").path
    archive(tmp_path / "blip.pth", b"\x80\x02" + HOSTILE["hexadecimal of hexadecimal"] + b".")
    words = ["extract", str(clip), "-o", str(tmp_path / "features"), "--encoder", str(tmp_path / "blip.pth")]
    assert ODD in refused(*words, names=tmp_path / "blip.pth")
