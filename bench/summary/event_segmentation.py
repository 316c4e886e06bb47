"""How well and how fast events are found.

    python -m bench.summary.event_segmentation --shared DIR [--scenedetect PYTHON] [--only speed|tvsum|summe|planted]

Lines go to results/event_segmentation.jsonl, the picture to docs/event_segmentation.png. Precision, recall and F count
boundaries matched one to one within 0.5 s, over all boundaries of a set of videos:

    tvsum     the ten held-out videos, embedded features of frames one second apart, against the data set's change
              points (KTS of other features, at two frames a second)
    summe     the 14 videos that come with features (768-d DINO, four a second), against its change points
    planted   VIDEOS drawn videos and the film in the package: hard cuts, dissolves, and lively events that begin and
              end within a scene; --scenedetect names a Python that has PySceneDetect, to run on the same files
    speed     KTS alone, 256-dimensional features, segments of 2 to 60 s at one frame a second
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, ROOT, machine, read
from bench.summary.tvsum import embeddings, frames_at
from vtsum.data.tvsum import load_tvsum
from vtsum.enhance.event_segmentation import METHODS, PictureChanges, kts, segment
from vtsum.evaluation.baselines import every_fifth
from vtsum.evaluation.boundaries import BoundaryScore, match_boundaries, total
from vtsum.recipes.film import HARBOUR
from vtsum.recipes.procedural import EVENT_KINDS, Event, Scene, make_clip

FILM = ROOT / "vtsum" / "assets" / "film.mp4"
VIDEOS = 8
KINDS = ("cut", "dissolve", "event")


def line(case: str, method: str, score: BoundaryScore, **more: Any) -> dict[str, Any]:
    rates = {name: round(getattr(score, name), 4) for name in ("precision", "recall", "f")}
    counts = {"found": score.found, "true": score.true, "matched": score.matched}
    return {"case": case, "method": method, **rates, **counts, **more}


def drawn(seed: int) -> list[Scene]:
    """Scenes of 3 to 12 s for a minute or so; a third dissolve, half hold a lively event that starts and stops."""
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    while sum(scene.duration for scene in scenes) < 60:
        duration = round(float(rng.uniform(3, 12)), 2)
        fade = round(float(rng.uniform(0.6, 1.6)), 2) if scenes and rng.random() < 1 / 3 else 0.0
        events: tuple[Event, ...] = ()
        if duration > 7 and rng.random() < 0.5:
            length = float(rng.uniform(2, duration - 4.5))
            events = (Event(str(rng.choice(EVENT_KINDS)), 2.2, round(length, 2)),)
        scenes.append(Scene(duration, events, fade))
    return scenes


def planted(path: Path, seed: int) -> list[tuple[float, str]]:
    """Draw a video; (seconds, kind) of every boundary planted in it, in order."""
    scenes = drawn(seed)
    truth = make_clip(path, scenes, seed=seed, audio=False)
    kinds = ["dissolve" if scene.fade else "cut" for scene in scenes[1:]]
    edges = [(time, "event") for event in truth.events for time in (event.start, event.end)]
    return sorted([*zip(truth.cuts, kinds, strict=True), *edges])


def film() -> list[tuple[float, str]]:
    """The film's cuts and dissolves."""
    kinds = ["dissolve" if part.dissolve else "cut" for part in HARBOUR.parts[1:]]
    return sorted(zip(HARBOUR.cuts, kinds, strict=True))


def look(path: Path, model: Any, fps: float = 1.0) -> dict[str, Any]:
    """What `segment` wants of a file: features, boundary scores, changes, duration; and the seconds they took."""
    from vtsum.video import FrameSampler

    changes = PictureChanges()

    def note(when: float, frame: Any) -> None:
        plane = frame.planes[0]
        changes.see(when, memoryview(plane), plane.line_size, plane.width, plane.height)

    began = time.perf_counter()
    sampler = FrameSampler(path, fps=fps, size=(model.image_size,) * 2, on_picture=note)
    images = np.stack([frame.image for frame in sampler])
    read = time.perf_counter() - began
    features = embeddings(model, images)
    return {
        "features": features,
        "scores": model.boundaries(features),
        "changes": changes,
        "duration": sampler.duration,
        "seconds": {"read": round(read, 3), "encode": round(time.perf_counter() - began - read, 3)},
    }


def boundaries(seen: dict[str, Any], method: str, fps: float = 1.0) -> list[float]:
    more = {"duration": seen["duration"], "boundary_scores": seen["scores"], "changes": seen["changes"]}
    found = segment(seen["features"], method, fps=fps, **more)
    return [one.start_time for one in found[1:]]


