"""Clips that several tests summarise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vtsum.recipes.procedural import ClipTruth, Event, Scene, make_clip


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
    import av

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


def change_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """A damaged copy: bits flipped, cut short, a stretch zeroed, or its front shuffled; drawn from `rng`."""
    broken = bytearray(data)
    how = int(rng.integers(5))
    if how == 0:
        for at in rng.integers(0, len(broken), int(rng.integers(1, 200))):
            broken[at] ^= 1 << int(rng.integers(8))
    elif how == 1:
        del broken[int(rng.integers(1, len(broken))) :]
    elif how == 2:
        at = int(rng.integers(0, len(broken)))
        broken[at : at + int(rng.integers(1, 4000))] = b"\0" * 100
    elif how == 3:
        front = np.frombuffer(bytes(broken[:400]), np.uint8)
        broken[:400] = rng.permutation(front).tobytes() if rng.random() < 0.5 else rng.bytes(400)
    else:
        # The index (moov) and what it points to: bits in the first kilobytes only, where the headers are.
        for at in rng.integers(0, min(len(broken), 6000), int(rng.integers(1, 60))):
            broken[at] = int(rng.integers(256))
    return bytes(broken)
