"""Damaged files: what can be shown of them or one clear error, never a crash, a hang or a stray file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.vtsum.clips import damaged_copies, numbered_clip, tone
from vtsum.video.source import PacketReader

ROOT = Path(__file__).resolve().parents[2]
COPIES = 33  # of each clip: three rounds of all kinds of damage
LIMIT = 120  # seconds for them; they take about ten

# Runs in a process of its own: a crash inside libav must fail the test, not end it.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, cut, probe
folder = Path(sys.argv[1])
for path in sorted((folder / "in").iterdir()):
    report = {"name": path.name}
    began = time.monotonic()
    def attempt(word, call):
        try:
            report[word] = call()
        except VTSumError as error:
            report[word] = str(error)
    def sample():
        sampler = FrameSampler(path, fps=2.0, size=(64, 64))
        return [sum(1 for _ in sampler), sampler.duration]
    attempt("probe", lambda: probe(path).width)
    attempt("sample", sample)
    out = folder / "out"
    spans = [(0.4, 1.2), (2.0, 3.5)]
    attempt("cut", lambda: cut(path, spans, out / "summary.mp4", keyframe_dir=out).duration)
    report["seconds"] = time.monotonic() - began
    report["debris"] = [name for name in os.listdir(folder / "out") if name.startswith(".") or "part" in name]
    print(json.dumps(report), flush=True)
"""


def run(folder: Path, copies: list[tuple[str, bytes]], suffix: str) -> list[dict]:
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for number, (kind, data) in enumerate(copies):
        (folder / "in" / f"{number:03d}-{kind}{suffix}").write_bytes(data)
    command = [sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT, check=False)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"stopped after {reports[-1:]} with {done.returncode}: {done.stderr[-2000:]}"
    assert done.stderr == "", done.stderr
    assert len(reports) == len(copies)
    return reports


@pytest.mark.parametrize(
    ("suffix", "kwargs"),
    [
        (".mp4", {"container_options": {"movflags": "+faststart"}, "options": {"bf": "2"}}),
        (".mkv", {"options": {"bf": "2"}}),
        (".ts", {}),
        (".flv", {"options": {"bf": "2"}}),
        (".avi", {"codec": "mpeg4", "sound_codec": "pcm_s16le"}),
    ],
)
def test_result_or_one_clear_error(tmp_path, suffix, kwargs):
    source = numbered_clip(tmp_path / f"clip{suffix}", 125, sound=tone(5.0, 44100, 1), sound_rate=44100, **kwargs)
    reports = run(tmp_path, damaged_copies(source, COPIES, seed=7), suffix)
    for report in reports:
        assert report["seconds"] < 20, report
        assert report["debris"] == [], report
        for word in ("probe", "sample", "cut"):
            if isinstance(report[word], str):
                assert report["name"] in report[word], report
                assert "\n" not in report[word], report
        if isinstance(report["sample"], list):
            frames, duration = report["sample"]
            assert 1 <= frames <= 150, report
            assert duration <= 75, report
    shown = sum(isinstance(report["sample"], list) for report in reports)
    assert shown >= COPIES // 3, "most damage leaves something to show"
    assert any(isinstance(report["cut"], float) for report in reports)


def test_damage_is_the_same_for_the_same_seed(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 25)
    first, again, other = (damaged_copies(source, 22, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(data != source.read_bytes() for _, data in first) >= 20
    assert len({kind for kind, _ in first}) >= 10


def test_streams_that_turn_up_in_mid_file(tmp_path):
    """PyAV raises IndexError at the end of such a file, which must pass for its end."""

    class Container:
        def demux(self, streams):
            yield from packets
            raise IndexError("list index out of range")

    with av.open(str(numbered_clip(tmp_path / "clip.mp4", 5))) as real:
        packets = [packet for packet in real.demux(video=0) if packet.size]
        reader = PacketReader(Container(), [real.streams.video[0]])
        assert list(reader) == packets
        assert len(packets) == 5
        assert reader.errors == 0


def test_an_absurd_picture_size_is_refused_before_it_is_allocated(tmp_path):
    """A header that claims 65,000 x 65,000 pixels must not take the memory for them."""
    source = numbered_clip(tmp_path / "clip.avi", 25, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(source.read_bytes())
    size = np.array([160, 90], ">u2")[::-1].tobytes()  # in each JPEG's SOF: height, width
    at = data.find(size)
    count = 0
    while at >= 0:
        data[at : at + 4] = np.array([65000, 65000], ">u2").tobytes()
        count += 1
        at = data.find(size, at + 4)
    assert count >= 25
    reports = run(tmp_path, [("huge", bytes(data))], ".avi")
    assert reports[0]["seconds"] < 10
