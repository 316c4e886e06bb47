"""Damage inside a file is told, with its place; a clean file is never called damaged."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import tone, write_clip
from vtsum.enhance.speech.sound import read_sound
from vtsum.enhance.speech.transcribe import transcribe
from vtsum.summary import schema
from vtsum.video import FrameSampler, cut
from vtsum.video.damage import Damage
from vtsum.video.spoilt import spoilt_check

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "OMP_NUM_THREADS": "1"}
FAKE = [sys.executable, str(Path(__file__).with_name("cli_with_fake_model.py"))]
COPIES = 6  # of each clip and kind of damage
VP = {"deadline": "realtime", "cpu-used": "8", "b": "600k"}
# (codec, ending, its options, the share of damaged copies that must be told). MP4 hides nothing and VP8, VP9 and HEVC
# find errors only where the stream's grammar breaks: of those what is told is what is lost.
CLIPS = [
    ("libx264", ".mp4", {"bf": "2"}, 0.9),
    ("libx264", ".mkv", {"bf": "2"}, 0.9),
    ("libx264", ".ts", {"bf": "2"}, 0.9),
    ("libx264", ".flv", {"bf": "2"}, 0.9),
    ("mpeg4", ".avi", {"b": "800k", "bf": "2"}, 0.9),
    ("mpeg4", ".mkv", {"b": "800k"}, 0.9),
    ("libx264", ".avi", {"bf": "0"}, 0.9),
    ("libvpx", ".ogv", VP, 0.9),
    ("mpeg2video", ".mxf", {"b": "800k"}, 0.9),
    ("wmv2", ".wmv", {"b": "800k"}, 0.6),  # a bit changed in its pictures gives other pictures
    ("mjpeg", ".avi", {}, 0.9),
    ("mjpeg", ".mkv", {}, 0.8),
    ("libvpx-vp9", ".webm", VP, 0.3),
    ("libvpx-vp9", ".mp4", VP, 0.2),
    ("libvpx", ".webm", VP, 0.3),
    ("libx265", ".mp4", {"preset": "ultrafast", "x265-params": "log-level=none"}, 0.3),
    ("libx265", ".mkv", {"preset": "ultrafast", "x265-params": "log-level=none"}, 0.3),
    ("ffv1", ".mkv", {"level": "3"}, 0.9),
    ("libx264", ".h264", {"bf": "2"}, 0.9),
    ("gif", ".gif", {}, 0.6),  # a bit changed in its pictures' codes gives other pictures
]
SOUND = {".avi": "mp3", ".webm": "libopus", ".ogv": "libopus", ".wmv": "mp3", ".mxf": "pcm_s16le"}
PICTURES = {"mjpeg": "yuvj420p", "gif": "rgb8"}
MUTE = {".h264", ".gif"}

# Runs in a process of its own: a crash inside libav must fail the test, not end it.
PROGRAM = """
import json, sys
from pathlib import Path
from vtsum.errors import VTSumError
from vtsum.enhance.speech.sound import read_sound
from vtsum.enhance.speech.transcribe import transcribe
from vtsum.summary import schema
from vtsum.video import FrameSampler, cut
from vtsum.video.damage import Damage
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        sampler = FrameSampler(path, fps=7.0, size=(32, 32))  # so many that every picture is decoded
        count = sum(1 for _ in sampler)
        print(json.dumps([path.name, sampler.warnings, sampler.damaged]), flush=True)
    except VTSumError as error:
        print(json.dumps([path.name, [str(error)], []]), flush=True)
"""


def moving(number: int, _time: float) -> np.ndarray:
    """Noise that moves: every part of every picture costs bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    return np.roll(noise // (1 + 3 * (number // 25 % 2)), (2 * number, 3 * number), (0, 1))


def clip(path: Path, codec: str, options: dict[str, str], count: int = 100) -> Path:
    return write_clip(
        path,
        [n / 25 for n in range(count)],
        moving,
        codec=codec,
        pix_fmt=PICTURES.get(codec, "yuv420p"),
        options=options,
        sound=None if path.suffix in MUTE else tone(count / 25, 48000, 1),
        sound_codec=SOUND.get(path.suffix, "aac"),
    )


def _zeros(data: bytearray, place: Callable[[int], int]) -> None:
    at = place(4096)
    data[at : at + 4096] = bytes(4096)


def _shuffled(data: bytearray, place: Callable[[int], int]) -> None:
    one, other = place(4096), place(4096)
    data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], data[one : one + 4096]


