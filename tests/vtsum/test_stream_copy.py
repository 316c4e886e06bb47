"""Cutting at key frames without encoding, and what that costs."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import number_of, number_picture, numbered_clip, tone, write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.video.copying import copy

RATE = 25
OPTIONS = {"speech": None, "ocr": False, "captioner": "none", "model": ColourModel()}


def _numbers(path: Path) -> tuple[list[int], list[float]]:
    with av.open(str(path)) as film:
        frames = [(number_of(frame.to_ndarray(format="rgb24")), frame.time) for frame in film.decode(video=0)]
    return [number for number, _ in frames], [time for _, time in frames]


def _payload(path: Path, packets: slice = slice(None)) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(video=0) if packet.size][packets]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("codec", "bf"), [("libx264", "0"), ("libx264", "3"), ("libx265", "3")])
def test_pieces_are_copied_from_key_frame_to_key_frame(tmp_path, suffix, codec, bf):
    """Key frames lie two seconds apart: every picture of a piece is there once, at its time, bit for bit."""
    sound = tone(20, 48_000, 2)
    closed = {"libx264": "open-gop=0", "libx265": "open-gop=0:log-level=none"}
    source = numbered_clip(
        tmp_path / f"clip.{suffix}",
        500,
        sound=sound,
        gop=50,
        codec=codec,
        options={"bf": bf, f"{codec[3:]}-params": f"scenecut=0:keyint=50:min-keyint=50:{closed[codec]}"},
    )
    asked = [(1.2, 3.0), (4.9, 7.3), (7.3, 9.0), (9.6, 12.1), (19.0, 20.0)]
    result = copy(source, asked, tmp_path / "o.mp4", keyframe_times=[2, 5, 8, 10, 19.5], keyframe_dir=tmp_path / "k")
    assert [shot.index for shot in result.shots] == [0, 1, 2, 3, 4]
    begins = [round(shot.start * RATE) for shot in result.shots]
    assert begins[0] in (0, 50)
    assert begins[1] == 100 and begins[4] == 450  # noqa: PT018
    assert result.shots[2].start == result.shots[1].end
    for shot, (_, end) in zip(result.shots, asked, strict=True):
        assert abs(shot.end - end) <= 4 / RATE + 1e-3
    numbers, times = _numbers(result.path)
    wanted = [n for shot in result.shots for n in range(round(shot.start * RATE), round(shot.end * RATE))]
    assert numbers == wanted
    assert times == pytest.approx([n / RATE for n in range(len(wanted))], abs=2e-3)
    assert result.duration == pytest.approx(len(wanted) / RATE, abs=1e-3)
    if suffix != "ts":  # where start codes become lengths
        assert set(_payload(result.path)) <= set(_payload(source))
    with av.open(str(result.path)) as film:
        heard = np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)
    assert heard.shape[1] / 48_000 == pytest.approx(result.duration, abs=0.1)
    assert np.sqrt((heard**2).mean()) == pytest.approx(np.sqrt((sound**2).mean()), rel=0.05)
    assert sorted(p.name for p in (tmp_path / "k").iterdir()) == [f"shot_{n:04d}.jpg" for n in range(1, 6)]


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_key_frames_that_lean_on_others_are_no_beginnings(tmp_path, suffix):
    """In an open group of pictures a decoder that begins there loses some; one that stands alone is far away."""
    params = {"bf": "3", "x264-params": "open-gop=1:scenecut=0:keyint=50:min-keyint=50"}
    source = numbered_clip(tmp_path / f"clip.{suffix}", 1500, gop=50, options=params)
    result = copy(source, [(3.0, 5.0)], tmp_path / "o.mp4", keyframe_times=[4.0])
    assert result.shots[0].start == 0
    numbers, _ = _numbers(result.path)
    assert numbers == list(range(round(result.shots[0].end * RATE)))
    with pytest.raises(VTSumError, match=r"a key frame that leans on no picture before it within 30 s of 50\.0 s"):
        copy(source, [(50.0, 52.0)], tmp_path / "x.mp4", keyframe_times=[51.0])
    assert not (tmp_path / "x.mp4").exists()


def test_a_summary_tells_what_exactness_it_cost(tmp_path):
    def picture(number: int, time: float) -> np.ndarray:
        drawn = number_picture(number, 96, 54)
        drawn[30:] = ((200, 40, 40), (30, 200, 60), (40, 60, 220))[int(time // 10)]
        return drawn

    source = write_clip(
        tmp_path / "clip.mp4",
        [n / 10 for n in range(300)],
        picture,
        rate=10,
        gop=40,
        sound=tone(30, 48_000, 1),
        rotation=90,
        options={"x264-params": "scenecut=0:keyint=40:min-keyint=40"},
    )
    made = vtsum.summarize(source, tmp_path / "o", budget="6s", keep="5-7, 21-24", stream_copy=True, **OPTIONS)
    data = schema.read(made.files["json"])
    clips = [shot["clip"] for shot in data["shots"] if shot["clip"]]
    asked = [(clip["asked"]["start"], clip["asked"]["end"]) for clip in clips]
    assert {(5.0, 7.0), (21.0, 24.0)} <= set(asked)
    moved = dict(zip(asked, ((clip["start"], clip["end"]) for clip in clips), strict=True))
    assert moved[5.0, 7.0] == (4.0, 7.0)
    assert moved[21.0, 24.0][0] == 20.0
    note = next(line for line in made.warnings if "key frames" in line)
    assert note.startswith("cut at key frames without encoding: the edges of ")
    assert "up to 1.0 s from where they were asked for" in note
    numbers, _ = _numbers(made.files["mp4"])
    assert numbers == [n for clip in clips for n in range(round(clip["start"] * 10), round(clip["end"] * 10))]
    with av.open(str(made.files["mp4"])) as film:
        turned = next(film.decode(video=0)).rotation
    with av.open(str(source)) as film:
        assert turned == next(film.decode(video=0)).rotation != 0
    exact = vtsum.recut(made.output, tmp_path / "r", video=source, stream_copy=False)
    assert all(shot["clip"]["asked"] is None for shot in exact.shots if shot["clip"])


def test_what_cannot_be_copied_is_refused_by_name(tmp_path):
    raw = numbered_clip(tmp_path / "clip.mkv", 100, codec="ffv1", sound=tone(4, 48_000, 1))
    pcm = numbered_clip(tmp_path / "clip.mov", 100, sound=tone(4, 48_000, 1), sound_codec="pcm_s16le")
    bare = numbered_clip(tmp_path / "clip.h264", 100, format="h264")
    for source, reason in (
        (raw, "clip.mkv: its video must be one of h264, hevc, av1, vp9, mpeg4 to be copied to MP4, got ffv1"),
        (pcm, "its sound must be one of aac, mp3, .* to be copied to MP4, got pcm_s16le; cut it without stream_copy"),
        (bare, "clip.h264 must have timestamps that can be sought; cut it without stream_copy"),
    ):
        with pytest.raises(VTSumError, match=reason):
            vtsum.summarize(source, tmp_path / "o", budget="2s", stream_copy=True, **OPTIONS)
    for options, name in (({"crf": 20}, "crf"), ({"loudness": -16}, "loudness"), ({"encoder": "libx265"}, "encoder")):
        with pytest.raises(VTSumError, match=f"summarize: stream_copy must be without {name}, which is of encoding"):
            vtsum.summarize(raw, tmp_path / "o", stream_copy=True, **OPTIONS, **options)
    assert not (tmp_path / "o").exists()


def test_a_command_copies(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 500, gop=50)
    run = [sys.executable, "-m", "vtsum.cli", "summarize", str(source), "--no-speech", "--no-ocr", "-f", "mp4"]
    words = ["--stream-copy", "--budget", "6s", "-o", str(tmp_path / "o")]
    done = forked.run([*run, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "note: cut at key frames without encoding" in done.stderr
    assert set(_payload(tmp_path / "o" / "summary.mp4")) <= set(_payload(source))
