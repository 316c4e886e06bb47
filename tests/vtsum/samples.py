"""Clips that several tests summarise."""

from __future__ import annotations

from pathlib import Path

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
