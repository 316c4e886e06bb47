"""Two hundred damaged clips: a summary or one clear line each; no crash, no hang, nothing left behind."""

from __future__ import annotations

import collections
import json
import os
import select
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.vtsum.clips import damaged_copies, numbered_clip, tone
from tests.vtsum.samples import ENVIRONMENT
from vtsum.video.source import PacketReader

COPIES = 40  # of each clip: three rounds of all kinds of damage, and more
WORKERS = 2
LIMIT = 40.0  # seconds for one clip on a busy machine; an intact one takes a quarter of a second
CONTAINERS: dict[str, dict[str, Any]] = {
    ".mp4": {"container_options": {"movflags": "+faststart"}, "options": {"bf": "2"}},
    ".mkv": {"options": {"bf": "2"}},
    ".ts": {},
    ".flv": {"options": {"bf": "2"}},
    ".avi": {"codec": "mpeg4", "sound_codec": "pcm_s16le"},
}


def damaged(folder: Path) -> list[Path]:
    """Damaged copies of a clip of five seconds in each container."""
    sound = tone(5.0, 44100, 1)
    paths = []
    for suffix, options in CONTAINERS.items():
        source = numbered_clip(folder / f"clip{suffix}", 125, sound=sound, sound_rate=44100, **options)
        for number, (kind, data) in enumerate(damaged_copies(source, COPIES, seed=7)):
            paths.append(folder / f"{number:03d}-{kind}{suffix}")
            paths[-1].write_bytes(data)
    return paths


def watch(paths: list[Path], results: dict[str, dict[str, Any]]) -> None:
    """Feed one worker; a file on which it dies or takes too long is noted as such, and a new worker goes on."""
    waiting = collections.deque(paths)
    while waiting:
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("summarize_many.py"))],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
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


def test_an_absurd_picture_size_is_refused_before_it_is_allocated(tmp_path):
    """Headers that claim 65,000 x 65,000 pixels, in each JPEG's height and width, must not take the memory for them."""
    source = numbered_clip(tmp_path / "clip.avi", 25, codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    size, claimed = (np.array(pair, ">u2").tobytes() for pair in ([90, 160], [65000, 65000]))
    assert source.count(size) >= 25
    (tmp_path / "huge.avi").write_bytes(source.replace(size, claimed))
    results: dict[str, dict[str, Any]] = {}
    watch([tmp_path / "huge.avi"], results)
    assert results["huge.avi"]["result"] in {"summary", "error"}, results
    assert results["huge.avi"]["took"] < 10, results


def test_damaged_clips(tmp_path):
    paths = damaged(tmp_path)
    results: dict[str, dict[str, Any]] = {}
    threads = [threading.Thread(target=watch, args=(paths[i::WORKERS], results)) for i in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(paths) == COPIES * len(CONTAINERS)
    bad = {name: found for name, found in results.items() if found["result"] not in {"summary", "error"}}
    assert not bad, json.dumps(bad, indent=1)[:4000]
    left = {name: found["left"] for name, found in results.items() if found["left"]}
    assert not left
    for name, found in results.items():
        assert found["took"] < 20, name
        if found["result"] == "error":
            assert name in found["line"], (name, found["line"])
            assert "\n" not in found["line"], name
            assert len(found["line"]) < 300 + len(str(tmp_path)), name
        else:
            assert 1 <= found["frames"] <= 75, name
            assert found["duration"] <= 75, name
    counts = collections.Counter(found["result"] for found in results.values())
    assert counts["summary"] >= 60, counts
    assert counts["error"] >= 20, counts
    assert sum(bool(found.get("warnings")) for found in results.values()) >= 20
    shown = collections.Counter(Path(name).suffix for name, found in results.items() if found["result"] == "summary")
    assert min(shown[suffix] for suffix in CONTAINERS) >= COPIES // 3, "most damage leaves something to show"


def test_damage_is_the_same_for_the_same_seed(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 25)
    first, again, other = (damaged_copies(source, 22, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(data != source.read_bytes() for _, data in first) >= 20
    assert len({kind for kind, _ in first}) >= 10


def test_streams_that_turn_up_in_mid_file(tmp_path):
    """PyAV may raise IndexError at the end of such a file, which must pass for its end."""

    class Container:
        format = types.SimpleNamespace(name="mpegts")

        def demux(self, streams):
            yield from packets
            raise IndexError("list index out of range")

    with av.open(str(numbered_clip(tmp_path / "clip.mp4", 5))) as real:
        packets = [packet for packet in real.demux(video=0) if packet.size]
        reader = PacketReader(Container(), [real.streams.video[0]])
        assert list(reader) == packets
        assert len(packets) == 5
        assert reader.errors == 0
