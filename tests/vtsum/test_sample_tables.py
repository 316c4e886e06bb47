"""Damage in the index of an MP4, from which libav reads other bytes for pictures and sound, or leaves them out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.vtsum.clips import tone, write_clip
from tests.vtsum.test_damage_told import moving
from vtsum.enhance.speech.sound import read_sound
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler
from vtsum.video.damage import Damage
from vtsum.video.sample_tables import _chunks, index_agrees

BLOCK = 256


def _clip(path: Path, flags: str) -> bytes:
    times, sound = [n / 25 for n in range(300)], tone(12.0, 48000, 1)
    write_clip(path, times, moving, options={"bf": "2"}, container_options={"movflags": flags}, sound=sound)
    return path.read_bytes()


def _told(path: Path) -> bool:
    heard = Damage()
    sampler = FrameSampler(path, fps=1.0, size=(32, 32))
    try:
        assert list(sampler)
        samples = sum(len(block) for _, block in read_sound(path, damage=heard))
    except VTSumError:
        return True
    return bool(sampler.warnings or sampler.damaged or heard.spans()) or samples == 0


def _heads(content: bytes) -> list[tuple[int, int]]:
    """Where moov, and each moof, begin and end."""
    found, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] in (b"moov", b"moof"):
            found.append((at, at + length))
        at += length
    return found


@pytest.mark.parametrize("flags", ["faststart", "frag_keyframe+empty_moov"])
def test_zeros_in_an_index_are_told_wherever_they_lie(flags, tmp_path):
    content = _clip(tmp_path / "a.mp4", flags)
    assert index_agrees(tmp_path / "a.mp4")
    assert not _told(tmp_path / "a.mp4")
    untold = []
    begin, end = _heads(content)[-1]
    for at in range(begin, end - BLOCK, BLOCK):
        for fill in (b"\0", b"\xff"):
            path = tmp_path / "b.mp4"
            path.write_bytes(content[:at] + fill * BLOCK + content[at + BLOCK :])
            if not _told(path):
                untold.append((at - begin, fill))
    assert untold == []


def test_parts_of_a_table_that_changed_places_are_told(tmp_path):
    """Sizes and places of samples; when they are shown may be anything."""
    content, seen = _clip(tmp_path / "a.mp4", "faststart"), set()
    for kind, entry, first in ((b"stsz", 4, 16), (b"stco", 4, 12), (b"stsc", 12, 12)):
        at = -1
        for _ in range(content.count(kind)):
            at = content.index(kind, at + 1)
            count = int.from_bytes(content[at + first - 4 : at + first], "big")
            if count < 20 or int.from_bytes(content[at + 4 : at + 8], "big"):
                continue
            one, other, size = at + first + 2 * entry, at + first + 12 * entry, 8 * entry
            path = tmp_path / "b.mp4"
            path.write_bytes(
                content[:one]
                + content[other : other + size]
                + content[one + size : other]
                + content[one : one + size]
                + content[other + size :]
            )
            assert not index_agrees(path), kind
            seen.add(kind)
    assert seen == {b"stsz", b"stco", b"stsc"}


def _tables(**words: list[int]) -> dict[bytes, memoryview]:
    return {kind.encode(): memoryview(bytes(4) + struct.pack(f">{len(w)}I", *w)) for kind, w in words.items()}


HONEST = {"stsz": [0, 5, 9, 8, 7, 6, 5], "stco": [2, 100, 200], "stsc": [1, 1, 3, 1], "stts": [1, 5, 40]}


@pytest.mark.parametrize(
    ("changed", "agrees"),
    [
        ({"stsz": [0, 6, 9, 8, 7, 6, 5, 4]}, True),
        ({}, True),  # the last chunk has two of three
        ({"stsz": [0, 3, 9, 8, 7]}, False),  # the last chunk has none
        ({"stsz": [0, 7, *range(7)]}, False),  # more than chunks hold
        ({"stsz": [0, 5, 9, 8, 7, 6]}, False),  # shorter than it states
        ({"stts": [1, 4, 40]}, True),  # one is left out
        ({"stts": [1, 0, 0]}, False),
        ({"ctts": [2, 1, 7, 2, 0]}, True),  # the last have no shift
        ({"ctts": [2, 1, 7, 0, 0]}, False),
        ({"ctts": [1, 6, 7]}, False),
        ({"stss": [2, 1, 4]}, True),
        ({"stss": [0]}, True),
        ({"stss": [2, 4, 1]}, False),
        ({"stss": [2, 1, 6]}, False),
        ({"stss": [2, 0, 1]}, False),
        ({"stsc": [2, 1, 3, 1, 2, 2, 1]}, True),
        ({"stsc": [2, 1, 3, 1, 3, 2, 1]}, False),  # of a third chunk
        ({"stsc": [2, 1, 3, 1, 1, 2, 1]}, False),
        ({"stsc": [1, 1, 0, 1]}, False),
        ({"stco": [0]}, False),
        ({"stsz": [0, 0], "stco": [0], "stsc": [0], "stts": [0]}, True),  # its samples are in fragments
    ],
)
def test_tables_agree(changed: dict[str, list[int]], agrees: bool) -> None:
    assert (_chunks(_tables(**{**HONEST, **changed})) is not None) is agrees
    assert _chunks(_tables(**{k: w for k, w in HONEST.items() if k != "stsc"})) is None


def test_chunks_of_a_track() -> None:
    found = _chunks(_tables(**HONEST))
    assert found is not None
    assert found.start.tolist() == [100, 200]
    assert found.end.tolist() == [100 + 9 + 8 + 7, 200 + 6 + 5]
    assert found.hollow.tolist() == [False, False]
    hollow = _chunks(_tables(**{**HONEST, "stsz": [0, 5, 9, 0, 7, 6, 5]}))
    assert hollow is not None
    assert hollow.hollow.tolist() == [True, False]
