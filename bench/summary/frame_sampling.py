"""How many frames must an encoder see? Quality on TVSum by the share of frames encoded, and what the choice costs.

    python -m bench.summary.frame_sampling --shared DIR [--parts ridge embedded planted cost]
        [--shares 0.05 0.1 0.25 0.5]

DIR holds tvsum/. Frames are TVSum's stored ones. Frames that were not chosen take their features from those that were
(`vtsum.enhance.frame_sampling.spread`); what reads the features was always trained on all frames.

    ridge      50 videos, disjoint folds, the teacher's features at 1.5 frames a second; ridge regression
    embedded   the ten videos that the embedded model never saw, at 1 frame a second; its own encoder and saliency
    planted    drawn videos of 200 s with five short events: is each in a summary of a tenth?
    cost       processor milliseconds a frame of choosing and of encoding, one thread

Each line has Kendall's tau and Spearman's rho after Otani et al. 2019 and keyshot F, each with the paired difference to
encoding all frames; the mean cosine of a frame's features to what they would be; and how well the events found in them
(`find_shots`) agree with those found in all frames, as F at +-1 frame. Lines go to results/frame_sampling.jsonl, the
picture to docs/frame_sampling.png.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, ROOT, machine, quantiles, read
from bench.summary.tables.frame_sampling import draw
from bench.summary.tvsum import embeddings, frames_at, ridge
from vtsum.data.frames import FRAME_INDEX_RATE, read_frames, read_teacher
from vtsum.data.tvsum import TVSumVideo, load_folds, load_tvsum
from vtsum.enhance.event_segmentation import find_shots
from vtsum.enhance.frame_sampling import FrameChooser, choose_frames, spread, thumbnail_features
from vtsum.enhance.summary_refinement import parse_budget
from vtsum.evaluation.baselines import Evaluation, evaluate_scores, every_fifth, paired_difference, scores_at_picks
from vtsum.evaluation.boundaries import match_boundaries
from vtsum.model import load
from vtsum.model.neighbourhood import neighbourhood_features
from vtsum.recipes.procedural import EVENT_KINDS, Event, Scene, make_clip
from vtsum.summary.planning import make_plan
from vtsum.summary.progress import ignore
from vtsum.summary.watching import AT_LEAST, SAMPLERS, watch
from vtsum.video import FrameSampler, probe

FILM = ROOT / "vtsum" / "assets" / "film.mp4"
PARTS = ("ridge", "embedded", "planted", "cost")


def stream(cheap: np.ndarray, share: float, at_least: int = 1) -> np.ndarray:
    """The choice by windows, as frames come; `vtsum summarize` makes it with at_least = AT_LEAST."""
    chooser = FrameChooser(share, at_least=at_least)
    return np.array(chooser.see(cheap) + chooser.finish(), dtype=np.int64)


#: Name -> (chosen frames from cheap features, the encoder's features and a share; whether `spread` sees the pictures).
METHODS: dict[str, tuple[Callable[[np.ndarray, np.ndarray, float], np.ndarray], bool]] = {
    "uniform": (lambda cheap, full, share: choose_frames(cheap, share=share, method="uniform"), True),
    "uniform, between by time": (lambda cheap, full, share: choose_frames(cheap, share=share, method="uniform"), False),
    "top-k": (lambda cheap, full, share: choose_frames(cheap, share=share, method="top-k"), True),
    "top-k of the encoder's own": (lambda cheap, full, share: choose_frames(full, share=share, method="top-k"), True),
    "coverage": (lambda cheap, full, share: stream(cheap, share), True),
    "coverage, at least 40": (lambda cheap, full, share: stream(cheap, share, AT_LEAST), True),
    "coverage, between by time": (lambda cheap, full, share: stream(cheap, share), False),
    "coverage, whole video": (lambda cheap, full, share: choose_frames(cheap, share=share), True),
}


@dataclass(frozen=True)
class Case:
    """A video's sampled frames: times in seconds [T], thumbnails' features [T, C'], the encoder's [T, C]."""

    video: TVSumVideo
    rate: float
    times: np.ndarray
    cheap: np.ndarray
    full: np.ndarray


def ridge_cases(shared: Path, videos: Iterable[TVSumVideo]) -> list[Case]:
    cases = []
    for video in videos:
        index, images = read_frames(shared / "tvsum" / "frames" / f"{video.name}.zip")
        known, features = read_teacher(shared / "tvsum" / "teacher" / f"{video.name}.npz")
        if not np.array_equal(index, known):
            raise SystemExit(f"frame_sampling: frames and teacher features of {video.name} must be the same")
        cases.append(Case(video, 1.5, index / FRAME_INDEX_RATE, thumbnail_features(images), features))
    return cases


def embedded_cases(shared: Path, videos: Sequence[TVSumVideo], model: Any) -> list[Case]:
    held = every_fifth(videos).test
    cases = []
    for video in (video for video in videos if video.key in held):
        times = np.arange(0.0, video.duration, 1.0)
        images = frames_at(shared, video, times)
        cases.append(Case(video, 1.0, times, thumbnail_features(images), embeddings(model, images)))
    return cases


def ridge_scorer(cases: Sequence[Case], shared: Path) -> Callable[[Case, np.ndarray], np.ndarray]:
    """Of each video the ridge that was fitted on the other folds' videos, all frames known: its scores of features."""
    rows = {c.video.key: neighbourhood_features(c.full).astype(np.float64) for c in cases}
    targets = {c.video.key: c.video.ratings_at(c.times).mean(axis=0) for c in cases}
    weights = ridge(
        rows, targets, load_folds(shared / "tvsum" / "splits.json", "disjoint_folds", (c.video for c in cases))
    )
    return lambda case, features: neighbourhood_features(features) @ weights[case.video.key]


def event_agreement(found: np.ndarray, wanted: np.ndarray) -> float:
    """F of boundaries [n] against others [m] at +-1 frame; 1 where there are none."""
    return match_boundaries(found, wanted, 1)[0].f if len(found) or len(wanted) else 1.0


def boundaries(features: np.ndarray, rate: float) -> np.ndarray:
    return np.array([shot.start for shot in find_shots(features, rate)[0][1:]], dtype=np.int64)


def measure(
    part: str,
    cases: Sequence[Case],
    score: Callable[[Case, np.ndarray], np.ndarray],
    methods: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray, float], np.ndarray], bool]],
    shares: Sequence[float],
) -> Iterator[dict[str, Any]]:
    """A line for all frames, and one for each method and share."""
    videos = [case.video for case in cases]
    events = {case.video.key: boundaries(case.full, case.rate) for case in cases}

    def scored(spread_features: Mapping[str, np.ndarray]) -> Evaluation:
        scores = {}
        for case in cases:
            raw = score(case, spread_features[case.video.key])
            scores[case.video.key] = scores_at_picks(case.times, raw, case.video)
        return evaluate_scores(scores, videos)

    base = scored({case.video.key: case.full for case in cases})
    whole = _against(base, base, part=part, method="all", share=1.0, encoded_share=1.0)
    yield {**whole, "cosine": 1.0, "events_f": 1.0}
    for share in shares:
        for name, (choose, by_pictures) in methods.items():
            made, cosines, agreements, encoded = {}, [], [], []
            for case in cases:
                picks = choose(case.cheap, case.full, share)
                like = case.cheap if by_pictures else None
                made[case.video.key] = x = spread(case.full[picks], picks, len(case.full), like)
                lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(case.full, axis=1)
                cosines.append(float(((x * case.full).sum(axis=1) / np.maximum(lengths, 1e-12)).mean()))
                agreements.append(event_agreement(boundaries(x, case.rate), events[case.video.key]))
                encoded.append(len(picks) / len(case.full))
            kept = {"part": part, "method": name, "share": share, "encoded_share": round(float(np.mean(encoded)), 4)}
            line = _against(base, scored(made), **kept)
            yield {**line, "cosine": float(np.mean(cosines)), "events_f": float(np.mean(agreements))}


