"""One video of the procedural VideoXum corpus: its plan, its pictures, its text and its ten annotators.

A video is a list of scenes, each before a dull scenery (a shade, a colour and a place); one to three of them hold an
event of `vtsum.recipes.procedural`. The text names each event and its scenery in order, so that it can be read off the
pictures. Everything follows from the corpus's seed, the split and the video's number, nothing from other videos.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtsum.data.videoxum import SPLITS
from vtsum.recipes.procedural import EVENT_KINDS, Canvas, paint_event

PICTURE_SIZE = 128  # pixels; what the embedded frame encoder reads
ANNOTATORS = 10
SHADES = {"dark": (1.0, 0.6), "pale": (0.6, 1.3)}  # factors of saturation and value
COLOURS = {  # hue, saturation, value
    "red": (0.0, 0.55, 0.5),
    "orange": (0.075, 0.65, 0.56),
    "yellow": (0.155, 0.5, 0.56),
    "green": (0.34, 0.45, 0.44),
    "blue": (0.6, 0.5, 0.48),
    "purple": (0.77, 0.42, 0.46),
    "pink": (0.92, 0.35, 0.62),
    "grey": (0.0, 0.0, 0.44),
}
PLACES = {  # with the words before and of it
    "sky": ("in", "skies"),
    "field": ("over", "fields"),
    "sea": ("over", "seas"),
    "wall": ("before", "walls"),
    "hill": ("over", "hills"),
    "forest": ("in", "forests"),
    "city": ("before", "cities"),
    "road": ("over", "roads"),
}
PHRASES = {
    "balls": "coloured balls bounce",
    "burst": "bright sparks burst",
    "stripes": "yellow stripes sweep",
    "flock": "white birds fly",
    "spinner": "a wheel turns",
}
OPENINGS = ("", "then ", "and finally ")


@dataclass(frozen=True)
class CorpusParameters:
    """What the videos and annotators of a corpus are like; stored in its manifest.

    Attributes:
        shortest, longest (float): seconds, of a video. events_share (tuple[float, float]): how much of a video its
        events fill, at least and at most; annotators mark about 15 % of a video, as VideoXum's do.
        shortest_event (float): seconds. bias (float): standard deviation of an annotator's own habit to begin and end
        early or late, in shares of an event's length. jitter (float): that of each single begin and end, likewise.
        miss (float): share of events that an annotator passes over. false_marks (float): mean number of stretches of
        2 to 5 s without an event that an annotator marks in a video.
    """

    shortest: float = 40.0
    longest: float = 160.0
    events_share: tuple[float, float] = (0.11, 0.19)
    shortest_event: float = 3.0
    bias: float = 0.1
    jitter: float = 0.12
    miss: float = 0.12
    false_marks: float = 0.5


@dataclass(frozen=True)
class Scenery:
    """What an event happens before; keys of SHADES, COLOURS and PLACES."""

    shade: str
    colour: str
    place: str

    @property
    def words(self) -> str:
        before, plural = PLACES[self.place]
        return f"{before} {self.shade} {self.colour} {plural}"


@dataclass(frozen=True)
class PlannedScene:
    """Times in seconds of the video; `kind` is one of EVENT_KINDS, or None where nothing happens."""

    start: float
    end: float
    scenery: Scenery
    kind: str | None = None
    event: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class VideoPlan:
    """A video before it is drawn."""

    video_id: str
    key: tuple[int, int, int]  # seed, split, number: the source of all chance
    duration: float
    scenes: tuple[PlannedScene, ...]

    @property
    def frames(self) -> int:
        """T, at one frame a second: those at 0, 1, 2, ... seconds that lie before the end."""
        return math.ceil(self.duration)

    @property
    def events(self) -> list[PlannedScene]:
        return [scene for scene in self.scenes if scene.kind is not None]

    @property
    def sentences(self) -> list[str]:
        """One for each event, in order."""
        return [sentence(scene, number) for number, scene in enumerate(self.events)]

    def event_frames(self, number: int) -> list[int]:
        """Indices of the frames that show event `number`."""
        start, end = self.events[number].event
        return list(range(math.ceil(start), min(math.ceil(end), self.frames)))


def sentence(scene: PlannedScene, number: int) -> str:
    """What event `number` of a video is told as."""
    text = f"{OPENINGS[number]}{PHRASES[scene.kind or '']} {scene.scenery.words}."
    return text[0].upper() + text[1:]


def all_sentences() -> list[str]:
    """Every sentence that any corpus can hold: its vocabulary does not depend on its size or seed."""
    sceneries = [Scenery(shade, colour, place) for shade in SHADES for colour in COLOURS for place in PLACES]
    scenes = [PlannedScene(0.0, 1.0, scenery, kind) for scenery in sceneries for kind in EVENT_KINDS]
    return [sentence(scene, number) for scene in scenes for number in range(len(OPENINGS))]


def plan_video(seed: int, split: str, number: int, parameters: CorpusParameters) -> VideoPlan:
    """Plan video `number` of a split."""
    key = (seed, SPLITS.index(split), number)
    rng = np.random.default_rng([*key, 0])
    duration = round(float(rng.uniform(parameters.shortest, parameters.longest)), 2)
    lively = duration * rng.uniform(*parameters.events_share)
    most = int(np.clip(lively // parameters.shortest_event, 1, len(OPENINGS)))
    count = int(rng.integers(1, most + 1))
    lengths = np.maximum(lively * rng.dirichlet(np.full(count, 12.0)), parameters.shortest_event)
    kinds: list[str | None] = [str(kind) for kind in rng.permutation(EVENT_KINDS)[:count]]
    order = [*kinds]
    if rng.random() < 0.5:
        order.insert(int(rng.integers(0, count + 1)), None)
    length_of = dict(zip(kinds, lengths.tolist(), strict=True))
    least = np.array([length_of[kind] + 4.0 if kind else 6.0 for kind in order])
    spare = max(duration - float(least.sum()), 0.0)
    ends = np.cumsum(least + spare * rng.dirichlet(np.full(len(order), 3.0)))
    ends *= duration / ends[-1]
    scenes: list[PlannedScene] = []
    for end, kind in zip(ends.tolist(), order, strict=True):
        start = scenes[-1].end if scenes else 0.0
        scenery = _scenery(rng)
        while scenes and (scenery.colour, scenery.place) == (scenes[-1].scenery.colour, scenes[-1].scenery.place):
            scenery = _scenery(rng)
        event = (0.0, 0.0)
        if kind:
            begin = start + (end - start - length_of[kind]) * rng.uniform(0.15, 0.85)
            event = (round(begin, 2), round(begin + length_of[kind], 2))
        scenes.append(PlannedScene(start, end, scenery, kind, event))
    return VideoPlan(f"v_{split}_{number:05d}", key, duration, tuple(scenes))


def _scenery(rng: np.random.Generator) -> Scenery:
    return Scenery(*(str(rng.choice(list(names))) for names in (SHADES, COLOURS, PLACES)))


def annotation(plan: VideoPlan, parameters: CorpusParameters) -> dict[str, Any]:
    """The video's entry in the annotation file, with VideoXum's fields.

    `vsum` holds, for each event and annotator, the stretch marked in seconds; it is empty (begin = end) where the
    annotator passed over the event. `vsum_onehot` holds the false marks too.
    """
    rng = np.random.default_rng([*plan.key, 1])
    marks = np.zeros((ANNOTATORS, plan.frames), int)
    habits = rng.normal(0, parameters.bias, (ANNOTATORS, 2))
    told: list[list[list[float]]] = []
    stamps: list[list[float]] = []
    for scene in plan.events:
        start, end = scene.event
        length = end - start
        spans = []
        for annotator in range(ANNOTATORS):
            begin, stop = np.array(scene.event) + length * (habits[annotator] + rng.normal(0, parameters.jitter, 2))
            begin, stop = float(np.clip(begin, 0, plan.duration)), float(np.clip(stop, 0, plan.duration))
            if rng.random() < parameters.miss or stop <= begin:
                begin = stop = start
            marks[annotator, math.ceil(begin) : math.ceil(stop)] = 1
            spans.append([round(begin, 2), round(stop, 2)])
        told.append(spans)
        around = rng.uniform(0.5, 3.0, 2).tolist()
        stamps.append([round(max(scene.start, start - around[0]), 2), round(min(scene.end, end + around[1]), 2)])
    for annotator in range(ANNOTATORS):
        for _ in range(rng.poisson(parameters.false_marks)):
            length = rng.uniform(2.0, 5.0)
            begin = rng.uniform(0, max(plan.duration - length, 0.0))
            marks[annotator, math.ceil(begin) : math.ceil(begin + length)] = 1
    return {
        "video_id": plan.video_id,
        "duration": plan.duration,
        "sampled_frames": plan.frames,
        "timestamps": stamps,
        "tsum": plan.sentences,
        "vsum": told,
        "vsum_onehot": marks.tolist(),
    }


class Artist:
    """Draws the frames of a planned video, uint8 [H, W, 3] RGB, at any time and size."""

    def __init__(self, plan: VideoPlan, size: tuple[int, int] = (PICTURE_SIZE, PICTURE_SIZE)) -> None:
        """size: (width, height) in pixels."""
        self.plan = plan
        self._canvas = Canvas(*size)
        self._grounds = [
            _paint_scenery(Canvas(*size), scene.scenery, np.random.default_rng([*plan.key, 2, number]))
            for number, scene in enumerate(plan.scenes)
        ]

    def draw(self, time: float) -> np.ndarray:
        """The picture at `time` seconds."""
        scenes = self.plan.scenes
        number = next((n for n, scene in enumerate(scenes) if time < scene.end), len(scenes) - 1)
        scene, canvas = scenes[number], self._canvas
        ground = self._grounds[number]
        canvas.pixels[:] = ground
        # A faint subject drifts, so that no scene stands quite still.
        canvas.disc(0.2 + 0.01 * (time - scene.start) % canvas.aspect, 0.35, 0.07, (1, 1, 1), 0.12)
        if scene.kind is not None and scene.event[0] <= time < scene.event[1]:
            paint_event(canvas, scene.kind, time - scene.event[0], sum(self.plan.key) * 7 + number)
            if scene.kind == "stripes":  # which fill the picture: leave something of the scenery to be seen
                rows = canvas.height // 4
                canvas.pixels[:rows] = ground[:rows]
        return canvas.image()


def _paint_scenery(canvas: Canvas, scenery: Scenery, rng: np.random.Generator) -> np.ndarray:
    """float32 [H, W, 3], 0..1."""
    hue, saturation, value = COLOURS[scenery.colour]
    more, light = SHADES[scenery.shade]
    hue = (hue + rng.uniform(-0.015, 0.015)) % 1
    value *= light * rng.uniform(0.93, 1.07)
    top = np.array(colorsys.hsv_to_rgb(hue, saturation * more, value), np.float32)
    base = top * (1.08 - 0.2 * canvas.y[..., None])
    low = top * 0.72
    x, y, phase = canvas.x, canvas.y, rng.uniform(0, 2 * math.pi)
    canvas.pixels[:] = base
    if scenery.place == "sky":
        for _ in range(6):
            cx, cy = rng.uniform(0, canvas.aspect), rng.uniform(0.1, 0.9)
            for step in (-0.12, 0.0, 0.12):
                canvas.disc(cx + step, cy + abs(step) / 3, 0.1, top * 1.25, 0.35)
    elif scenery.place == "field":
        furrows = 0.8 + 0.12 * np.sin((x - canvas.aspect / 2) / (y - 0.35).clip(0.05) * 9 + phase)
        canvas.pixels[:] = np.where((y > 0.45)[..., None], low * furrows[..., None] * 1.1, base)
    elif scenery.place == "sea":
        canvas.pixels[:] = base * (1 + 0.16 * np.sin(y * 70 + 2 * np.sin(x * 5 + phase)))[..., None]
    elif scenery.place == "wall":
        row = np.floor(y / 0.14)
        joint = ((y % 0.14) < 0.016) | (((x + 0.14 * (row % 2) + phase) % 0.28) < 0.016)
        canvas.pixels[:] = np.where(joint[..., None], low, base)
    elif scenery.place == "hill":
        for cx in (rng.uniform(0, 0.4), rng.uniform(0.6, 1.0)):
            canvas.disc(cx * canvas.aspect, 1.25, 0.72, low * rng.uniform(0.85, 1.0))
    elif scenery.place == "forest":
        for number in range(9):
            cx = (number + rng.uniform(0.2, 0.8)) / 9 * canvas.aspect
            canvas.line(cx, -0.1, cx + rng.uniform(-0.03, 0.03), 1.1, 0.035, low * 0.85)
    elif scenery.place == "city":
        for number in range(6):
            left, height = number / 6 * canvas.aspect, rng.uniform(0.3, 0.65)
            right = left + canvas.aspect / 6 - 0.02
            corners = [(left, 1.1), (left, 1 - height), (right, 1 - height), (right, 1.1)]
            canvas.polygon(corners, low * rng.uniform(0.8, 1.0))
    elif scenery.place == "road":
        middle = canvas.aspect / 2 + rng.uniform(-0.1, 0.1)
        canvas.polygon([(middle - 0.03, 0.4), (middle + 0.03, 0.4), (middle + 0.45, 1.1), (middle - 0.45, 1.1)], low)
        canvas.line(middle, 0.45, middle, 1.0, 0.02, top * 1.3)
    noise = rng.normal(0, 0.012, (*canvas.pixels.shape[:2], 1)).astype(np.float32)
    return (canvas.pixels + noise).astype(np.float32)
