"""Damage in the heads of ASF's packets is told: libav leaves out, without a word, what does not fit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.vtsum.clips import number_picture, tone, write_clip
from vtsum.video import FrameSampler
from vtsum.video.asf_packets import AsfPackets

PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
HEAD = 5  # bytes of a packet before the length of its padding
CODECS = {"wmv2": {"b": "400k"}, "libx264": {}}


def _packets(content: bytes) -> list[int]:
    """Where they begin; the last is behind them all."""
    data = int.from_bytes(content[16:24], "little")
    at = content.index(PROPERTIES)
    size = int.from_bytes(content[at + 92 : at + 96], "little")
    end = data + int.from_bytes(content[data + 16 : data + 24], "little")
    return list(range(data + 50, end + 1, size))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        codec: write_clip(
            folder / f"{codec}.asf",
            [n / 25 for n in range(100)],
            lambda number, _: number_picture(number, 160, 96),
            codec=codec,
            options=options,
            sound=tone(4.0, 48000, 1),
            sound_codec="mp3",
        )
        for codec, options in CODECS.items()
    }


def _told(path: Path) -> list[tuple[float, float]]:
    sampler = FrameSampler(path, fps=5.0, size=(32, 32))
    assert sum(1 for _ in sampler) > 10
    return sampler.damaged


@pytest.mark.parametrize("codec", CODECS)
def test_whole_packets_are_whole(codec: str, whole: dict[str, Path]) -> None:
    content = whole[codec].read_bytes()
    begins = _packets(content)
    packets = AsfPackets()
    assert len(begins) > 10
    assert all(packets.is_whole(content[at:end]) for at, end in pairwise(begins))
    assert _told(whole[codec]) == []


def _pieces(content: bytes, at: int) -> int:
    """Where the first piece of a packet of several begins."""
    lengths = content[at + 3]
    assert lengths & 1  # several
    return at + HEAD + (0, 1, 2, 4)[lengths >> 3 & 3] + 6 + 1


HARM = {
    "kinds of lengths": lambda content, at: (at + 3, content[at + 3] ^ 16),
    "kinds of numbers": lambda content, at: (at + 4, content[at + 4] ^ 4),
    "padding": lambda content, at: (at + HEAD, content[at + HEAD] ^ 3),
    "count of pieces": lambda content, at: (_pieces(content, at) - 1, content[_pieces(content, at) - 1] ^ 1),
    "stream": lambda content, at: (_pieces(content, at), 0x55),
    "number": lambda content, at: (_pieces(content, at) + 1, content[_pieces(content, at) + 1] ^ 16),
    "offset": lambda content, at: (_pieces(content, at) + 2, content[_pieces(content, at) + 2] ^ 1),
    "length of the head": lambda content, at: (_pieces(content, at) + 6, 9),
    "size": lambda content, at: (_pieces(content, at) + 7, content[_pieces(content, at) + 7] ^ 1),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_head_is_told(harm: str, whole: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(whole["wmv2"].read_bytes())
    begins = _packets(bytes(content))
    middle = len(begins) // 2
    at = next(at for at in begins[middle:] if content[at + 3] & 1)
    place, new = HARM[harm](bytes(content), at)
    assert content[place] != new
    content[place] = new
    path = tmp_path / "a.asf"
    path.write_bytes(content)
    (begin, end), *_ = _told(path)
    assert begin - 0.5 <= 4.0 * begins.index(at) / len(begins) <= end + 0.5


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", ["missing", "exchanged", "first"])
def test_packets_out_of_order_are_told(kind: str, codec: str, whole: dict[str, Path], tmp_path: Path) -> None:
    content = whole[codec].read_bytes()
    begins = _packets(content)
    size, at = begins[1] - begins[0], begins[len(begins) // 2]
    if kind == "first":  # by which it was seen whether the others can be judged
        changed = content[: begins[0]] + b"\x55" + content[begins[0] + 1 :]
    elif kind == "missing":
        changed = content[:at] + content[at + size :]
    else:
        pair = content[at + size : at + 2 * size] + content[at : at + size]
        changed = content[:at] + pair + content[at + 2 * size :]
    path = tmp_path / "a.asf"
    path.write_bytes(changed)
    assert _told(path)
