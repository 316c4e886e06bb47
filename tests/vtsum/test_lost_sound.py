"""Sound that a file lost is told, also where all its pictures are there."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.test_damage_told import ENVIRONMENT, FAKE, moving
from vtsum.enhance.speech.sound import read_sound
from vtsum.summary import schema
from vtsum.video import FrameSampler
from vtsum.video.damage import Damage

_TAG = b"TAG" + b"A title".ljust(125, b"\0")


def _words(content: bytes, at: int) -> list[int]:
    return [int(n) for n in np.frombuffer(content, ">u4", int.from_bytes(content[at : at + 4], "big"), at + 4)]


def _sound_behind_pictures(path: Path) -> tuple[bytes, int]:
    """An MP4 with the index first and all its sound behind the last picture; and where that begins."""
    write_clip(
        path,
        [n / 25 for n in range(100)],
        moving,
        container_options={"movflags": "faststart"},
        sound=tone(4.0, 48000, 1),
        sound_codec="mp3",
    )
    content = bytearray(path.read_bytes())
    first = content.index(b"stco") + 8
    tables = [(at, _words(content, at)) for at in (first, content.index(b"stco", first) + 8)]
    begin = content.index(b"mdat") + 4
    places = sorted({*chain(*(table for _, table in tables)), len(content)})
    length = {one: other - one for one, other in pairwise(places)}
    media, sound = b"", 0
    for at, table in tables:
        sound = begin + len(media)
        for number, chunk in enumerate(table):
            content[at + 4 + 4 * number : at + 8 + 4 * number] = (begin + len(media)).to_bytes(4, "big")
            media += content[chunk : chunk + length[chunk]]
    content[begin:] = media
    return bytes(content), sound


@pytest.mark.parametrize("kind", ["whole", "tag", "no sound left", "half", "zeros", "no index left"])
def test_sound_behind_the_last_picture_is_missed(kind: str, tmp_path: Path) -> None:
    content, sound = _sound_behind_pictures(tmp_path / "a.mp4")
    path = tmp_path / "b.mp4"
    if kind == "no index left":
        write_clip(path, [n / 25 for n in range(100)], moving, sound=tone(4.0, 48000, 1))
        content = path.read_bytes()
        assert content.index(b"mdat") < content.index(b"moov")
    path.write_bytes(
        {
            "whole": content,
            "tag": content + _TAG,
            "no sound left": content[:sound],
            "half": content[: (sound + len(content)) // 2],
            "zeros": content[:sound] + bytes(len(content) - sound),
            "no index left": content[: content.rindex(b"stsc")],
        }[kind]
    )
    clean = kind in ("whole", "tag")
    sampler, heard = FrameSampler(path, fps=5.0, size=(32, 32)), Damage()
    assert sum(1 for _ in sampler) == 20
    samples = sum(len(block) for _, block in read_sound(path, damage=heard))
    assert (samples > 3.9 * 16_000) is clean
    assert bool(sampler.damaged or heard.spans(4.0)) is not clean
    if kind == "zeros":
        assert heard.spans(4.0)[0][1] > 3.9  # all of it
    command = [*FAKE, "summarize", str(path), "-f", "json,mp4", "--no-speech", "--no-ocr", "-q", "-o"]
    done = forked.run([*command, str(tmp_path / "out")], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert bool(schema.read(tmp_path / "out" / "summary.json")["damaged"]) is not clean
    assert ("damaged" in done.stderr) is not clean
