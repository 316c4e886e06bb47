"""A library of short videos: `vtsum batch` by one process, by two, and by Ray.

    python -m bench.summary.many_videos [--videos 200] [--seconds 8] [--repeats 1] [--folder DIR]

The videos are drawn, so many files of some twenty kinds. Each way is the command as it is typed, in a process of its
own; it must do all of them. A library of two videos by the same way tells what its start costs: the time left when the
time of a video, as the large library has it, is taken off twice. One JSON line for each way goes to
results/many_videos.jsonl.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import machine, quantiles
from bench.summary.summarize import run

FPS, SIZE, KINDS, FEW = 30, (320, 180), 20, 2
WAYS = {
    "one process": ["--workers", "1"],
    "two processes": ["--workers", "2"],
    "Ray, two workers": ["--executor", "ray", "--workers", "2"],
}


def make_library(folder: Path, videos: int, seconds: float) -> None:
    """So many files; those of one kind are the same, under names of their own."""
    from vtsum.recipes.procedural import EVENT_KINDS, Event, Scene, make_clip

    folder.mkdir(parents=True, exist_ok=True)
    kinds = min(KINDS, videos)
    for number in range(videos):
        path = folder / f"{number:04d}.mp4"
        if path.exists():
            continue
        if number < kinds:
            half = seconds / 2
            events = [EVENT_KINDS[(number + i) % len(EVENT_KINDS)] for i in range(2)]
            scenes = [Scene(half, (Event(kind, 0.25 * half, 0.5 * half),)) for kind in events]
            make_clip(path, scenes, fps=FPS, size=SIZE, seed=number)
        else:
            shutil.copyfile(folder / f"{number % kinds:04d}.mp4", path)


def took(videos: Path, words: list[str]) -> float:
    """Seconds of a batch over a folder of videos, all of which it does."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "vtsum.cli", "batch", str(videos), "-o", out, "--quiet", *words]
        seconds = run(command)[0]
        made = [json.loads(path.read_text())["summary"]["duration"] for path in Path(out).glob("*/summary.json")]
        if len(made) != len(list(videos.glob("*.mp4"))) or min(made) <= 0:
            raise SystemExit(f"many_videos: all videos must be summarised by {' '.join(words)}, got {len(made)}")
    return seconds


def measured(library: Path, few: Path, seconds: float, repeats: int) -> Iterator[dict[str, Any]]:
    """One record for each way; the ways take turns."""
    videos = len(list(library.glob("*.mp4")))
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, words in WAYS.items():
            found[way].append((took(library, words), took(few, words)))
    for way, runs in found.items():
        # Both are start + videos x time of one.
        starts = [small - FEW * (large - small) / (videos - FEW) for large, small in runs]
        yield {
            "way": way,
            "shape": {"videos": videos, "seconds": seconds, "width": SIZE[0], "height": SIZE[1], "fps": FPS},
            "repeats": repeats,
            "s": quantiles([large for large, _ in runs]),
            "start_s": quantiles(starts),
        }


def main() -> None:
    given = parser(__doc__, "many_videos")
    given.add_argument("--videos", type=int, default=200)
    given.add_argument("--seconds", type=float, default=8.0, help="length of each")
    given.add_argument("--repeats", type=int, default=1)
    given.add_argument("--folder", type=Path, help="where the videos are kept, and found again; default: not kept")
    options = given.parse_args()
    if options.videos <= FEW:
        given.error(f"--videos must be more than {FEW}, got {options.videos}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        library, few = folder / f"library_{options.videos}", folder / f"library_{FEW}"
        make_library(library, options.videos, options.seconds)
        make_library(few, FEW, options.seconds)
        facts = {"op": "many_videos", **machine(("torch", "av", "ray"))}
        keep(options.results, facts, measured(library, few, options.seconds, options.repeats))


if __name__ == "__main__":
    main()
