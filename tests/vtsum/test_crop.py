"""A part of the pictures that follows what is salient."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.video import cut
from vtsum.video.cursor import PictureCursor
from vtsum.video.following import SPEED, window_of

RATE, SECONDS, SIDE = 20, 16, 28
WIDE = (320, 180)


def _centre(time: float, length: int) -> float:
    """A subject that wanders, rests for three seconds, and goes on; at most 0.2 of the way a second."""
    going = min(time, 6.0) + max(time - 9.0, 0.0)
    return length / 2 + 0.38 * length * np.sin(0.5 * going)


def _film(path: Path, size: tuple[int, int], **more) -> Path:
    """A red square on a busy but still background, with noise over all."""
    width, height = size
    rng = np.random.default_rng(3)
    back = np.kron(rng.integers(40, 200, (height // 20, width // 20, 1)), np.ones((20, 20, 3))).astype(np.int16)

    def picture(number: int, time: float) -> np.ndarray:
        drawn = back + rng.integers(-4, 5, (height, width, 1), dtype=np.int16)
        along = round(_centre(time, max(size)))
        x, y = (along, height // 2) if width > height else (width // 2, along)
        drawn[y - SIDE // 2 : y + SIDE // 2, x - SIDE // 2 : x + SIDE // 2] = (230, 20, 20)
        return np.clip(drawn, 0, 255).astype(np.uint8)

    return write_clip(path, [n / RATE for n in range(RATE * SECONDS)], picture, rate=RATE, gop=20, **more)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return _film(tmp_path_factory.mktemp("crop") / "film.mp4", WIDE, sound=tone(SECONDS, 48_000, 1))


def _whole_squares(path: Path) -> list[bool]:
    """Of each picture whether all of the subject is in it."""
    found = []
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            image = frame.to_ndarray(format="rgb24").astype(int)
            red = (image[..., 0] > 150) & (image[..., 1] < 90) & (image[..., 2] < 90)
            found.append(bool(red.sum() >= 0.95 * SIDE**2))
    return found


@pytest.mark.parametrize("segments", [[(0.0, 16.0)], [(1.0, 5.0), (5.0, 8.0), (11.5, 15.5)]])
def test_a_moving_subject_stays_inside(source, tmp_path, segments):
    made = cut(source, segments, tmp_path / "o.mp4", crop=(9, 16))
    assert (made.width, made.height) == (100, 180)
    inside = _whole_squares(made.path)
    assert len(inside) == round(sum(end - start for start, end in segments) * RATE)
    assert np.mean(inside) >= 0.95
    middle = cut(source, segments, tmp_path / "m.mp4")
    assert (middle.width, middle.height) == WIDE


def test_a_window_pans_within_its_speed(source):
    cursor = PictureCursor(source, "test")
    window = window_of(cursor, WIDE, (9, 16), [(0.0, 16.0)])
    cursor.close()
    times, starts = np.array(window.times), np.array(window.starts)
    speed = np.abs(np.diff(starts)) / np.diff(times)
    assert speed.max() <= SPEED * WIDE[0] + 1e-6
    assert np.ptp(starts) > 0.4 * WIDE[0]
    rests = (times > 6.8) & (times < 8.2)
    assert np.ptp(starts[rests]) <= 10  # what rests is not panned over
    for time in np.arange(0, 16, 0.01):
        left, top = window.at(float(time))
        assert 0 <= left <= WIDE[0] - 100
        assert left % 2 == top == 0


def test_upright_pictures_are_cropped_along_their_height(tmp_path):
    tall = _film(tmp_path / "tall.mp4", (180, 320))
    made = cut(tall, [(0.0, 6.0)], tmp_path / "o.mp4", crop=(16, 9))
    assert (made.width, made.height) == (180, 100)
    assert np.mean(_whole_squares(made.path)) >= 0.95


def test_where_nothing_moves_the_middle_is_shown(tmp_path):
    still = np.zeros((180, 320, 3), np.uint8) + np.arange(320, dtype=np.uint16)[:, None].clip(0, 255).astype(np.uint8)
    path = write_clip(tmp_path / "still.mp4", [n / 10 for n in range(40)], lambda *_: still, rate=10)
    cursor = PictureCursor(path, "test")
    window = window_of(cursor, WIDE, (1, 1), [(0.0, 4.0)])
    same = window_of(cursor, WIDE, (16, 9), [(0.0, 4.0)])
    cursor.close()
    assert same is None
    assert window.size == (180, 180)
    assert all(abs(start - 70) <= 6 for start in window.starts)


def test_a_command_crops(source, tmp_path):
    run = [sys.executable, "-m", "vtsum.cli", "summarize", str(source), "--no-speech", "--no-ocr", "--budget", "6s"]
    words = ["--crop", "9:16", "-f", "mp4,json,keyframes,html,analysis", "-o", str(tmp_path / "o")]
    done = forked.run([*run, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    data = schema.read(tmp_path / "o" / "summary.json")
    assert (data["summary"]["width"], data["summary"]["height"], data["settings"]["crop"]) == (100, 180, "9:16")
    assert np.mean(_whole_squares(tmp_path / "o" / "summary.mp4")) >= 0.95
    again = vtsum.recut(tmp_path / "o", tmp_path / "r", video=source, crop="1:1")
    assert (again.data["summary"]["width"], again.data["summary"]["height"]) == (180, 180)
    for wrong in ("9x16", "0:1", "1:20", "wide"):
        with pytest.raises(VTSumError, match="crop must be width to height, such as 9:16, from 1:10 to 10:1, got"):
            vtsum.summarize(source, tmp_path / "x", crop=wrong, model=ColourModel())
    with pytest.raises(VTSumError, match="stream_copy must be without crop, which is of encoding"):
        vtsum.summarize(source, tmp_path / "x", crop="9:16", stream_copy=True, model=ColourModel())
