"""An MXF whose index is damaged is told of: libav takes pictures' times and places from it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.vtsum.clips import number_picture, tone, write_clip
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler
from vtsum.video.mxf_index import index_is_true

FRAMES = 300  # of which a body partition holds some 250
SEGMENT = bytes.fromhex("060e2b34025301010d01020101100100")
KINDS = {  # codec, its options, pixels, height and width, and how many segments the file has
    "mpeg2video": ("mpeg2video", {"bf": "2"}, "yuv420p", (96, 160), 2),
    "h264": ("libx264", {"bf": "0"}, "yuv420p", (96, 160), 2),
    "dnxhr": ("dnxhd", {"profile": "dnxhr_lb"}, "yuv422p", (144, 256), 1),  # of one length: it lists no picture
}


def _clip(path: Path, kind: str) -> Path:
    codec, options, pixels, (height, width), _ = KINDS[kind]
    return write_clip(
        path,
        [n / 25 for n in range(FRAMES)],
        lambda number, _: number_picture(number, width, height),
        codec=codec,
        options=options,
        pix_fmt=pixels,
        sound=tone(FRAMES / 25, 48000, 1),
        sound_codec="pcm_s16le",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {kind: _clip(folder / f"{kind}.mxf", kind) for kind in KINDS}


def _tags(content: bytes) -> dict[int, tuple[int, int]]:
    """Place and length of what the first segment states."""
    at = content.index(SEGMENT)
    more = content[at + 16] & 127 if content[at + 16] & 128 else 0
    length = int.from_bytes(content[at + 17 : at + 17 + more], "big") if more else content[at + 16]
    found, at = {}, at + 17 + more
    end = at + length
    while at < end:
        tag, size = struct.unpack(">HH", content[at : at + 4])
        found[tag] = at + 4, size
        at += 4 + size
    return found


def _told(path: Path) -> bool:
    sampler = FrameSampler(path, fps=2.0, size=(32, 32))
    try:
        assert sum(1 for _ in sampler) > 0
    except VTSumError:  # refused
        return True
    return bool(sampler.damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_index_is_true(kind: str, whole: dict[str, Path]) -> None:
    assert whole[kind].read_bytes().count(SEGMENT) == KINDS[kind][-1]
    assert index_is_true(whole[kind])
    assert not _told(whole[kind])


def _entry(content: bytes, number: int) -> tuple[int, int]:
    at = _tags(content)[0x3F0A][0]
    length = int.from_bytes(content[at + 4 : at + 8], "big")
    return at + 8 + number * length, length


def _stated(content: bytes, tag: int, byte: int, new: int) -> tuple[int, bytes]:
    at, length = _tags(content)[tag]
    assert content[at + byte % length] != new
    return at + byte % length, bytes([new])


def _two_at_once(content: bytes) -> tuple[int, bytes]:
    at, length = _entry(content, 20)
    swapped = content[at + length : at + length + 3] + content[at + 3 : at + length] + content[at : at + 3]
    assert swapped[0] != content[at]
    return at, swapped


def _places_changed(content: bytes) -> tuple[int, bytes]:
    at, length = _entry(content, 20)
    one, other = content[at + 3 : at + 11], content[at + length + 3 : at + length + 11]
    return at + 3, other + content[at + 11 : at + length + 3] + one


LISTED = {
    "two at one time": _two_at_once,
    "far in time": lambda content: (_entry(content, 20)[0], b"\x7f"),
    "beside the place": lambda content: (_entry(content, 20)[0] + 10, b"\x77"),
    "far from the place": lambda content: (_entry(content, 20)[0] + 3, b"\x40"),
    "places changed": _places_changed,
    "entries of another length": lambda content: _stated(content, 0x3F0A, 7, 9),
    "another count of entries": lambda content: _stated(content, 0x3F0A, 3, 1),
    "no entries": lambda content: (_tags(content)[0x3F0A][0] - 4, b"\x3f\x1a"),
    "entries beyond the end": lambda content: (_tags(content)[0x3F0A][0] - 2, b"\xff\xff"),
    "no index": lambda content: (content.index(SEGMENT) + 12, b"\x19"),
    "another start": lambda content: _stated(content, 0x3F0C, -1, 5),
    "another duration": lambda content: _stated(content, 0x3F0D, -1, 5),
    "another rate": lambda content: _stated(content, 0x3F0B, 3, 50),
    "another body": lambda content: _stated(content, 0x3F07, -1, 9),
}


@pytest.mark.parametrize("harm", LISTED)
def test_damage_of_an_index_is_told(harm: str, whole: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(whole["mpeg2video"].read_bytes())
    at, new = LISTED[harm](bytes(content))
    content[at : at + len(new)] = new
    path = tmp_path / "a.mxf"
    path.write_bytes(content)
    assert not index_is_true(path)
    assert _told(path)


def test_another_length_of_all_pictures_is_told(whole: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(whole["dnxhr"].read_bytes())
    at, new = _stated(bytes(content), 0x3F05, -1, 99)
    content[at : at + 1] = new
    path = tmp_path / "a.mxf"
    path.write_bytes(content)
    assert _told(path)


def test_what_was_cut_off_is_not_looked_for(whole: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mxf"
    content = whole["mpeg2video"].read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        assert index_is_true(path)  # as far as it goes
        assert _told(path)