def _against(base: Evaluation, result: Evaluation, **line: Any) -> dict[str, Any]:
    """A line with an evaluation's figures and their differences to all frames'."""
    if not all(math.isfinite(value) for value in (result.tau, result.rho, result.f)):
        raise SystemExit("frame_sampling: a score is not finite")
    line |= {"videos": len(result.per_video), "tau": result.tau, "rho": result.rho, "f": 100 * result.f}
    for name, scale in (("tau", 1.0), ("rho", 1.0), ("f", 100.0)):
        difference = paired_difference(result, base, name)  # type: ignore[arg-type]
        error = 0.0 if result is base else difference.standard_error
        line[f"{name}_difference"] = [scale * difference.mean, scale * error]
    return line


def cost(repeats: int = 3) -> Iterator[dict[str, Any]]:
    """Milliseconds a frame of thumbnails and choice, and of encoders, one thread; untrained weights cost the same.

    The processor's time, not the wall's: other programs on the machine hardly change it.
    """
    import torch
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import BlipVisionConfig, BlipVisionModel

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def timed(call: Callable[[], object], frames: int, times: int) -> dict[str, float]:
        call()
        took = []
        for _ in range(times):
            began = time.thread_time()
            call()
            took.append(1e3 * (time.thread_time() - began) / frames)
        return quantiles(took)

    pictures = {size: rng.integers(0, 256, (64, size, size, 3), dtype=np.uint8) for size in (128, 384)}
    cheap = rng.normal(size=(640, 288)).astype(np.float32)
    model = load("embedded")
    network = BlipVisionModel(BlipVisionConfig(image_size=384)).eval()
    pixels = torch.randn(1, 3, 384, 384)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "thumbnails, 128 x 128": (64, lambda: thumbnail_features(pictures[128])),
        "thumbnails, 384 x 384": (64, lambda: thumbnail_features(pictures[384])),
        "choice": (len(cheap), lambda: stream(cheap, 0.25)),
        "embedded encoder, 128 x 128": (32, lambda: model.encode(pictures[128][:32])),
        "BLIP's ViT-B/16, 384 x 384": (1, lambda: network(pixel_values=pixels)),
    }
    for what, (frames, call) in work.items():
        with torch.inference_mode():
            found = timed(call, frames, repeats)
        yield {"part": "cost", "what": what, "ms_a_frame": found}


