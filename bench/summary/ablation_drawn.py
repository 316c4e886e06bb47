"""The pipeline on drawn videos: planted events, boundaries and speech, with each module off or replaced.

A video is two of `event_segmentation.py`'s lists of scenes, drawn from seeds that nothing was chosen on: some two
minutes, a third of the scenes dissolve, half of the longer ones hold a lively event. Passages are read over it by
espeak-ng, in the first voice of `speech_corpus.py`. Where words are is known from the samples
themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.summary.ablation_variants import DRAWS, Variant, line
from bench.summary.event_segmentation import drawn
from bench.summary.speech_corpus import PASSAGES, RATE, VOICES, narrate
from vtsum.enhance.speech.transcribe import transcribe
from vtsum.enhance.speech.transcript import PAUSE
from vtsum.enhance.summary_refinement import MIN_CLIP, parse_budget, smooth_scores
from vtsum.evaluation.boundaries import match_boundaries
from vtsum.recipes.procedural import ClipTruth, make_clip
from vtsum.summary.planning import Plan, make_plan
from vtsum.summary.progress import ignore
from vtsum.summary.watching import SAMPLERS, SMOOTHING, Watched, watch
from vtsum.video import probe

FIRST_SEED = 1000
FPS, SIZE = 10, (192, 108)
VOICE, SPEED = VOICES[1]
LOUD = 0.005  # of a reading at an RMS of 0.1
EDGE = 0.02  # seconds that a cut may lie within a word
COLUMNS = ("events_shown", "seconds_shown", "boundary_f", "cuts_in_words", "encoded", "budget_used")
Spans = list[tuple[float, float]]
Sentence = tuple[float, float, str]
"""Start and end in seconds, and what is read."""


@dataclass(frozen=True)
class Truth:
    """What was planted, in seconds: boundaries, events, where somebody speaks, and which sentences are read."""

    duration: float
    boundaries: list[float]
    events: Spans
    words: Spans
    sentences: tuple[Sentence, ...] = ()

    @property
    def pauses(self) -> Spans:
        """Where nobody speaks."""
        edges = [0.0, *(t for span in self.words for t in span), self.duration]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def reading(duration: float, seed: int) -> tuple[np.ndarray, tuple[Sentence, ...]]:
    """As many passages as fit, one after the other: float32 [n] at 16 kHz, and their sentences."""
    out, sentences = np.zeros(round(duration * RATE), np.float32), []
    at = 0
    for turn in range(len(PASSAGES)):
        passage = narrate(list(PASSAGES)[(seed + turn) % len(PASSAGES)], voice=VOICE, speed=SPEED, seed=seed)
        if at + len(passage.samples) > duration * RATE:
            break
        out[at : at + len(passage.samples)] = passage.samples
        sentences += [(at / RATE + start, at / RATE + end, text) for start, end, text in passage.sentences]
        at += len(passage.samples)
    return out, tuple(sentences)


def spoken(samples: np.ndarray) -> Spans:
    """Where a clean reading sounds, in seconds; silences of less than PAUSE are part of it, as in a transcript."""
    hop = RATE // 100
    loud = np.abs(samples[: len(samples) // hop * hop]).reshape(-1, hop).max(axis=1) > LOUD
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int)))
    spans: Spans = []
    for first, last in edges.reshape(-1, 2) / 100:
        if spans and first - spans[-1][1] < PAUSE - 1e-9:
            spans[-1] = (spans[-1][0], float(last))
        else:
            spans.append((float(first), float(last)))
    return spans


def draw_video(path: Path, seed: int) -> Truth:
    """Draw a video and read over it."""
    silent = path.with_name("silent.mp4")
    scenes = [*drawn(FIRST_SEED + 2 * seed), *drawn(FIRST_SEED + 2 * seed + 1)]
    made: ClipTruth = make_clip(silent, scenes, fps=FPS, size=SIZE, seed=FIRST_SEED + seed, audio=False)
    samples, sentences = reading(made.duration, seed)
    add_sound(silent, samples, path)
    silent.unlink()
    events = [(event.start, event.end) for event in made.events]
    boundaries = sorted([*made.cuts, *(time for event in events for time in event)])
    return Truth(made.duration, boundaries, events, spoken(samples), sentences)


def add_sound(silent: Path, samples: np.ndarray, path: Path) -> None:
    """Copy a silent video to `path`, with mono sound, float32 [n] at 16 kHz."""
    import av

    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        voice = target.add_stream("aac", rate=RATE, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:  # the last, empty one has none
                packet.stream = video
                target.mux(packet)
        for at in range(0, len(samples), 1024):
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None, at : at + 1024]), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = RATE, at, Fraction(1, RATE)
            target.mux(voice.encode(block))
        target.mux(voice.encode(None))


def shown_spans(plan: Plan) -> Spans:
    """What the summary shows, in seconds; clips that follow each other without a gap are one."""
    spans: list[tuple[int, int]] = []
    for clip in sorted(plan.clips.values(), key=lambda clip: clip.start):
        if spans and clip.start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], clip.end)
        else:
            spans.append((clip.start, clip.end))
    return [(start / plan.rate, end / plan.rate) for start, end in spans]


def cuts_in_words(shown: Spans, truth: Truth) -> float:
    """The share of a summary's cuts that fall into speech; the video's own start and end are no cuts."""
    cuts = [time for span in shown for time in span if EDGE < time < truth.duration - EDGE]
    inside = [any(start + EDGE < time < end - EDGE for start, end in truth.words) for time in cuts]
    return float(np.mean(inside)) if inside else 0.0


def figures(plan: Plan, truth: Truth, encoded: float) -> list[float]:
    """COLUMNS of one video; an event counts as shown from a clip's least length, MIN_CLIP."""
    shown = shown_spans(plan)
    seconds = np.array(
        [sum(max(0.0, min(b, end) - max(a, start)) for a, b in shown) for start, end in truth.events], np.float64
    )
    score, _ = match_boundaries([plan.span(i)[0] for i in range(1, len(plan.shots))], truth.boundaries)
    return [
        float((seconds >= MIN_CLIP - 1e-6).mean()),
        float(seconds.mean()),
        score.f,
        cuts_in_words(shown, truth),
        encoded,
        sum(b - a for a, b in shown) / plan.budget_seconds,
    ]


