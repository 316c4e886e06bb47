"""Two hundred damaged clips: a summary or one clear line each; no crash, no hang, nothing left behind."""

from __future__ import annotations

import collections
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.vtsum.samples import change_bits, small_clip

ROOT = Path(__file__).resolve().parents[2]
COUNT = 200
WORKERS = 2
LIMIT = 40.0  # seconds for one clip on a busy machine; an intact one takes a quarter of a second


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Damaged copies of an MP4, of its streams in Matroska, and of an MPEG-4 AVI; the seed is the file's number."""
    import av

    folder = tmp_path_factory.mktemp("damaged")
    small_clip(folder / "clip.mp4")
    with av.open(str(folder / "clip.mp4")) as source, av.open(str(folder / "clip.mkv"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    with av.open(str(folder / "clip.mp4")) as source, av.open(str(folder / "clip.avi"), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for frame in source.decode(video=0):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"))))
        target.mux(stream.encode(None))
    kinds = [(folder / name).read_bytes() for name in ("clip.mp4", "clip.mkv", "clip.mp4", "clip.avi")]
    paths = []
    for number in range(COUNT):
        data = kinds[number % len(kinds)]
        suffix = ("mp4", "mkv", "mp4", "avi")[number % len(kinds)]
        paths.append(folder / f"damaged_{number:03}.{suffix}")
        paths[-1].write_bytes(change_bits(data, np.random.default_rng(number)))
    return paths


def watch(paths: list[Path], results: dict[str, dict]) -> None:
    """Feed one worker; a file on which it dies or takes too long is noted as such, and a new worker goes on."""
    waiting = collections.deque(paths)
    while waiting:
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("summarize_many.py"))],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            while waiting:
                path = waiting.popleft()
                worker.stdin.write(f"{path}\n".encode())
                line = b""
                while not line.endswith(b"\n"):
                    ready, _, _ = select.select([worker.stdout], [], [], LIMIT)
                    part = os.read(worker.stdout.fileno(), 1 << 16) if ready else b""
                    if not part:
                        break
                    line += part
                try:
                    results[path.name] = json.loads(line)
                except ValueError:
                    results[path.name] = {"result": "dead" if ready else "hang", "line": line.decode(errors="replace")}
                    break
        finally:
            worker.kill()
            worker.wait()
            worker.stdin.close()
            worker.stdout.close()


def test_damaged_clips(damaged):
    results: dict[str, dict] = {}
    threads = [threading.Thread(target=watch, args=(damaged[i::WORKERS], results)) for i in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == COUNT
    bad = {name: found for name, found in results.items() if found["result"] not in {"summary", "error"}}
    assert not bad, json.dumps(bad, indent=1)[:4000]
    left = {name: found["left"] for name, found in results.items() if found["left"]}
    assert not left
    for name, found in results.items():
        if found["result"] == "error":
            line = found["line"]
            assert "\n" not in line, name
            assert len(line) < 300, name
            assert name in line or "video" in line, (name, line)
    counts = collections.Counter(found["result"] for found in results.values())
    assert counts["summary"] >= 60, counts
    assert counts["error"] >= 20, counts
    assert sum(bool(found.get("warnings")) for found in results.values()) >= 20