def bench_planted(model: Any, python: str | None, seeds: range = range(VIDEOS)) -> list[dict[str, Any]]:
    """Every method, and PySceneDetect, on the same files."""
    with tempfile.TemporaryDirectory() as folder:
        truths: dict[str, list[tuple[float, str]]] = {str(FILM): film()}
        for seed in seeds:
            file = Path(folder) / f"drawn_{seed}.mp4"
            truths[str(file)] = planted(file, seed)
        seen = {path: look(Path(path), model) for path in truths}
        found: dict[str, dict[str, list[float]]] = {
            method: {path: boundaries(seen[path], method) for path in truths} for method in METHODS
        }
        took: dict[str, float] = {}
        version = None
        if python is not None:
            rival = Path(__file__).with_name("scenedetect_rival.py")
            done = subprocess.run([python, str(rival), *truths], capture_output=True, text=True, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
            version = told["version"]
            for path, by_detector in told["videos"].items():
                for name, one in by_detector.items():
                    found.setdefault(f"PySceneDetect {name}", {})[path] = one["cuts"]
                    took[f"PySceneDetect {name}"] = took.get(f"PySceneDetect {name}", 0.0) + one["seconds"]
    lines = []
    for method, by_video in found.items():
        scores, hits = [], dict.fromkeys(KINDS, 0)
        for path, truth in truths.items():
            score, which = match_boundaries(by_video[path], [t for t, _ in truth])
            scores.append(score)
            for number in which:
                hits[truth[number][1]] += 1
        counts = {kind: sum(k == kind for truth in truths.values() for _, k in truth) for kind in KINDS}
        recall = {kind: round(hits[kind] / counts[kind], 4) for kind in KINDS}
        more: dict[str, Any] = {"recall_of": recall, "counts": counts, "videos": len(truths)}
        shown = next(path for path in truths if path != str(FILM))
        more["example"] = [round(t, 2) for t in by_video[shown]]
        more["example_truth"] = [[round(t, 2), kind] for t, kind in truths[shown]]
        if method in took:
            more |= {"seconds": round(took[method], 2), "scenedetect": version}
        lines.append(line("planted", method, total(scores), **more))
    return lines


def bench_tvsum(model: Any, shared: Path, keys: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    """Without pictures of the full rate there are no cuts: "joint" is KTS and the head here."""
    videos = load_tvsum(shared / "tvsum" / "tvsum.h5")
    held = keys if keys is not None else every_fifth(videos).test
    scores: dict[str, list[BoundaryScore]] = {}
    for video in videos:
        if video.key not in held:
            continue
        features = embeddings(model, frames_at(shared, video, np.arange(0.0, video.duration, 1.0)))
        scored = model.boundaries(features)
        seen = {"features": features, "scores": scored, "changes": None, "duration": video.duration}
        true = (video.change_points[1:, 0] / video.fps).tolist()
        for method in METHODS:
            if method != "cuts":
                score, _ = match_boundaries(boundaries(seen, method), true)
                scores.setdefault(method, []).append(score)
    return [line("tvsum", method, total(own), videos=len(own)) for method, own in scores.items()]


def bench_summe(shared: Path) -> list[dict[str, Any]]:
    """No pixels, so neither the head nor cuts: KTS of the features at hand, at their own rate and at one a second."""
    import h5py

    rows: dict[tuple[str, float], list[BoundaryScore]] = {}
    with h5py.File(shared / "summe" / "summe.h5") as file:
        for key in file:
            group = file[key]
            if "features_dino" not in group:
                continue
            fps, frames = float(group["fps"][()]), int(group["n_frames"][()])
            features, at = group["features_dino"][()], group["dino_samples"][()] / fps
            true = (group["change_points"][1:, 0] / fps).tolist()
            for rate in (4.0, 1.0):
                times = np.arange(0.0, frames / fps, 1 / rate)
                x = features[np.abs(at - times[:, None]).argmin(1)]
                for method in ("kts", "uniform"):
                    found = segment(x, method, fps=rate, duration=frames / fps)
                    score, _ = match_boundaries([s.start_time for s in found[1:]], true)
                    rows.setdefault((method, rate), []).append(score)
    return [line("summe", method, total(own), fps=rate, videos=len(own)) for (method, rate), own in rows.items()]


def bench_speed(lengths: tuple[int, ...] = (600, 3600, 36000), bound: int = 60) -> Iterator[dict[str, Any]]:
    """Scenes of eight frames with noise; segments of at most `bound` frames."""
    for frames in lengths:
        rng = np.random.default_rng(0)
        x = np.repeat(rng.normal(size=(frames // 8 + 1, 256)), 8, axis=0)[:frames]
        x = x + 0.5 * rng.normal(size=x.shape)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        seconds, cpu = [], []
        for _ in range(3):
            began = time.perf_counter(), time.process_time()
            found = kts(x, min_length=2, max_length=bound, penalty=0.5)
            seconds.append(time.perf_counter() - began[0])
            cpu.append(time.process_time() - began[1])
        tracemalloc.start()
        kts(x, min_length=2, max_length=bound, penalty=0.5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        yield {
            "case": "speed",
            "method": "kts",
            "shape": {"T": frames, "C": 256, "longest": bound},
            "seconds": round(sorted(seconds)[1], 4),
            "cpu_seconds": round(sorted(cpu)[1], 4),
            "peak_mib": round(peak / 2**20, 1),
            "segments": len(found),
        }


def main() -> None:
    given = parser(__doc__, "event_segmentation", shared=True)
    given.add_argument("--scenedetect", metavar="PYTHON", help="a Python that can import scenedetect")
    given.add_argument("--only", choices=("speed", "tvsum", "summe", "planted"))
    options = given.parse_args()
    from bench.summary.tables.event_segmentation import draw
    from vtsum.model import load

    model = load("embedded")
    facts = {"op": "event_segmentation", "weights": model.weights_sha256[:16], **machine(("numpy", "torch", "av"))}
    cases: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "speed": bench_speed,
        "tvsum": lambda: bench_tvsum(model, options.shared),
        "summe": lambda: bench_summe(options.shared),
        "planted": lambda: bench_planted(model, options.scenedetect),
    }
    for case in [options.only] if options.only else cases:
        keep(options.results, facts, cases[case]())
    draw(DOCS / "event_segmentation.png", read(options.results))


if __name__ == "__main__":
    main()