def planted(model: Any, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Of the events' seconds and of the events themselves, the share that a summary of a tenth shows, by sampler."""
    shown: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    seen: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            rng = np.random.default_rng(seed)
            kinds = rng.permutation(EVENT_KINDS)
            scenes = [Scene(40.0, (Event(str(kind), float(rng.uniform(4, 33)), 3.0),)) for kind in kinds]
            path = Path(folder) / f"{seed}.mp4"
            truth = make_clip(path, scenes, fps=5, size=(192, 108), seed=seed, audio=False)
            info = probe(path)
            for name in SAMPLERS:
                watched = watch(path, info, model, 1.0, ignore, sampler=name)
                seen[name].append(watched.encoded_share)
                plan = make_plan(watched, parse_budget("10%"), info, 1.0)
                spans = [(clip.start / plan.rate, clip.end / plan.rate) for clip in plan.clips.values()]
                for event in truth.events:
                    inside = sum(max(0.0, min(b, event.end) - max(a, event.start)) for a, b in spans)
                    shown[name].append(inside / (event.end - event.start))
    for name in SAMPLERS:
        line: dict[str, Any] = {"part": "planted", "method": name, "videos": len(seeds), "events": len(shown[name])}
        line |= {"encoded_share": float(np.mean(seen[name])), "seconds_shown": float(np.mean(shown[name]))}
        yield line | {"events_shown": int(sum(share >= 0.5 for share in shown[name]))}


def film_choice() -> dict[str, Any]:
    """What the picture shows: how the film's thumbnails change, and the frames chosen of it by each method."""
    cheap = thumbnail_features(np.stack([frame.image for frame in FrameSampler(FILM, fps=2.0, size=(128, 128))]))
    change = np.linalg.norm(np.diff(cheap, axis=0, prepend=cheap[:1]), axis=1)
    chosen = {
        "uniform": choose_frames(cheap, method="uniform"),
        "top-k": choose_frames(cheap, method="top-k"),
        "coverage": stream(cheap, 0.25),
    }
    return {
        "part": "film",
        "fps": 2.0,
        "change": [round(float(c), 4) for c in change],
        "chosen": {name: picks.tolist() for name, picks in chosen.items()},
    }


def main() -> None:
    given = parser(__doc__, "frame_sampling", shared=True)
    given.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--planted", type=int, default=6, help="drawn videos")
    given.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.25, 0.5])
    given.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    given.add_argument("--plot", type=Path, default=DOCS / "frame_sampling.png")
    options = given.parse_args()
    facts = {"op": "frame_sampling", **machine(("torch", "numpy"))}
    methods = {name: METHODS[name] for name in options.methods}
    model, videos = load("embedded"), load_tvsum(options.shared / "tvsum" / "tvsum.h5")

    def on_tvsum(part: str) -> Iterator[dict[str, Any]]:
        if part == "ridge":
            cases = ridge_cases(options.shared, videos)
            return measure(part, cases, ridge_scorer(cases, options.shared), methods, options.shares)
        cases = embedded_cases(options.shared, videos, model)
        return measure(part, cases, lambda _, x: model.saliency(x), methods, options.shares)

    keep(options.results, facts, [film_choice()])
    for part in options.parts:
        others = {"cost": cost, "planted": lambda: planted(model, range(options.planted))}
        keep(options.results, facts, others[part]() if part in others else on_tvsum(part))
    draw(options.plot, read(options.results))


if __name__ == "__main__":
    main()
