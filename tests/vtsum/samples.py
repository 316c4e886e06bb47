"""Clips that several tests summarise, and what several need to start a command."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import av

from vtsum.recipes.procedural import ClipTruth, Event, Scene, make_clip

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "OMP_NUM_THREADS": "1"}
"""For a command in a process of its own, wherever it runs."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def small_clip(path: Path) -> ClipTruth:
    """Twelve seconds, three scenes of different looks, sound."""
    scenes = [
        Scene(4.0, (Event("balls", 1.0, 2.0),)),
        Scene(4.0, (Event("stripes", 1.0, 2.0),)),
        Scene(4.0, (Event("burst", 1.0, 2.0),)),
    ]
    return make_clip(path, scenes, size=(160, 90), fps=25, seed=3)


def decode(path: Path) -> tuple[int, float, float]:
    """(pictures, seconds of picture, seconds of sound) that really decode."""
    with av.open(str(path)) as container:
        pictures = sound = 0.0
        end = 0.0
        for frame in container.decode(video=0):
            pictures += 1
            end = float(frame.time) + float(1 / container.streams.video[0].average_rate)
        if container.streams.audio:
            container.seek(0)
            sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return int(pictures), end, sound


def remux(
    source: Path, target: Path, title: str | None = None, keep: Callable[[av.Packet], bool] = lambda packet: True
) -> Path:
    """The packets of a file, or those to `keep`, in another file or container."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        if title is not None:
            write.metadata["title"] = title
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is not None and keep(packet):
                packet.stream = streams[packet.stream.index]
                write.mux(packet)
    return target