def _bits(data: bytearray, place: Callable[[int], int]) -> None:
    for _ in range(20):
        data[place(1)] ^= 16


def _cut(data: bytearray, place: Callable[[int], int]) -> None:
    del data[place(1) * 2 // 5 + len(data) // 20 :]  # at 9 to 41 of 100


KINDS: dict[str, Callable[[bytearray, Callable[[int], int]], None]] = {
    "zeros": _zeros,
    "shuffled": _shuffled,
    "bits": _bits,
    "cut": _cut,
}


def damaged(data: bytes, kind: str, seed: int) -> bytes:
    """A copy whose first and last tenth are whole, but for one cut short."""
    rng = random.Random(f"{kind}/{seed}")
    copy = bytearray(data)
    KINDS[kind](copy, lambda size: rng.randrange(len(data) // 10, len(data) * 9 // 10 - size))
    return bytes(copy)


def test_damage_is_told_and_nothing_else(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (codec, ending, options, _) in enumerate(CLIPS):
        whole = clip(tmp_path / f"{codec}{ending}", codec, options).read_bytes()
        (folder / f"{number}-clean-0{ending}").write_bytes(whole)
        for kind in KINDS:
            for seed in range(COPIES):
                (folder / f"{number}-{kind}-{seed}{ending}").write_bytes(damaged(whole, kind, seed))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(folder)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for line in done.stdout.splitlines():
        name, warnings, spans = json.loads(line)
        number, kind, _ = name.split("-")
        if kind == "clean":
            assert warnings == [], name
            assert spans == [], name
        told[int(number)][kind] += bool(warnings or spans)
    missed = []
    for number, (codec, ending, _, least) in enumerate(CLIPS):
        shares = {kind: told[number][kind] / COPIES for kind in KINDS}
        inside = np.mean([shares[kind] for kind in KINDS if kind != "cut"])
        print(f"{codec:12}{ending:6} told: {inside:4.0%} inside  {shares}")
        # Of an MPEG transport stream, or a bare one of H.264, nobody knows how long it was.
        if inside < least or shares["cut"] < (0.0 if ending in (".ts", ".h264") else 0.8):
            missed.append((codec, ending, least, shares))
    assert not missed


def test_a_recording_that_begins_in_mid_stream_is_not_damaged(tmp_path):
    """Its first pictures refer to ones that it does not hold."""
    data = clip(tmp_path / "whole.ts", "libx264", {"bf": "2"}).read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(data[: 188 * 3] + data[len(data) // 188 // 5 * 188 :])  # the tables, then from a fifth on
    sampler = FrameSampler(late, size=(32, 32))
    assert sum(1 for _ in sampler) >= 3
    assert sampler.damaged == []
    joined = tmp_path / "joined.ts"
    joined.write_bytes(data + data)
    sampler = FrameSampler(joined, size=(32, 32))
    assert sum(1 for _ in sampler) >= 7
    assert sampler.damaged == []


@pytest.mark.parametrize("ending", [".mkv", ".webm", ".flv", ".avi", ".wmv", ".mp4", ".ts"])
def test_a_clock_that_begins_late_is_no_break(tmp_path, ending):
    """Containers state when the end comes, not how long the pictures last."""
    codec, options = {".webm": ("libvpx", VP), ".wmv": ("wmv2", {})}.get(ending, ("libx264", {}))
    sound = {"sound": tone(3.0, 44100, 1), "sound_rate": 44100, "sound_codec": SOUND.get(ending, "aac")}
    if ending in (".webm", ".wmv"):
        sound = {}
    whole = write_clip(tmp_path / f"whole{ending}", [n / 25 for n in range(75)], moving, codec=codec, options=options,
                       start=30.0, sound_start=30.0, **sound)  # fmt: skip
    pictures_late = write_clip(tmp_path / f"late{ending}", [n / 25 for n in range(75)], moving, codec=codec,
                               options=options, start=4.0, **sound)  # fmt: skip
    for path in (whole, pictures_late):
        sampler = FrameSampler(path, size=(32, 32))
        assert sum(1 for _ in sampler) == 3
        known = sound and ending != ".avi"  # which does not say when sound begins
        lost = ["4.0 s of sound before the first picture are left out"] if known and path is pictures_late else []
        assert (sampler.broken_at, sampler.damaged) == (None, []), path
        assert [re.sub(r"^[34]\.\d", "4.0", line) for line in sampler.warnings] == lost, path


@pytest.mark.parametrize("field", ["header", "data"])
def test_a_wmv_that_states_more_bytes_than_a_system_counts_is_read(tmp_path, field):
    """Lengths of 64 bits, which libav reads over; as a process, whose exit status tells."""
    path = write_clip(tmp_path / "a.wmv", [n / 25 for n in range(75)], moving, codec="wmv2")
    data = bytearray(path.read_bytes())
    at = 16 if field == "header" else data.find(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")) + 16
    data[at : at + 8] = bytes([255] * 8)
    path.write_bytes(data)
    command = [*FAKE, "summarize", str(path), "-o", str(tmp_path / "out"), "--no-speech", "--no-ocr"]
    done = forked.run(command, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "summary.mp4").stat().st_size > 0


def test_what_is_lost_at_the_end_or_between_fragments_is_told(tmp_path):
    """Of a live recording and of fragments no index says what there was."""
    for name, options in [("live.mkv", {"live": "1"}), ("f.mp4", {"movflags": "frag_keyframe+empty_moov"})]:
        path = write_clip(
            tmp_path / name, [n / 25 for n in range(100)], moving, options={"bf": "2"}, container_options=options
        )
        data = path.read_bytes()
        places = (len(data) // 3, len(data) * 2 // 3)
        hole = data.find(b"moof", places[0]) - 4 if name == "f.mp4" else places[0]
        copies = {"whole": data, "cut off": data[: places[1]], "hole": data[:hole] + bytes(4096) + data[hole + 4096 :]}
        for kind, copy in copies.items():
            path.write_bytes(copy)
            sampler = FrameSampler(path, size=(32, 32))
            assert sum(1 for _ in sampler) >= (4 if kind == "whole" else 1)
            assert len(sampler.damaged) == (kind != "whole"), (name, kind)


def test_tags_of_an_flv_that_are_passed_over_are_told(tmp_path):
    """libav looks for the next tag behind a damaged one, and says nothing: seconds were missing without a note."""
    path = write_clip(
        tmp_path / "a.flv", [n / 25 for n in range(100)], moving, options={"bf": "0"}, sound=tone(4.0, 44100, 1),
        sound_rate=44100,
    )  # fmt: skip
    data = path.read_bytes()
    tags, at = [], 13
    while at < len(data):
        tags.append(at)
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    middle = len(tags) // 2
    copies = {
        "whole": data,
        "without its last length": data[:-4],
        "zeros": data[: tags[middle]] + bytes(tags[middle + 3] - tags[middle]) + data[tags[middle + 3] :],
        "another length": data[: tags[middle] + 1] + b"\0\0\5" + data[tags[middle] + 4 :],
        "other lengths behind its tags": b"".join(
            [data[:13], *(data[a : b - 4] + b"\0" + data[a + 1 : a + 4] for a, b in itertools.pairwise([*tags, at]))]
        ),
    }
    for kind, copy in copies.items():
        path.write_bytes(copy)
        sampler = FrameSampler(path, size=(32, 32))
        assert sum(1 for _ in sampler) >= 3, kind
        assert bool(sampler.damaged) == (kind in ("zeros", "another length")), (kind, sampler.damaged)


@pytest.mark.parametrize("chunk", [3, 20])
def test_pictures_that_an_index_seeks_behind_the_files_end_are_told(tmp_path, chunk, needs_program):
    """The sound goes on, so that nothing seems to be missing."""
    path = tmp_path / "a.mp4"
    make = [needs_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=6"]
    make += ["-f", "lavfi", "-i", "sine=d=6", "-g", "10"]
    subprocess.run([*make, "-c:v", "libx264", "-c:a", "aac", str(path)], check=True, timeout=60)
    content = bytearray(path.read_bytes())
    at = content.index(b"stco") + 12 + 4 * chunk
    command = [*FAKE, "summarize", str(path), "-f", "json", "--no-speech", "--no-ocr", "-q", "-o"]
    for name, damaged in (("whole", False), ("lost", True)):
        done = forked.run([*command, str(tmp_path / name)], env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert bool(schema.read(tmp_path / name / "summary.json")["damaged"]) is damaged
        assert ("damaged" in done.stderr) is damaged
        content[at : at + 4] = (2**31 - 1).to_bytes(4, "big")
        path.write_bytes(content)


def test_packets_lost_in_a_transport_stream_are_told_where_the_decoder_shows_no_fault(tmp_path):
    refreshed = {"x264-params": "intra-refresh=1:keyint=25", "bf": "0"}  # no later key picture, as beside a join
    data = clip(tmp_path / "clip.ts", "libx264", refreshed).read_bytes()
    path = tmp_path / "lost.ts"
    for share in (3, 4, 5, 6):
        at = len(data) // 188 * share // 8 * 188
        path.write_bytes(data[:at] + data[at + 188 * 20 :])
        sampler = FrameSampler(path, size=(32, 32))
        assert sum(1 for _ in sampler) >= 3
        assert len(sampler.damaged) == 1, share
        assert abs(sampler.damaged[0][0] - share / 8 * 4.0) < 1.0


@pytest.mark.parametrize(("ending", "codec"), [(".mkv", "libx264"), (".ogv", "libvpx"), (".mxf", "mpeg2video")])
def test_a_tag_behind_a_recording_is_no_damage(tmp_path, ending, codec):
    path = clip(tmp_path / f"clip{ending}", codec, VP if codec == "libvpx" else {})
    whole = path.read_bytes()
    middle = len(whole) // 2
    tag = b"TAG" + b"A title".ljust(125, b"\0")
    lyrics = b"LYRICSBEGIN" + bytes(2000)  # behind an end that the format states, anything may lie
    copies = {
        "tag": whole + tag,
        "lyrics": whole + lyrics,
        "APE": whole + b"APETAGEX" + bytes(200) + b"APETAGEX" + bytes(24),
        "zeros": whole + bytes(5000),
        "cut": whole[:-300] + tag,
        "hole": whole[:middle] + bytes(4096) + whole[middle + 4096 :] + tag,
        "end of zeros": whole[:-4096] + bytes(4096),
    }
    for kind, copy in copies.items():
        path.write_bytes(copy)
        sampler = FrameSampler(path, size=(32, 32))
        assert sum(1 for _ in sampler) >= 3
        told = bool(sampler.damaged or sampler.broken_at)
        assert told == (kind in ("cut", "hole", "end of zeros")), kind


def test_odd_recordings_are_clean(shared):
    for name in ("browser_recording.webm", "no_default_duration.mkv"):
        sampler = FrameSampler(shared / "media" / "odd" / name, size=(32, 32))
        assert sum(1 for _ in sampler) > 0
        assert sampler.damaged == [], name


def test_a_cut_tells_damage_of_pictures_that_the_analysis_left_out(tmp_path):
    whole = clip(tmp_path / "clip.mp4", "libx264", {"bf": "2", "x264-params": "b-adapt=0"})
    path = tmp_path / "damaged.mp4"
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [p for p in container.demux(video=0) if p.size > 200]
    places = [(p.pos, p.size) for p in packets if 2.2 < p.pts * p.time_base < 2.7 and not bytes(p)[4] & 0x60]
    for at, size in places:
        data[at + 40 : at + size] = random.Random(at).randbytes(size - 40)
    path.write_bytes(data)
    sampler = FrameSampler(path, size=(32, 32))
    assert sum(1 for _ in sampler) == 4
    assert sampler.damaged == []  # it lies in B-frames between the sampled ones
    assert len(cut(path, [(0.0, 4.0)], tmp_path / "out.mp4").damaged) == 1
    open_gop = clip(tmp_path / "open.mkv", "libx264", {"bf": "2", "x264-params": "open-gop=1:b-adapt=0"}, 250)
    for source in (whole, open_gop):
        segments = [(0.1 + n, 0.6 + n) for n in range(3)] + ([(8.3, 9.1)] if source is open_gop else [])
        assert cut(source, segments, tmp_path / "out.mp4").damaged == []


def test_a_hole_of_zeros_in_h264_is_told_wherever_it_lies(tmp_path):
    """As a download leaves it that did not end. Zeros before a unit and behind the last may be there."""
    whole = clip(tmp_path / "clip.mp4", "libx264", {"bf": "2", "x264-params": "b-adapt=0"})
    with av.open(str(whole)) as container:
        packets = [p for p in container.demux(video=0) if p.size > 600]
    for packet in packets[5:8]:
        data = bytearray(whole.read_bytes())
        data[packet.pos + 300 : packet.pos + 560] = bytes(260)
        (tmp_path / "hole.mp4").write_bytes(data)
        sampler = FrameSampler(tmp_path / "hole.mp4", size=(32, 32))
        assert sum(1 for _ in sampler) == 4
        assert len(sampler.damaged) == 1
        assert abs(sampler.damaged[0][0] - float(packet.pts * packet.time_base)) < 0.2
    unit = b"\0\0\0\1\x41" + b"\x9a" * 300
    for data, zeroed in (
        (unit + bytes(1000), False),
        (unit + bytes(1000) + unit, False),
        (bytes(1000) + unit[2:], False),
        (bytes(1000), True),
        (unit + bytes(1000) + b"\x9a", True),
    ):
        assert spoilt_check("h264")(av.Packet(data)) == zeroed
        assert not spoilt_check("mpeg2video")(av.Packet(data))


def test_blocks_of_dv_that_are_out_of_order_are_told(tmp_path):
    picture = np.zeros((576, 720, 3), np.uint8)
    whole = write_clip(
        tmp_path / "a.dv",
        [n / 25 for n in range(50)],
        lambda n, _: picture + n,
        codec="dvvideo",
        pix_fmt="yuv420p",
        options={},
    )
    data = whole.read_bytes()
    assert len(data) == 50 * 144_000
    for kind in ("whole", "zeros", "shuffled"):
        path = tmp_path / f"{kind}.dv"
        path.write_bytes(data if kind == "whole" else damaged(data, kind, 1))
        sampler = FrameSampler(path, size=(32, 32))
        assert sum(1 for _ in sampler) == 2
        assert bool(sampler.damaged) == (kind != "whole"), kind


def test_sound_that_does_not_decode_is_told_by_the_cut_and_by_the_listener(tmp_path):
    path = clip(tmp_path / "clip.mp4", "libx264", {}, 250)
    assert cut(path, [(0.0, 9.0)], tmp_path / "out.mp4").damaged == []
    assert _heard(path) == []
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.size and 4.0 < p.pts * p.time_base < 4.5]
        places = [(p.pos, p.size) for p in packets]
    for at, size in places:
        data[at : at + size] = random.Random(at).randbytes(size)
    path.write_bytes(data)
    sampler = FrameSampler(path, size=(32, 32))
    assert sum(1 for _ in sampler) == 10
    assert sampler.damaged == []  # the pictures are whole
    for found in (cut(path, [(3.0, 6.0)], tmp_path / "out.mp4").damaged, _heard(path)):
        assert len(found) == 1
        assert 3.9 < found[0][0] < found[0][1] < 4.7
    assert cut(path, [(0.0, 3.0), (6.0, 9.0)], tmp_path / "out.mp4").damaged == []
    said = transcribe(path, recogniser=Nobody(), denoiser=None)
    assert [w for w in said.warnings if w.startswith("sound of clip.mp4 could not be decoded at 4.")]


def _heard(path: Path) -> list[tuple[float, float]]:
    damage = Damage()
    assert sum(len(block) for _, block in read_sound(path, damage=damage)) > 9.9 * 16_000
    return damage.spans()


class Nobody:
    """A recogniser that understands nothing."""

    name, language, longest, doubtful, understood, telling = "nobody", None, 20.0, 0.0, 0.0, 1

    def recognise(self, stretches):
        return iter([u for _ in stretches for u in ()])


@pytest.mark.parametrize(("codec", "ending"), [("libx264", ".mp4"), ("libvpx-vp9", ".webm"), ("mpeg4", ".avi")])
def test_the_summary_says_where_the_file_is_damaged(tmp_path, codec, ending):
    path = clip(tmp_path / f"clip{ending}", codec, VP if codec == "libvpx-vp9" else {}, 250)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)
    done = forked.run(
        [*FAKE, "summarize", str(path), "-o", str(tmp_path / "o"), "-q"],
        env=ENVIRONMENT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "vtsum: note: the file is damaged at " in done.stderr
    summary = schema.read(tmp_path / "o" / "summary.json")
    assert len(summary["damaged"]) == 1
    place = summary["damaged"][0]
    assert 3.0 < place["start"] < 6.5
    assert place["start"] < place["end"] < 10.0
    assert not summary["broken"]
    assert "damaged at" in (tmp_path / "o" / "summary.txt").read_text()
