"""Tracks that cannot all be kept are refused before the work."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.test_damage_told import ENVIRONMENT, FAKE, moving
from vtsum.errors import VTSumError
from vtsum.video import copying, cut


def _many(path: Path, sound: int, words: int) -> Path:
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        heard = [file.add_stream("mp2", rate=48000, layout="mono") for _ in range(sound)]
        for _ in range(words):
            file.add_mux_stream("subrip").time_base = Fraction(1, 1000)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 12 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(video.encode(frame))
            for track in heard:
                part = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", "mono")
                part.sample_rate, part.pts, part.time_base = 48000, 4800 * number, Fraction(1, 48000)
                file.mux(track.encode(part))
        for track in (video, *heard):
            file.mux(track.encode(None))
    return path


@pytest.mark.parametrize(
    ("sound", "words", "told"),
    [
        (101, 0, "must have at most 100 tracks of sound to keep all, got 101"),
        (1, 201, "must have at most 200 tracks of subtitles to keep all, got 201"),
    ],
)
def test_more_tracks_than_are_kept_are_refused(sound: int, words: int, told: str, tmp_path: Path) -> None:
    path = _many(tmp_path / "a.mkv", sound, words)
    command = [*FAKE, "summarize", str(path), "--no-speech", "--no-ocr", "-q", "--tracks", "all"]
    done = forked.run([*command, "-o", str(tmp_path / "out")], env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"vtsum: summarize: {path}: {told}"]
    assert not (tmp_path / "out").exists()


def test_sound_of_an_unknown_kind_is_not_kept(tmp_path):
    times = [n / 25 for n in range(50)]
    path = write_clip(tmp_path / "a.mkv", times, moving, sound=tone(2.0, 48000, 1))
    content = path.read_bytes()
    assert content.count(b"A_AAC") == 1
    path.write_bytes(content.replace(b"A_AAC", b"A_AAX"))
    for make, name in ((cut, "cut"), (copying.copy, "stream_copy")):
        options = {} if make is cut else {"keyframe_times": [0.5]}
        with pytest.raises(VTSumError, match=rf"{name}: .*: track 1 of sound is of a kind that cannot be read"):
            make(path, [(0.0, 1.0)], tmp_path / "out.mp4", all_sound=True, **options)
        assert not (tmp_path / "out.mp4").exists()
