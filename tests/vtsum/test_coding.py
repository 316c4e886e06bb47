"""How summary.mp4 is encoded: encoder, quality, fades, loudness, and the tracks that are kept."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import numbered_clip, tone, write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.video import cut
from vtsum.video.coding import ENCODERS, Coding, as_urgent_as_before
from vtsum.video.levels import measured

RATE = 48_000
CODECS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1"}
OPTIONS = {"speech": None, "ocr": False, "captioner": "none", "formats": ["mp4", "json", "analysis"], "budget": "60%"}


def _sound(path: Path, track: int = 0) -> np.ndarray:
    with av.open(str(path)) as film:
        return np.concatenate([frame.to_ndarray() for frame in film.decode(audio=track)], axis=1)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Ten seconds each of soft, loud and no sound."""
    soft, loud = tone(10, RATE, 2, level=0.02), tone(10, RATE, 2, level=0.5)
    sound = np.concatenate([soft, loud, np.zeros_like(soft)], axis=1)
    return numbered_clip(tmp_path_factory.mktemp("coding") / "uneven.mp4", 750, sound=sound)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_each_encoder_and_its_quality(tmp_path, encoder, capfd):
    noise = np.random.default_rng(0).integers(0, 255, (4, 90, 160, 3), np.uint8)
    source = write_clip(tmp_path / "clip.mp4", [n / 25 for n in range(100)], lambda n, _: noise[n % 4])
    sizes = []
    for crf in (10, 50):
        out = cut(source, [(0.2, 1.2), (2, 3)], tmp_path / "o.mp4", coding=Coding(encoder=encoder, crf=crf))
        with av.open(str(out.path)) as film:
            assert film.streams.video[0].codec_context.codec.canonical_name == CODECS[encoder]
            times = [frame.time for frame in film.decode(video=0)]
        assert times == pytest.approx([n / 25 for n in range(50)], abs=1e-3)
        sizes.append(out.path.stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]
    assert capfd.readouterr() == ("", "")  # encoders say nothing on the terminal
    # And none keeps the machine to itself: as root, SVT-AV1 gave this process and all that it began real-time priority.
    assert {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")} == {os.SCHED_OTHER}


def test_a_list_of_threads_that_is_cut_short_is_read_again(monkeypatch):
    """As where a thread ends meanwhile."""
    begun, over, listed = threading.Event(), threading.Event(), os.listdir

    def urgent() -> None:
        with contextlib.suppress(PermissionError):  # for others than root no encoder is urgent either
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        begun.set()
        over.wait(60)

    calls: list[str] = []

    def short_at_first(path: str) -> list[str]:
        calls.append(path)
        return listed(path)[:1] if len(calls) == 1 else listed(path)

    monkeypatch.setattr(os, "listdir", short_at_first)
    thread = threading.Thread(target=urgent)
    with as_urgent_as_before():
        thread.start()
        assert begun.wait(60)
    try:
        assert os.sched_getscheduler(thread.native_id) == os.SCHED_OTHER
    finally:
        over.set()
        thread.join()


def test_fades_are_as_long_as_asked(tmp_path):
    source = numbered_clip(
        tmp_path / "clip.mp4", 100, sound=np.full((1, 4 * RATE), 0.3, np.float32), sound_codec="flac"
    )
    dips = {}
    for fade in (0.0, 0.005, 0.1):
        sound = _sound(cut(source, [(0.5, 1.5), (2.5, 3.5)], tmp_path / "o.mp4", coding=Coding(fade=fade)).path)[0]
        dips[fade] = int((np.abs(sound[RATE // 2 : 3 * RATE // 2]) < 0.15).sum()) / RATE
    assert dips[0.0] == 0
    assert dips[0.005] == pytest.approx(0.005, abs=0.003)
    assert dips[0.1] == pytest.approx(0.1, abs=0.01)


def test_a_tone_of_known_loudness():
    """EBU Tech 3341, cases 1, 3 and 4: a tone of 1000 Hz at -23 dBFS is -23 LUFS; what is soft is gated."""

    def level(*parts: tuple[float, float]) -> float:
        sound = np.concatenate([tone(seconds, RATE, 2, 1000, 10 ** (db / 20)) for db, seconds in parts], axis=1)
        blocks = (sound[:, at : at + RATE // 10] for at in range(0, sound.shape[1], RATE // 10))
        return measured(blocks, RATE)[0]

    assert level((-23, 20)) == pytest.approx(-23, abs=0.1)
    assert level((-36, 10), (-23, 60), (-36, 10)) == pytest.approx(-23, abs=0.1)
    assert level((-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)) == pytest.approx(-23, abs=0.1)
    assert level((-23, 0.25)) == pytest.approx(-23, abs=0.1)  # shorter than what loudness is defined of
    assert level((-200, 2)) == -np.inf


def test_pieces_are_brought_to_one_loudness(uneven, tmp_path, needs_program):
    """As FFmpeg's own meter hears it; what is silent stays so, and nothing clips."""
    segments = [(1.0, 4.0), (12.0, 15.0), (22.0, 25.0)]
    out = cut(uneven, segments, tmp_path / "o.mp4", loudness=-20.0)
    sound = _sound(out.path)
    levels = [np.sqrt((sound[:, a * RATE : b * RATE] ** 2).mean()) for a, b in ((0, 3), (3, 6), (6, 9))]
    assert levels[0] == pytest.approx(levels[1], rel=0.03)
    assert levels[2] < 1e-4
    assert np.abs(sound).max() < 1
    assert out.softer == 0
    meter = [needs_program("ffmpeg"), "-nostats", "-i", str(out.path), "-af", "ebur128", "-f", "null", "-"]
    told = subprocess.run(meter, capture_output=True, text=True, check=True).stderr
    assert float(re.findall(r"I:\s+(-?[\d.]+) LUFS", told)[-1]) == pytest.approx(-20, abs=0.3)
    loud = cut(uneven, segments, tmp_path / "o.mp4", loudness=-5.0)
    assert loud.softer == 1
    plain = cut(uneven, segments, tmp_path / "o.mp4")
    assert np.ptp(np.abs(_sound(plain.path)[0, : 6 * RATE])) > 0.4


COMMANDS = "\x1b[2J\u202e"  # what a terminal obeys, and what turns the order of letters


def _many_tracks(path: Path) -> Path:
    """Pictures, two tracks of sound and two of subtitles, in Matroska."""
    base = numbered_clip(path.with_name("base.mp4"), 250)
    with av.open(str(base)) as pictures, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(pictures.streams.video[0])
        sounds = []
        for language, title in (("eng", "Original"), ("deu", f"Kommentar{COMMANDS}")):
            sound = target.add_stream("aac", rate=RATE, layout="mono")
            sound.metadata.update({"language": language, "title": title})
            sounds.append(sound)
        texts = []
        for language in ("eng", "fra"):
            text = target.add_mux_stream("subrip")
            text.time_base = Fraction(1, 1000)
            text.metadata |= {"language": language, "title": f"Words{COMMANDS}"}
            texts.append(text)
        for packet in pictures.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        for sound, frequency in zip(sounds, (300, 1500), strict=True):
            samples = tone(10, RATE, 1, frequency)
            for at in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1024]), "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
                target.mux(sound.encode(frame))
            target.mux(sound.encode(None))
        for text, words in zip(texts, ("one <i>two</i>", "un deux"), strict=True):
            packet = av.Packet(words.encode())
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 3000
            packet.duration = 2000
            target.mux(packet)
    return path


def test_all_tracks_are_kept(tmp_path):
    source = _many_tracks(tmp_path / "many.mkv")
    made = vtsum.summarize(source, tmp_path / "o", tracks="all", keep="2-4, 6-8", model=ColourModel(), **OPTIONS)
    with av.open(str(made.files["mp4"])) as film:
        kinds = [(s.type, s.metadata.get("language")) for s in film.streams]
        assert kinds == [("video", "und"), ("audio", "eng"), ("audio", "deu"), ("subtitle", "eng"), ("subtitle", "fra")]
        assert film.streams.audio[1].metadata["handler_name"] == "Kommentar [2J"
        assert [s.metadata["handler_name"] for s in film.streams.subtitles] == ["Words [2J"] * 2
    made = vtsum.summarize(source, tmp_path / "c", tracks="all", stream_copy=True, model=ColourModel(), **OPTIONS)
    with av.open(str(made.files["mp4"])) as film:
        assert film.streams.audio[1].metadata["handler_name"] == "Kommentar [2J"
    for track, frequency in ((0, 300), (1, 1500)):
        sound = _sound(made.files["mp4"], track)[0]
        middle = sound[RATE : RATE + 8192]
        assert np.argmax(np.abs(np.fft.rfft(middle))) * RATE / 8192 == pytest.approx(frequency, abs=10)
        assert len(sound) / RATE == pytest.approx(made.duration, abs=0.05)
    clip = next(shot["clip"] for shot in made.shots if shot["clip"] and shot["clip"]["end"] > 3)
    shift = clip["summary_start"] - clip["start"]
    with av.open(str(made.files["mp4"])) as film:
        track = film.streams.subtitles[1]
        found = [(float(p.pts * p.time_base), bytes(p)[2:].decode()) for p in film.demux(track) if p.size > 2]
        assert found[0] == (pytest.approx(max(3.0, clip["start"]) + shift, abs=0.01), "un deux")
        words = [bytes(p)[2:].decode() for p in film.demux(film.streams.subtitles[0]) if p.size > 2]
    assert set(words) <= {"one two"}
    best = vtsum.recut(made.output, tmp_path / "r", video=source, tracks="best")
    with av.open(str(best.files["mp4"])) as film:
        assert [s.type for s in film.streams] == ["video", "audio"]


def test_options_of_coding_are_checked_before_the_work(uneven, tmp_path):
    for options, reason in (
        ({"encoder": "libvpx"}, "summarize: encoder must be one of libx264, libx265, libsvtav1, got 'libvpx'"),
        ({"crf": "60"}, "summarize: crf must be 0 to 51 for libx264, got 60"),
        ({"crf": 2.5}, "summarize: crf must be a whole number, got 2.5"),
        ({"encoder": "libsvtav1", "preset": "fast"}, "preset must be one of 0, 1, .* for libsvtav1, got 'fast'"),
        ({"fade": 1}, "summarize: fade must be seconds or a time .*, 0 to 0.2 s, got 1"),
        ({"loudness": "loud"}, "summarize: loudness must be -70 to -5 LUFS, got 'loud'"),
        ({"tracks": "two"}, "summarize: tracks must be best or all, got 'two'"),
    ):
        with pytest.raises(VTSumError, match=reason):
            vtsum.summarize(uneven, tmp_path / "o", model=ColourModel(), **OPTIONS, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_command_says_how_it_is_encoded(uneven, tmp_path):
    run = [sys.executable, "-m", "vtsum.cli", "summarize", str(uneven), "--no-speech", "--no-ocr", "-f", "mp4,json"]
    words = ["--encoder", "libx265", "--crf", "40", "--loudness", "-16", "--fade", "0.01", "-o", str(tmp_path / "o")]
    done = forked.run([*run, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "note: summary.mp4 is encoded by libx265: not every player shows that" in done.stderr
    with av.open(str(tmp_path / "o" / "summary.mp4")) as film:
        assert film.streams.video[0].codec_context.codec_tag == "hvc1"
