"""Pictures one after the other, in no container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.clips import write_clip
from tests.vtsum.test_damage_told import ENVIRONMENT, FAKE, moving
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, probe

ASSUMED = "the file does not say how long its pictures stay: 25 a second are assumed"


def _jpegs(path: Path, count: int) -> Path:
    times = [n / 25 for n in range(count)]
    return write_clip(path, times, moving, codec="mjpeg", pix_fmt="yuvj420p", format="mjpeg")


@pytest.mark.parametrize("name", ["a.mjpeg", "a.jpg", "a"])
def test_jpegs_one_after_the_other_are_a_video(name: str, tmp_path: Path) -> None:
    path = _jpegs(tmp_path / name, 60)
    sampler = FrameSampler(path, fps=5.0, size=(32, 32))
    assert sum(1 for _ in sampler) == 12
    assert (sampler.warnings, sampler.damaged) == ([ASSUMED], [])
    command = [*FAKE, "summarize", str(path), "-f", "json,mp4", "--no-ocr", "-q", "-o", str(tmp_path / "out")]
    done = forked.run(command, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert ASSUMED in json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]


def test_a_damaged_one_of_them_is_told(tmp_path):
    content = bytearray(_jpegs(tmp_path / "a.mjpeg", 60).read_bytes())
    at = len(content) // 2
    content[at : at + 4096] = bytes(4096)
    (tmp_path / "b.mjpeg").write_bytes(content)
    sampler = FrameSampler(tmp_path / "b.mjpeg", fps=25.0, size=(32, 32))
    assert list(sampler)
    assert len(sampler.damaged) == 1


def test_a_picture_with_a_few_behind_it_is_a_picture(tmp_path):
    """As phones write them: a preview, a map of depths, a second eye's."""
    path = _jpegs(tmp_path / "a.jpg", 5)
    with pytest.raises(VTSumError, match=r"must be a video file, found a still picture$"):
        probe(path)


def test_a_rate_that_the_codec_states_is_not_assumed(tmp_path):
    path = write_clip(tmp_path / "a.h264", [n / 10 for n in range(40)], moving, rate=10, format="h264")
    sampler = FrameSampler(path, fps=5.0, size=(32, 32))
    assert list(sampler)
    assert ASSUMED not in sampler.warnings
