"""A video of ten hours, made by showing a minute six hundred times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vtsum.clips import number_picture, tone, write_clip

HOURS = 10
MOST = 1 << 20  # KiB


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to read a process's memory")
def test_ten_hours_take_less_than_a_gibibyte(tmp_path):
    """Without speech and words on the screen; its memory is read by the process itself, at its end."""
    pictures = [number_picture(n, 160, 90) for n in range(150)]
    minute = write_clip(
        tmp_path / "minute.mp4",
        [n / 25 for n in range(1500)],
        lambda n, _: pictures[n // 10],
        sound=tone(60.0, 48000, 1),
        gop=50,
    )
    path = tmp_path / "hours.mp4"
    loop = ["ffmpeg", "-v", "error", "-stream_loop", str(60 * HOURS - 1), "-i", str(minute), "-c", "copy", str(path)]
    subprocess.run(loop, check=True)
    program = (
        "import sys\n"
        "from vtsum.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')))\n"
        "sys.exit(status)\n"
    )
    command = [sys.executable, "-c", program, "summarize", str(path), "-o", str(tmp_path / "out")]
    options = ["--no-speech", "--no-ocr", "--budget", "60s", "-q"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert data["source"]["duration"] == pytest.approx(3600 * HOURS, abs=15)  # sound is a little longer than its minute
    assert int(done.stdout.split()[-1]) < MOST, done.stdout
