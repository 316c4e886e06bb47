"""Sound that states so few samples a second that a byte of it lasts one."""

from __future__ import annotations

import json
import os
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import number_picture
from tests.vtsum.samples import ENVIRONMENT
from vtsum.enhance.speech.sound import read_sound


def with_sound(path: Path, rate: int, seconds: float) -> Path:
    """A clip of 3 s in Matroska whose PCM of 8,000 samples a second states another rate."""
    with av.open(os.fspath(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 160, 90, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8_000)
        sound.layout = "mono"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(number_picture(number, 160, 90), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(video.encode(frame))
        for at in range(0, round(8_000 * seconds), 1_000):
            block = av.AudioFrame.from_ndarray(np.full((1, 1_000), 99, np.int16), format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 8_000, at, Fraction(1, 8_000)
            container.mux(sound.encode(block))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    data = path.read_bytes()
    stated = b"\xb5\x88" + struct.pack(">d", 8_000)  # SamplingFrequency (RFC 9559)
    assert data.count(stated) == 1
    path.write_bytes(data.replace(stated, b"\xb5\x88" + struct.pack(">d", rate)))
    return path


def test_sound_of_a_sample_a_second_takes_no_memory(tmp_path):
    """Some 50 kB of it were made two gigabytes."""
    path = with_sound(tmp_path / "slow.mkv", 1, 3.0)
    program = (
        "import sys\n"
        "from vtsum.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )
    command = [sys.executable, "-c", program, "summarize", str(path), "-o", str(tmp_path / "o"), "-q"]
    done = forked.run(command, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    damaged, none = done.stderr.splitlines()
    assert damaged.startswith("vtsum: note: the file is damaged at ")
    assert damaged.endswith(" to 3.0 s: pictures or sound there are faulty or missing")
    assert none == "vtsum: note: slow.mkv has no sound that can be decoded"
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["source"]["duration"] == 3.0  # it was 1,002.9
    assert int(done.stdout.split()[-1]) < 1_000_000  # KiB


@pytest.mark.parametrize(("rate", "heard"), [(1, False), (999, False), (2_000, True), (8_000, True)])
def test_the_least_rate_of_sound(tmp_path, rate, heard):
    path = with_sound(tmp_path / "x.mkv", rate, 3.0)
    seconds = sum(len(block) for _, block in read_sound(path)) / 16_000
    assert (seconds > 2.5) is heard
    assert heard or seconds == 0
