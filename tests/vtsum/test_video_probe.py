"""probe: the facts, and one clear error for everything that is no video."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from tests.vtsum.clips import number_of, number_picture, numbered_clip, tone
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, cut, probe


def test_facts(tmp_path):
    path = numbered_clip(
        tmp_path / "clip.mp4", 50, size=(160, 90), sound=tone(2.0, 48000, 2), title="A \x1b[31mtitle\nof two lines"
    )
    info = probe(path)
    assert info.path == path
    assert (info.width, info.height, info.rotation) == (160, 90, 0)
    assert info.duration == pytest.approx(2.0, abs=0.05)
    assert info.fps == pytest.approx(25)
    assert info.has_audio
    assert info.audio_codec == "aac"
    assert info.video_codec == "h264"
    assert "mp4" in info.container
    assert info.title == "A [31mtitle of two lines"
    assert info.size_bytes == path.stat().st_size


def test_portrait_without_sound(tmp_path):
    info = probe(numbered_clip(tmp_path / "clip.mp4", 5, size=(90, 160)))
    assert (info.width, info.height) == (90, 160)
    assert not info.has_audio
    assert info.audio_codec is None
    assert info.title is None


def test_title_that_is_not_utf8(tmp_path):
    path = numbered_clip(tmp_path / "clip.mkv", 5, title="abcdefgh")
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abc\xff\xfe\xe4gh"))
    assert (probe(path).title or "").startswith("abc")


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.02, 48000, 1)[:, :1024], "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_everything_that_is_no_video(tmp_path):
    cases: list[tuple[Path, str]] = [(tmp_path / "missing.mp4", "no such file"), (tmp_path, "directory")]
    empty = tmp_path / "empty.mp4"
    empty.touch()
    cases.append((empty, "empty file"))
    text = tmp_path / "notes.mp4"
    text.write_text("these are notes, no video\n" * 50)
    cases.append((text, "must be a video file"))
    plain = tmp_path / "notes.txt"
    plain.write_text("these are notes, no video\n" * 50)
    cases.append((plain, "must be a video file"))
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(50_000))
    cases.append((noise, "must"))
    zeros = tmp_path / "zeros.mp4"
    zeros.write_bytes(bytes(50_000))
    cases.append((zeros, "zeros"))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    cases.append((playlist, "must be a video file"))
    picture = tmp_path / "picture.png"
    av.VideoFrame.from_ndarray(number_picture(1, 64, 64), format="rgb24").save(str(picture))
    cases.append((picture, "still picture"))
    cases.append((sound_only(tmp_path / "sound.m4a"), "only sound"))
    if os.path.exists("/dev/null"):
        cases.append((Path("/dev/null"), "device"))
        fifo = tmp_path / "fifo.mp4"
        os.mkfifo(fifo)
        cases.append((fifo, "pipe"))
    whole = numbered_clip(tmp_path / "whole.mp4", 50)
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    cases.append((headless, "cut short"))
    for path, words in cases:
        for call in (probe, lambda p: list(FrameSampler(p)), lambda p: cut(p, [(0, 1)], tmp_path / "out.mp4")):
            with pytest.raises(VTSumError) as caught:
                call(path)
            message = str(caught.value)
            assert words in message, message
            assert path.name in message, message
            assert "\n" not in message, message
            assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not list(tmp_path.glob("*part*"))
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "out.mp4").exists()


def test_odd_file_names(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 5)
    for name in ("file:a.mp4", "concat:a|b.mp4", "a%03d.mp4", "-i.mp4", "ä ö\u2028.mp4", "a\nb.mp4"):
        path = tmp_path / name
        shutil.copy(source, path)
        assert probe(path).width == 160
    raw = os.fsencode(str(tmp_path)) + b"/\xff\xfe.mp4"
    shutil.copy(source, raw)
    assert probe(os.fsdecode(raw)).width == 160
    with pytest.raises(VTSumError) as caught:
        probe(os.fsdecode(raw + b"x"))
    str(caught.value).encode("utf-8")  # it can be printed


def test_a_relative_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    shutil.copy(numbered_clip(tmp_path / "clip.mp4", 5), tmp_path / "http:x.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe("http:x.mp4").width == 160


def test_encrypted_mp4(tmp_path):
    path = numbered_clip(
        tmp_path / "clip.mp4",
        25,
        container_options={
            "encryption_scheme": "cenc-aes-ctr",
            "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
            "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
        },
    )
    with pytest.raises(VTSumError, match="encrypted"):
        probe(path)


def two_videos(path: Path, disposition: str) -> Path:
    """A small picture numbered 1 and a large one numbered 2, as two streams of one file."""
    with av.open(str(path), "w") as container:
        streams = []
        for size in ((64, 48), (128, 96)):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = 0
            streams.append(stream)
        if disposition == "small":
            streams[0].disposition = 1
        for n in range(25):
            for number, stream in enumerate(streams):
                image = number_picture(number + 1, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = n
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def test_several_streams(tmp_path):
    assert number_of(next(iter(FrameSampler(two_videos(tmp_path / "a.mkv", "small")))).image) == 1
    large = two_videos(tmp_path / "b.mkv", "none")
    assert probe(large).width == 128
    assert number_of(next(iter(FrameSampler(large))).image) == 2


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the package ffmpeg to attach a cover picture")
def test_cover_pictures_are_not_the_video(tmp_path):
    picture = tmp_path / "cover.png"
    av.VideoFrame.from_ndarray(number_picture(99, 640, 640), format="rgb24").save(str(picture))
    clip = numbered_clip(tmp_path / "clip.mp4", 25, sound=tone(1.0, 48000, 1))
    covered = tmp_path / "covered.mp4"
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-i", str(picture), "-map", "1", "-map", "0", "-c", "copy"]
    subprocess.run([*command, "-disposition:v:0", "attached_pic", str(covered)], check=True)
    assert probe(covered).width == 160
    assert [number_of(frame.image) for frame in FrameSampler(covered)] == [0]
    song = tmp_path / "song.m4a"
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-i", str(picture), "-map", "0:a", "-map", "1", "-c", "copy"]
    subprocess.run([*command, "-disposition:v:0", "attached_pic", str(song)], check=True)
    with pytest.raises(VTSumError, match="only sound"):
        probe(song)


def test_written_frames_carry_their_numbers():
    """The test's own yardstick: numbers can be read from pictures of any size."""
    for number in (0, 1, 1023, 2047, 4095, 1365):
        for size in ((160, 90), (64, 48), (90, 160), (3840, 2160)):
            assert number_of(number_picture(number, *size)) == number
