"""Holes in the sound of a transport stream are told: libav hands out what is left, and says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.vtsum.clips import number_picture, tone, write_clip
from vtsum.video import FrameSampler
from vtsum.video.transport import TransportHoles

PACKET = 188
PICTURES, SOUND = 0x100, 0x101  # the numbers of their streams
SECONDS = 12.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = write_clip(
        tmp_path_factory.mktemp("whole") / "a.ts",
        [n / 25 for n in range(round(25 * SECONDS))],
        lambda number, _: number_picture(number, 160, 96),
        sound=tone(SECONDS, 48000, 1),
        gop=25,
    )
    content = path.read_bytes()
    return [content[at : at + PACKET] for at in range(0, len(content), PACKET)]


def _damaged(tmp_path: Path, packets: Iterable[bytes]) -> list[tuple[float, float]]:
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(packets))
    sampler = FrameSampler(path, fps=2.0, size=(32, 32))
    assert sum(1 for _ in sampler) > 10
    return sampler.damaged


def _of(stream: int, packets: list[bytes]) -> list[int]:
    return [number for number, packet in enumerate(packets) if (packet[1] & 31) << 8 | packet[2] == stream]


def _begins(packet: bytes) -> bool:
    return bool(packet[1] & 0x40)


def _shown(packet: bytes) -> float:
    """Seconds, of the piece that begins in a packet (ISO/IEC 13818-1, 2.4.3.7)."""
    at = packet.index(b"\0\0\1") + 9
    a, b, c = packet[at], int.from_bytes(packet[at + 1 : at + 3], "big"), int.from_bytes(packet[at + 3 : at + 5], "big")
    return ((a & 14) << 29 | (b & ~1) << 14 | c >> 1) / 90_000


def test_a_whole_stream_is_whole(whole: list[bytes], tmp_path: Path) -> None:
    assert _damaged(tmp_path, whole) == []
    clocked = [bytes(4) + packet for packet in whole]  # as Blu-ray discs and cameras have it
    assert _damaged(tmp_path, clocked) == []
    corrected = [packet + bytes(16) for packet in whole]
    assert _damaged(tmp_path, corrected) == []


HARM: dict[str, Callable[[bytes], bytes]] = {
    "missing": lambda packet: b"",
    "zeros": lambda packet: bytes(PACKET),
    "another's": lambda packet: packet[:1] + b"\x1f\xff" + packet[3:],
    "marked as spoilt": lambda packet: packet[:1] + bytes([packet[1] | 0x80]) + packet[2:],
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("count", [1, 5, 20])
def test_lost_sound_is_told(harm: str, count: int, whole: list[bytes], tmp_path: Path) -> None:
    of_sound = _of(SOUND, whole)
    lost = of_sound[len(of_sound) // 2 :][:count]
    changed = [HARM[harm](packet) if number in lost else packet for number, packet in enumerate(whole)]
    heard = max(_shown(whole[number]) for number in of_sound if number <= lost[0] and _begins(whole[number]))
    heard -= _shown(whole[_of(PICTURES, whole)[0]])
    ((begin, end),) = _damaged(tmp_path, changed)
    assert begin <= heard <= end


def test_bytes_between_packets_are_skipped(whole: list[bytes], tmp_path: Path) -> None:
    of_sound = _of(SOUND, whole)
    begin = next(number for number in of_sound[len(of_sound) // 2 :] if _begins(whole[number]))
    assert _damaged(tmp_path, [*whole[:begin], bytes(77), *whole[begin:]]) == []


def test_recordings_that_were_joined_are_whole(whole: list[bytes], tmp_path: Path) -> None:
    """Counts begin anew, and within a stream where it says so."""
    assert _damaged(tmp_path, [*whole, *whole]) == []
    of_sound = _of(SOUND, whole)
    begin = next(number for number in of_sound[len(of_sound) // 2 :] if _begins(whole[number]))
    renumbered = [
        packet[:3] + bytes([packet[3] & 0xF0 | (packet[3] + 7) & 15]) + packet[4:]
        if number >= begin and number in of_sound
        else packet
        for number, packet in enumerate(whole)
    ]
    assert _damaged(tmp_path, renumbered) == []


def test_a_recording_that_begins_and_ends_anywhere_is_whole(whole: list[bytes], tmp_path: Path) -> None:
    pictures = next(number for number in _of(PICTURES, whole)[50:] if _begins(whole[number]))
    of_sound = [number for number in _of(SOUND, whole) if number > pictures]
    begin = next(number for number in of_sound if not _begins(whole[number]))
    end = next(number for number in reversed(of_sound) if _begins(whole[number])) + 1
    head = [packet for packet in whole[:10] if (packet[1] & 31) << 8 | packet[2] in (0, 0x1000)]
    assert _damaged(tmp_path, [*head, *whole[begin:end]]) == []


def test_what_is_not_read_is_not_told(whole: list[bytes], tmp_path: Path) -> None:
    lost = next(number for number in _of(SOUND, whole)[20:] if not _begins(whole[number]))
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(whole[:lost] + whole[lost + 1 :]))
    for read, told in (([PICTURES], False), ([PICTURES, SOUND], True)):
        holes = TransportHoles(path, read)
        assert holes.at_end() is told
        holes.close()
