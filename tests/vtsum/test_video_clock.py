"""Files whose time is odd: joined, live, with holes, without a stated length, with pictures that stay."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.vtsum.clips import number_of, number_picture, numbered_clip, tone, write_clip
from vtsum.enhance.speech.sound import read_sound
from vtsum.video import FrameSampler, cut, probe


def picture(number: int, _time: float) -> np.ndarray:
    return number_picture(number, 160, 90)


def sampled(path: Path, fps: float = 1.0) -> tuple[list[int], FrameSampler]:
    sampler = FrameSampler(path, fps=fps)
    return [number_of(frame.image) for frame in sampler], sampler


def ffmpeg(*arguments: object, to: Path | None = None) -> None:
    done = subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdout=subprocess.PIPE)
    if to is not None:  # what it writes to a pipe
        to.write_bytes(done.stdout)


def signals(path: Path, count: int, seconds: float, *, start: float = 0.0) -> Path:
    """Pictures at 25 a second, and sound of `seconds`; a white flash and a beep half way through every second."""

    def flash(number: int, _time: float) -> np.ndarray:
        return np.full((48, 64, 3), 255 if 12 <= number % 25 < 15 else 0, np.uint8)

    beep = tone(seconds, 48000, 1, 1000.0, 0.6)
    at = np.arange(beep.shape[1]) / 48000 % 1
    beep[:, (at < 0.48) | (at >= 0.6)] = 0
    times = [n / 25 for n in range(count)]
    return write_clip(path, times, flash, rate=25, sound=beep, start=start, sound_start=start)


def flashes(path: Path) -> list[float]:
    bright = [(frame.time, frame.image.mean() > 120) for frame in FrameSampler(path, fps=25, size=(32, 32))]
    return [time for (time, on), (_, was) in zip(bright[1:], bright, strict=False) if on and not was]


def beeps(path: Path) -> list[float]:
    sound = np.concatenate([block for _, block in read_sound(path)])
    loud = np.flatnonzero(np.abs(sound) > 0.2) / 16000
    return [loud[0], *loud[1:][np.diff(loud) > 0.2]]


def in_step(path: Path, folder: Path, count: int) -> None:
    """Flashes and beeps come together, as they are watched and heard and as they are cut."""
    seen, heard = flashes(path), beeps(path)
    for flash in seen:
        assert min(abs(flash - beep) for beep in heard) < 0.09, (seen, heard)
    assert len(seen) == count
    sampler = FrameSampler(path)
    list(sampler)
    result = cut(path, [(0.0, sampler.duration)], folder / "cut.mp4")
    assert flashes(result.path) == pytest.approx(seen, abs=0.05)
    assert beeps(result.path) == pytest.approx(heard, abs=0.05)


def test_joined_recordings_of_which_one_has_less_sound(tmp_path):
    first, second = signals(tmp_path / "1.ts", 100, 2.4), signals(tmp_path / "2.ts", 100, 4.0)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    seen, heard = flashes(path), beeps(path)
    assert [round(time - 0.48) for time in seen] == list(range(8))
    assert [round(time - 0.48) for time in heard] == [0, 1, 4, 5, 6, 7]
    assert all(min(abs(beep - flash) for flash in seen) < 0.09 for beep in heard)
    result = cut(path, [(3.0, 8.0)], tmp_path / "cut.mp4")
    cut_seen, cut_heard = flashes(result.path), beeps(result.path)
    assert len(cut_seen) == 5
    assert cut_heard == pytest.approx(cut_seen[1:], abs=0.09)


def test_joined_recordings_of_which_one_has_no_sound_and_one_another_rate(tmp_path):
    first = signals(tmp_path / "1.mkv", 100, 4.0)
    for name, options in (
        ("1.ts", ["-c", "copy"]),
        ("2.ts", ["-c", "copy", "-an"]),
        ("3.ts", ["-c:v", "copy", "-c:a", "aac", "-ar", "22050"]),
    ):
        ffmpeg("-i", first, *options, tmp_path / name)
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join((tmp_path / f"{n}.ts").read_bytes() for n in (1, 2, 3)))
    seen, heard = flashes(path), beeps(path)
    assert [round(time - 0.52) for time in seen] == list(range(12))
    assert [round(time - 0.52) for time in heard] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert all(min(abs(beep - flash) for flash in seen) < 0.09 for beep in heard)
    result = cut(path, [(7.0, 12.0)], tmp_path / "cut.mp4")
    assert beeps(result.path) == pytest.approx(flashes(result.path)[1:], abs=0.09)


def test_sound_that_begins_only_in_a_later_recording(tmp_path):
    """It is at its place; a note says that it was not read where neither the file's beginning nor its end has it."""
    ffmpeg("-i", signals(tmp_path / "a.mkv", 125, 5.0), "-c", "copy", tmp_path / "sound.ts")
    ffmpeg("-i", tmp_path / "a.mkv", "-c", "copy", "-an", tmp_path / "mute.ts")
    mute, sound = ((tmp_path / f"{name}.ts").read_bytes() for name in ("mute", "sound"))
    path = tmp_path / "joined.ts"
    path.write_bytes(mute + sound)
    assert probe(path).has_audio
    seen, heard = flashes(path), beeps(path)
    assert len(seen) == 10
    assert heard == pytest.approx(seen[5:], abs=0.09)
    result = cut(path, [(0.0, 10.0)], tmp_path / "cut.mp4")
    assert beeps(result.path) == pytest.approx(flashes(result.path)[5:], abs=0.09)

    pieces = [sound[at : at + 188] for at in range(0, len(sound), 188)]
    path.write_bytes(b"".join(piece for piece in pieces if piece[1] & 31 != 1 or piece[2] != 1))
    assert not probe(path).has_audio  # of sound that is announced, and never comes

    padding = (b"\x47\x1f\xff\x10" + bytes(184)) * 32_000
    path.write_bytes(mute + padding + sound + padding[: len(padding) // 8] + mute)
    assert not probe(path).has_audio
    _, sampler = sampled(path)
    assert "streams that begin in the middle of the file, perhaps its sound, were not read" in sampler.warnings
    path.write_bytes(mute + padding + mute)
    assert sampled(path)[1].warnings == ["timestamps jump in 1 place: what follows was put behind what came before"]


def test_a_recording_that_is_not_read_is_told(tmp_path):
    for suffix in (".mp4", ".flv"):
        clip = numbered_clip(tmp_path / f"c{suffix}", 50, rate=25)
        path = tmp_path / f"joined{suffix}"
        path.write_bytes(clip.read_bytes() * 2)
        _, sampler = sampled(path)
        assert sampler.warnings == ["another recording follows in the file: it was not read"]
        assert sampled(clip)[1].warnings == []
    other = tmp_path / "other.ts"
    ffmpeg("-i", numbered_clip(tmp_path / "c.ts", 50), "-c", "copy", "-mpegts_start_pid", "0x200", other)
    path = tmp_path / "joined.ts"
    path.write_bytes((tmp_path / "c.ts").read_bytes() + other.read_bytes())
    assert "another recording follows in the file: it was not read" in sampled(path)[1].warnings


def test_many_pieces_do_not_drift(tmp_path):
    piece = signals(tmp_path / "piece.ts", 25, 1.0).read_bytes()
    path = tmp_path / "pieces.ts"
    path.write_bytes(piece * 20)
    in_step(path, tmp_path, 20)
    sampler = FrameSampler(path)
    list(sampler)
    assert sampler.duration == pytest.approx(20.0, abs=0.1)
    assert any("timestamps jump in 19 places" in line for line in sampler.warnings)


@pytest.mark.parametrize("hole", [4.0, 90.0])
@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_a_hole_is_the_same_for_pictures_and_sound(tmp_path, hole, suffix):
    part = signals(tmp_path / "part.ts", 75, 3.0)
    later = tmp_path / "later.ts"
    ffmpeg("-i", part, "-c", "copy", "-output_ts_offset", 3.0 + hole, later)
    path = tmp_path / "hole.ts"
    path.write_bytes(part.read_bytes() + later.read_bytes())
    if suffix == ".mkv":
        ffmpeg("-fflags", "+genpts", "-i", path, "-c", "copy", "-dts_delta_threshold", 1000, tmp_path / "hole.mkv")
        path = tmp_path / "hole.mkv"
    in_step(path, tmp_path, 6)


def test_padding_behind_the_last_picture_is_no_recording(tmp_path):
    source = signals(tmp_path / "a.mkv", 50, 2.0)
    for name, options in (
        ("a.m2ts", ["-c:v", "libx264", "-c:a", "ac3", "-mpegts_m2ts_mode", "1"]),
        ("a.vob", ["-f", "vob", "-c:v", "mpeg2video", "-c:a", "ac3"]),
    ):
        ffmpeg("-i", source, *options, tmp_path / name)
        assert sampled(tmp_path / name)[1].warnings == []


def test_an_avi_written_to_a_pipe_states_no_length(tmp_path):
    """Its headers hold numbers as large as they can be."""
    ffmpeg(
        "-i",
        signals(tmp_path / "a.mkv", 75, 3.0),
        "-c:v",
        "mpeg4",
        "-c:a",
        "mp3",
        "-f",
        "avi",
        "pipe:1",
        to=tmp_path / "a.avi",
    )
    assert probe(tmp_path / "a.avi").stated_duration is None
    _, sampler = sampled(tmp_path / "a.avi")
    assert sampler.duration == pytest.approx(3.0, abs=0.1)
    assert sampler.warnings == []
    assert sampler.damaged == []


def test_a_still_without_a_stated_length(tmp_path):
    """What a browser records of a screen on which nothing changes."""
    path = write_clip(
        tmp_path / "live.mkv", [0, 1, 2, 90, 91], picture, rate=1, format="matroska", container_options={"live": "1"}
    )
    _, sampler = sampled(path)
    assert sampler.duration == pytest.approx(92.0)
    assert sampler.warnings == []


def test_sound_is_evidence_of_a_still_in_a_stream_of_broadcast(tmp_path):
    times = [*(n / 25 for n in range(25)), 75.0, 75.04]
    numbers, sampler = sampled(write_clip(tmp_path / "still.ts", times, picture, sound=tone(75.1, 48000, 1)))
    assert sampler.duration == pytest.approx(75.08, abs=0.1)
    assert numbers[1:75] == [24] * 74


def test_pictures_stored_in_decoding_order_without_times(tmp_path):
    """H.264 with B-frames in AVI, which states no time of display; flash and beep tell where the sound lies."""
    options = {"bf": "3", "b-adapt": "0", "preset": "veryfast"}
    numbered = numbered_clip(tmp_path / "b.mkv", 100, options=options)
    plain = signals(tmp_path / "s.mkv", 100, 4.0)
    for source in (numbered, plain):
        ffmpeg("-i", source, "-c:v", "copy", "-c:a", "mp3", "-bsf:v", "h264_mp4toannexb", source.with_suffix(".avi"))
    assert probe(tmp_path / "b.avi").fps == 25
    numbers, _ = sampled(tmp_path / "b.avi", 25)
    assert numbers == list(range(100))
    assert sampled(tmp_path / "b.avi")[0] == [0, 25, 50, 75]
    result = cut(tmp_path / "b.avi", [(1.0, 2.0)], tmp_path / "cut.mp4")
    assert sampled(result.path, 25)[0] == list(range(25, 50))
    in_step(tmp_path / "s.avi", tmp_path, 4)


def test_the_last_slide_stays_until_its_stated_end(tmp_path):
    """A remuxed slide show, whose last picture has no length of its own."""
    slides = write_clip(tmp_path / "s.mp4", [0, 20, 45, 70, 110, 140], picture, last_duration=20.0, rate=25)
    ffmpeg("-i", slides, "-c", "copy", tmp_path / "s.mkv")
    numbers, sampler = sampled(tmp_path / "s.mkv")
    assert (sampler.duration, sampler.warnings, sampler.broken_at) == (pytest.approx(160.0, abs=0.05), [], None)
    assert numbers[141:] == [5] * 19
    result = cut(tmp_path / "s.mkv", [(100.0, 160.0)], tmp_path / "cut.mp4", duration=sampler.duration)
    assert result.duration == pytest.approx(60.0, abs=0.05)
    for path in (result.path, cut(slides, [(0, 160)], tmp_path / "whole.mp4").path):
        stated = probe(path).duration
        _, again = sampled(path)
        assert again.duration == pytest.approx(stated, abs=0.05)
        assert stated == pytest.approx({"cut.mp4": 60.0, "whole.mp4": 160.0}[path.name], abs=0.05)


def test_a_subtitle_past_the_end_breaks_nothing(tmp_path):
    (tmp_path / "s.srt").write_text("1\n00:00:01,000 --> 00:00:20,000\nA subtitle that runs past the end.\n")
    clip = numbered_clip(tmp_path / "p.mkv", 100)
    ffmpeg("-i", clip, "-i", tmp_path / "s.srt", "-c", "copy", tmp_path / "t.mkv")
    untagged = (tmp_path / "t.mkv").read_bytes().replace(b"DURATION", b"XURATION")  # as MakeMKV writes
    (tmp_path / "t.mkv").write_bytes(untagged)
    _, sampler = sampled(tmp_path / "t.mkv")
    assert (sampler.duration, sampler.warnings) == (pytest.approx(4.0), [])


def test_a_length_stated_too_long_with_sound_complete(tmp_path):
    path = numbered_clip(tmp_path / "c.mkv", 100, sound=tone(4, 48000, 1))
    data = path.read_bytes()
    assert b"00:00:04.0" in data
    path.write_bytes(data.replace(b"00:00:04.0", b"00:00:59.0"))  # of both streams
    _, sampler = sampled(path)
    assert (sampler.duration, sampler.warnings) == (pytest.approx(4.0, abs=0.05), [])


def test_a_recording_cut_off_is_still_told(tmp_path):
    for suffix in (".mkv", ".mp4"):
        kwargs = {"container_options": {"movflags": "+faststart"}} if suffix == ".mp4" else {}
        path = numbered_clip(tmp_path / f"c{suffix}", 250, sound=tone(10.0, 48000, 1), **kwargs)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 6 // 10])
        _, sampler = sampled(path)
        assert any("breaks off" in line for line in sampler.warnings), suffix
        assert sampler.duration == pytest.approx(sampler.broken_at)
        assert sampler.duration < 8.0


def test_the_last_picture_stays_while_there_is_sound(tmp_path):
    for suffix in (".mp4", ".mkv", ".ts"):
        path = numbered_clip(tmp_path / f"s{suffix}", 50, sound=tone(11.9, 48000, 1))
        numbers, sampler = sampled(path)
        assert sampler.duration == pytest.approx(11.9, abs=0.1), suffix
        assert numbers[2:] == [49] * 10
        result = cut(path, [(1.0, 11.9)], tmp_path / "cut.mp4", duration=sampler.duration)
        assert result.duration == pytest.approx(10.9, abs=0.1)
        assert sum(len(block) for _, block in read_sound(result.path)) / 16000 == pytest.approx(10.9, abs=0.1)


def test_sound_before_the_first_picture_is_told(tmp_path):
    _, sampler = sampled(numbered_clip(tmp_path / "late.mkv", 100, start=5.0, sound=tone(9, 48000, 1)))
    assert sampler.warnings == ["5.0 s of sound before the first picture are left out"]