def measure_one(path: Path, truth: Truth, model: Any, variants: Sequence[Variant]) -> tuple[list[list[float]], bool]:
    """`figures` of each variant, and whether the recogniser understood what was said."""
    info = probe(path)
    seen = {name: watch(path, info, model, 1.0, ignore, sampler=name) for name in SAMPLERS}
    scores = {name: model.boundaries(watched.features) for name, watched in seen.items()}
    said = transcribe(path)
    heard = said.pauses(info.duration) if said.utterances else []
    pauses = {"heard": heard, "known": truth.pauses, "off": []}

    def row(watched: Watched, variant: Variant) -> list[float]:
        more: dict[str, Any] = {"segmenter": variant.segmenter, "refine": variant.refine}
        more |= {"pauses": pauses[variant.speech], "boundary_scores": scores[variant.sampler]}
        plan = make_plan(watched, parse_budget("15%"), info, 1.0, **more)
        return figures(plan, truth, watched.encoded_share)

    rng = np.random.default_rng(0)
    rows = []
    for variant in variants:
        watched = seen[variant.sampler]
        if not variant.smooth:
            watched = replace(watched, saliency=np.clip(model.saliency(watched.features), 0.0, 1.0))
        if variant.random:
            drawn_scores = rng.random((DRAWS, len(watched.saliency))).astype(np.float32)
            smoothed = [smooth_scores(one, "gaussian", SMOOTHING) for one in drawn_scores]
            draws = [row(replace(watched, saliency=one), variant) for one in smoothed]
            rows.append(np.mean(draws, axis=0).tolist())
        else:
            rows.append(row(watched, variant))
    return rows, bool(said.utterances)


def measure_drawn(model: Any, seeds: Sequence[int], variants: Sequence[Variant]) -> Iterator[dict[str, Any]]:
    """A record for each variant, everything on first."""
    rows, events, understood = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds, 1):
            path = Path(folder) / "drawn.mp4"
            truth = draw_video(path, seed)
            events += len(truth.events)
            found, words = measure_one(path, truth, model, variants)
            rows.append(found)
            understood += words
            print(f"drawn: {number} of {len(seeds)} videos, {truth.duration:.0f} s", flush=True)
    all_rows = np.array(rows)  # [videos, variants, columns]
    for k, variant in enumerate(variants):
        record = line("drawn", variant.name, COLUMNS, all_rows[:, k], all_rows[:, 0])
        yield {**record, "events": events, "understood": understood}
