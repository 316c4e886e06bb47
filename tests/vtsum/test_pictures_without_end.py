"""Videos with pictures that are never shown: whoever decodes them ahead stops all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.vtsum.clips import write_clip
from tests.vtsum.samples import ENVIRONMENT
from vtsum.video.ahead import FramesAhead


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fragment of two seconds, and the same times again and again in fragments behind it."""
    path = tmp_path_factory.mktemp("repeated") / "a.mp4"
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    times = [n / 25 for n in range(50)]
    write_clip(path, times, lambda n, _: np.roll(noise, 8 * n, 1), gop=50, container_options=options, format="mp4")
    content = path.read_bytes()
    at = content.index(b"moof") - 4
    size = int.from_bytes(content[at : at + 4], "big")
    size += int.from_bytes(content[at + size : at + size + 4], "big")
    with open(path, "wb") as file:
        file.write(content[: at + size])
        for _ in range(400):
            file.write(content[at : at + size])
    return path


@pytest.mark.parametrize("part", [(0.0, None), (0.5, None)], ids=["whole", "part"])
def test_decoding_ahead_stops(part: tuple[float, float | None], repeated: Path) -> None:
    frames = FramesAhead(repeated, 1.0, 32, part=part)
    time.sleep(1.5)  # until all that are shown are decoded
    assert not frames.finished
    began = time.monotonic()
    frames.close()
    assert not frames._thread.is_alive(), "it went on to the file's end"
    assert time.monotonic() - began < 1.5


def test_a_signal_ends_the_command(repeated: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "vtsum", "summarize", str(repeated), "-o", str(tmp_path / "o"), "--no-ocr", "-q"]
    process = subprocess.Popen(line, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    time.sleep(4)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 5
    assert list(tmp_path.iterdir()) == []
