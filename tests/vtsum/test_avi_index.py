"""An AVI whose index is damaged is read, and cut, as if it had none: libav counts on every entry."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.vtsum.clips import tone, write_clip
from vtsum.enhance.speech.sound import read_sound
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, copying, cut
from vtsum.video.avi_index import index_is_true

SEGMENTS = [(1.0, 1.6), (8.0, 8.6), (13.0, 13.6)]


def _level(number: int, _time: float) -> np.ndarray:
    return np.full((96, 160, 3), 20 + number // 2, np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "a.avi"
    times = [n / 25 for n in range(400)]
    return write_clip(path, times, _level, codec="mpeg4", gop=25, sound=tone(16.0, 48000, 1), sound_codec="mp3")


def _levels(path: Path) -> list[float]:
    with av.open(str(path)) as film:
        return [float(frame.to_ndarray(format="gray").mean()) for frame in film.decode(video=0)]


def _harmed(content: bytes, kind: str) -> bytes:
    begin = content.rindex(b"idx1") + 8
    count = int.from_bytes(content[begin - 4 : begin], "little") // 16
    changed = bytearray(content)
    rng = np.random.default_rng(1)
    if kind in ("zeros", "ones"):
        at = begin + 16 * (count // 4)
        changed[at : at + 320] = (b"\0" if kind == "zeros" else b"\xff") * 320
    elif kind == "bytes":
        for place in rng.integers(begin, begin + 16 * count, 30):
            changed[place] = rng.integers(256)
    elif kind == "order":
        one, other = begin + 16 * (count // 4), begin + 16 * (count // 2)
        changed[one : one + 320], changed[other : other + 320] = content[other : other + 320], content[one : one + 320]
    elif kind == "cut":
        del changed[begin + 16 * (count // 2) :]
    return bytes(changed)


@pytest.mark.parametrize("kind", ["zeros", "ones", "bytes", "order", "cut"])
def test_a_damaged_index_gives_no_other_pictures(kind: str, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.avi"
    path.write_bytes(_harmed(whole.read_bytes(), kind))
    assert index_is_true(path) is (kind == "cut")  # every entry that is left is true
    cut(whole, SEGMENTS, tmp_path / "whole.mp4")
    cut(path, SEGMENTS, tmp_path / "b.mp4")
    assert _levels(tmp_path / "b.mp4") == pytest.approx(_levels(tmp_path / "whole.mp4"), abs=0.6)
    frames = [frame.image.mean() for frame in FrameSampler(path, fps=5.0)]
    assert frames == pytest.approx([frame.image.mean() for frame in FrameSampler(whole, fps=5.0)], abs=0.6)
    sounds = [sum(len(block) for _, block in read_sound(each)) for each in (path, whole)]
    assert sounds[0] == sounds[1]
    if kind != "cut":
        with pytest.raises(VTSumError, match="must have timestamps that can be sought; cut it without stream_copy"):
            copying.copy(path, SEGMENTS, tmp_path / "c.mp4", keyframe_times=[1.2, 8.2, 13.2])


def _opendml(whole: bytes, change: int) -> bytes:
    """The clip with a standard index of its pictures in the place of the old one; libav keeps room for what leads
    there."""
    movi, begin, room = whole.index(b"movi"), whole.rindex(b"idx1"), whole.index(b"JUNK")
    entries = np.frombuffer(whole[begin + 8 :], "<u4").reshape(-1, 4)
    pictures = entries[entries[:, 0] == int.from_bytes(b"00dc", "little")]
    table = np.stack([pictures[:, 2] + 8, pictures[:, 3] | (1 - (pictures[:, 1] >> 4)) << 31], axis=1).astype("<u4")
    table[len(table) // 2, 0] += change
    standard = struct.pack("<HBBI4sQI", 2, 0, 1, len(table), b"00dc", movi, 0) + table.tobytes()
    leads = struct.pack("<HBBI4s12xQII", 4, 0, 0, 1, b"00dc", begin, len(standard) + 8, len(table))
    content = bytearray(whole[:begin] + b"ix00" + struct.pack("<I", len(standard)) + standard)
    content[room : room + 4], content[room + 8 : room + 8 + len(leads)] = b"indx", leads
    content[4:8] = struct.pack("<I", len(content) - 8)
    return bytes(content)


@pytest.mark.parametrize("change", [0, 1, 1 << 31])
def test_a_standard_index_is_held_to_the_chunks_too(change: int, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.avi"
    path.write_bytes(_opendml(whole.read_bytes(), change))
    assert index_is_true(path) is (change == 0)
    cut(whole, SEGMENTS, tmp_path / "whole.mp4")
    cut(path, SEGMENTS, tmp_path / "b.mp4")
    assert _levels(tmp_path / "b.mp4") == pytest.approx(_levels(tmp_path / "whole.mp4"), abs=0.6)
    path.write_bytes(path.read_bytes().replace(b"ix00", bytes(4)))
    assert not index_is_true(path)
