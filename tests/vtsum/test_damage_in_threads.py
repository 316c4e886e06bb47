"""Damage is told however threads take turns: what one of them conceals is seen before its picture is handed out."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import av
import pytest

from tests.vtsum.test_damage_told import ENVIRONMENT, clip
from vtsum.video import FrameSampler

SIDE_BY_SIDE, ROUNDS = 4, 8  # more processes than cores, so that threads wait for each other
PROGRAM = """
import json, sys
from vtsum.video import FrameSampler
from vtsum.video.cursor import PictureCursor
found = []
for _ in range(int(sys.argv[2])):
    sampler = FrameSampler(sys.argv[1], fps=25.0, size=(32, 32))
    pictures = sum(1 for _ in sampler)
    cursor = PictureCursor(sys.argv[1], "test")
    while cursor.next_time is not None:
        cursor.advance()
    found.append([pictures, sampler.damaged, cursor.damage.spans()])
    cursor.close()
print(json.dumps(found))
"""


def _found(path: Path, processes: int = SIDE_BY_SIDE, rounds: int = ROUNDS) -> set[str]:
    """What is found of a file, of all the times that it is read: pictures, damage told by a sampler and by a cursor."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(rounds)]
    begun = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) for _ in range(processes)]
    said = [process.communicate(timeout=240)[0] for process in begun]
    assert [process.returncode for process in begun] == [0] * processes
    return {json.dumps(each) for words in said for each in json.loads(words)}


@pytest.mark.parametrize("place", [0.56, 0.97])  # in the middle; in what is decoded last
@pytest.mark.parametrize(
    ("codec", "ending", "options"),
    [
        ("libx264", ".mkv", {"bf": "2"}),
        ("libx264", ".h264", {"bf": "2"}),
        ("libx264", ".avi", {"bf": "2"}),
        ("mpeg4", ".mkv", {"b": "800k", "bf": "2"}),
    ],
)
def test_damage_does_not_depend_on_turns(tmp_path, codec, ending, options, place):
    data = bytearray(clip(tmp_path / f"whole{ending}", codec, options).read_bytes())
    at = int(len(data) * place)
    data[at : at + 1000] = random.Random(0).randbytes(1000)
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(data)
    (found,) = _found(path)
    pictures, sampled, passed = json.loads(found)
    assert pictures > 90
    assert sampled
    assert passed


@pytest.mark.parametrize("held", ["0", "2"])
def test_an_error_that_comes_to_light_with_the_last_pictures_is_told_with_its_place(tmp_path, held):
    path = clip(tmp_path / "clip.mp4", "libx264", {"bf": held})
    with av.open(str(path)) as container:
        late = [packet for packet in container.demux(video=0) if packet.size][-2]
    data = bytearray(path.read_bytes())
    data[late.pos : late.pos + 6] = bytes([255] * 6)  # the length of its first unit
    path.write_bytes(data)
    sampler = FrameSampler(path, fps=25.0, size=(32, 32))
    assert sum(1 for _ in sampler) == 100
    assert sampler.warnings == ["1 damaged packets were passed over"]
    assert [3.8 < start <= end <= 4.0 for start, end in sampler.damaged] == [True]


def test_what_is_seen_does_not_depend_on_the_number_of_cores(tmp_path, monkeypatch):
    """Pictures that no sample needs are passed over, but which ones the decoder's threads do not say."""
    path = clip(tmp_path / "whole.mp4", "libx264", {"bf": "2"}, 300)
    seen = []
    for cores in (1, 2, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        times: list[float] = []
        assert sum(1 for _ in FrameSampler(path, on_picture=lambda time, _, times=times: times.append(time))) == 12
        seen.append(times)
    assert 32 < len(seen[0]) < 300
    assert seen == seen[:1] * 3


def test_pictures_that_are_held_back_are_all_shown(tmp_path):
    """Also where an encoder's own order holds back as many as the decoder can."""
    options = {"bf": "16", "x264-params": "b-pyramid=normal:b-adapt=0:bframes=16"}
    for ending in (".mkv", ".mp4", ".ts", ".h264"):
        path = clip(tmp_path / f"whole{ending}", "libx264", options)
        assert _found(path, 1, 1) == {"[100, [], []]"}, ending
