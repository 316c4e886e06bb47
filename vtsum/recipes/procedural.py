"""Videos drawn by program, with scenes, cuts and planted events whose times are known exactly.

A clip is a list of scenes. Each scene has a dull ground (a gradient with a soft texture and one slow, faint subject)
and may hold events: short lively stretches with large, saturated, fast subjects of one kind. Everything follows from
the seed. Sound is synthesised: a faint hum, and over each event a melody of its own.
"""

from __future__ import annotations

import colorsys
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from vtsum.errors import VTSumError
from vtsum.files import written

EVENT_KINDS = ("balls", "burst", "stripes", "flock", "spinner")
SOUND_RATE = 44100
Color = Sequence[float] | np.ndarray  # red, green, blue, 0..1


@dataclass(frozen=True)
class Event:
    """A lively stretch: `kind` is one of EVENT_KINDS, times in seconds from the start of its scene."""

    kind: str
    start: float
    duration: float


@dataclass(frozen=True)
class Scene:
    """A stretch between two cuts; `fade` seconds of it dissolve from the scene before (0: a hard cut)."""

    duration: float
    events: tuple[Event, ...] = ()
    fade: float = 0.0


@dataclass(frozen=True)
class PlantedEvent:
    """An event of a clip: its kind, and its times in seconds of the clip."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True)
class ClipTruth:
    """What a clip holds. Times in seconds; `cuts` are the scene changes (the middle of a dissolve)."""

    path: Path
    duration: float
    cuts: list[float] = field(default_factory=list)
    events: list[PlantedEvent] = field(default_factory=list)


def five_events(duration: float = 60.0, event: float = 3.0) -> list[Scene]:
    """Return scenes of a mostly dull video with five short lively events, one of each kind, evenly spread.

    Args:
        duration (float): of the video, in seconds. event (float): of each event; five must fit into half of it.
    """
    part = duration / 5
    if event * 2 > part:
        raise VTSumError(f"five_events: event must be at most duration / 10 ({duration / 10:g} s), got {event:g}")
    starts = [(part - event) * share for share in (0.5, 0.7, 0.3, 0.6, 0.4)]
    return [Scene(part, (Event(kind, start, event),)) for kind, start in zip(EVENT_KINDS, starts, strict=True)]


def make_clip(
    path: str | os.PathLike[str],
    scenes: Sequence[Scene],
    *,
    fps: int | Fraction = 25,
    size: tuple[int, int] = (320, 180),
    audio: bool = True,
    seed: int = 0,
    crf: int = 26,
) -> ClipTruth:
    """Draw a clip and write it as an MP4 (H.264, AAC).

    Args:
        path: the file. scenes: in order. fps: frame rate. size: (width, height), even. audio (bool): with sound.
        seed (int): the same seed gives the same clip. crf (int): x264's quality.
    Returns:
        ClipTruth: cuts and events in seconds of the clip.
    Raises:
        VTSumError: there is no scene, a size is odd, or an event does not fit into its scene or is of no known kind.
    """
    _check(scenes, size)
    rate = Fraction(fps)
    truth = _truth(Path(path), scenes)
    sound = _sound(truth, seed) if audio else None
    write_video(path, _frames(scenes, rate, size, seed), rate, size, sound=sound, options={"crf": str(crf)})
    return truth


def write_video(
    path: str | os.PathLike[str],
    frames: Iterator[np.ndarray],
    rate: Fraction,
    size: tuple[int, int],
    *,
    sound: np.ndarray | None = None,
    sound_bit_rate: int = 64_000,
    options: dict[str, str] | None = None,
) -> None:
    """Encode frames (uint8 [H, W, 3]) and mono sound (float32 [n] at SOUND_RATE) as an MP4 with its index in front."""
    import av

    with (
        written(path) as part,
        av.open(os.fspath(part), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.codec_context.options = {"preset": "veryfast", **(options or {})}
        video.codec_context.colorspace = video.codec_context.color_primaries = video.codec_context.color_trc = 1
        video.codec_context.color_range = 1
        voice = None
        if sound is not None:
            voice = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
            voice.codec_context.bit_rate = sound_bit_rate
        sent = 0

        def send_sound(until: int) -> None:
            nonlocal sent
            while voice is not None and sound is not None and sent < min(until, len(sound)):
                piece = np.ascontiguousarray(sound[None, sent : sent + 1024], np.float32)
                block = av.AudioFrame.from_ndarray(piece, "fltp", "mono")
                block.sample_rate, block.pts, block.time_base = SOUND_RATE, sent, Fraction(1, SOUND_RATE)
                sent += piece.shape[1]
                container.mux(voice.encode(block))

        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(video.encode(frame))
            send_sound(int((number + 1) / rate * SOUND_RATE))
        container.mux(video.encode(None))
        if voice is not None and sound is not None:
            send_sound(len(sound))
            container.mux(voice.encode(None))


def _check(scenes: Sequence[Scene], size: tuple[int, int]) -> None:
    if not scenes:
        raise VTSumError("make_clip: scenes must hold at least one Scene, got none")
    if size[0] % 2 or size[1] % 2 or min(size) < 16:
        raise VTSumError(f"make_clip: size must be even and at least 16, got {size}")
    for number, scene in enumerate(scenes):
        if scene.duration <= 0 or not 0 <= scene.fade <= scene.duration:
            raise VTSumError(f"make_clip: scene {number} must last longer than its fade, got {scene}")
        for event in scene.events:
            if event.kind not in EVENT_KINDS:
                raise VTSumError(f"make_clip: kind must be one of {', '.join(EVENT_KINDS)}, got {event.kind!r}")
            if event.start < 0 or event.duration <= 0 or event.start + event.duration > scene.duration:
                raise VTSumError(f"make_clip: event must lie within scene {number}, got {event}")


def _truth(path: Path, scenes: Sequence[Scene]) -> ClipTruth:
    cuts: list[float] = []
    events: list[PlantedEvent] = []
    at = 0.0
    for scene in scenes:
        if at:
            cuts.append(at + scene.fade / 2)
        for event in scene.events:
            events.append(PlantedEvent(event.kind, at + event.start, at + event.start + event.duration))
        at += scene.duration
    return ClipTruth(path, at, cuts, events)


# Painting: colours are floats 0..1, positions are shares of the height, x counted from the left edge.


class Canvas:
    """A float picture [H, W, 3], 0..1, on which antialiased shapes are laid.

    Positions and lengths are in units of the height; y goes down, x runs from 0 to `aspect`.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.aspect = width / height
        self.pixels = np.zeros((height, width, 3), np.float32)
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        self.x = (xs + 0.5) / height
        self.y = (ys + 0.5) / height

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Return the slices (rows, columns) of a rectangle, grown by two pixels and clipped."""
        first_row, last_row = (
            int(np.clip(v, 0, self.height)) for v in (top * self.height - 2, bottom * self.height + 3)
        )
        first, last = (int(np.clip(v, 0, self.width)) for v in (left * self.height - 2, right * self.height + 3))
        return slice(first_row, last_row), slice(first, last)

    def lay(self, where: tuple[slice, slice], distance: np.ndarray, color: Color, alpha: float = 1.0) -> None:
        """Lay a colour where the signed distance (in heights, negative inside) is below zero, edges softened."""
        cover = np.clip(0.5 - distance * self.height, 0, 1)[..., None] * alpha
        region = self.pixels[where]
        region += (np.asarray(color, np.float32) - region) * cover.astype(np.float32)

    def disc(self, x: float, y: float, radius: float, color: Color, alpha: float = 1.0) -> None:
        where = self.window(x - radius, y - radius, x + radius, y + radius)
        self.lay(where, np.hypot(self.x[where] - x, self.y[where] - y) - radius, color, alpha)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, color: Color, alpha: float = 1.0) -> None:
        """A stroke with round ends."""
        half = width / 2
        where = self.window(min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half)
        dx, dy = x1 - x0, y1 - y0
        px, py = self.x[where] - x0, self.y[where] - y0
        along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        self.lay(where, np.hypot(px - along * dx, py - along * dy) - half, color, alpha)

    def polygon(self, points: Sequence[tuple[float, float]], color: Color, alpha: float = 1.0) -> None:
        """A filled polygon, convex or not."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        where = self.window(min(xs), min(ys), max(xs), max(ys))
        px, py = self.x[where], self.y[where]
        if px.size == 0:
            return
        nearest = np.full(px.shape, np.inf, np.float32)
        inside = np.zeros(px.shape, bool)
        for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
            dx, dy = bx - ax, by - ay
            along = np.clip(((px - ax) * dx + (py - ay) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
            np.minimum(nearest, np.hypot(px - ax - along * dx, py - ay - along * dy), out=nearest)
            if ay != by:
                crosses = (py >= min(ay, by)) & (py < max(ay, by))
                inside ^= crosses & (px < ax + (py - ay) * dx / dy)
        self.lay(where, np.where(inside, -nearest, nearest), color, alpha)

    def glow(self, x: float, y: float, radius: float, color: Color, strength: float = 1.0) -> None:
        """Add light that falls off softly."""
        where = self.window(x - radius, y - radius, x + radius, y + radius)
        near = np.clip(1 - np.hypot(self.x[where] - x, self.y[where] - y) / radius, 0, 1)
        self.pixels[where] += (near**2 * strength)[..., None] * np.asarray(color, np.float32)

    def image(self) -> np.ndarray:
        """Return uint8 [H, W, 3]."""
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def _frames(scenes: Sequence[Scene], rate: Fraction, size: tuple[int, int], seed: int) -> Iterator[np.ndarray]:
    grounds = [_Ground(size, seed * 1000 + number) for number in range(len(scenes))]
    canvas = Canvas(*size)
    number, at = 0, 0.0
    total = round(sum(scene.duration for scene in scenes) * rate)
    for index in range(total):
        time = float(index / rate)
        while number + 1 < len(scenes) and time >= at + scenes[number].duration - 1e-9:
            at += scenes[number].duration
            number += 1
        scene, local = scenes[number], time - at
        grounds[number].paint(canvas, local)
        for event in scene.events:
            if event.start <= local < event.start + event.duration:
                paint_event(canvas, event.kind, local - event.start, seed * 7 + number)
        if number and scene.fade and local < scene.fade:
            new = canvas.pixels.copy()
            grounds[number - 1].paint(canvas, scenes[number - 1].duration + local)
            canvas.pixels += (new - canvas.pixels) * np.float32(local / scene.fade)
        yield canvas.image()


class _Ground:
    """A dull scene: a muted gradient, a soft texture, and one faint subject that drifts."""

    def __init__(self, size: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        hue = float(rng.random())
        self._top = np.array(colorsys.hsv_to_rgb(hue, 0.18, 0.35 + 0.25 * rng.random()), np.float32)
        self._bottom = np.array(colorsys.hsv_to_rgb((hue + 0.08) % 1, 0.22, 0.25 + 0.2 * rng.random()), np.float32)
        sines = rng.normal(0, 6, (6, 2))
        phases = rng.random(6) * 2 * math.pi
        canvas = Canvas(*size)
        texture = sum(
            np.sin(canvas.x * wx + canvas.y * wy + phase) for (wx, wy), phase in zip(sines, phases, strict=True)
        )
        base = self._top + (self._bottom - self._top) * canvas.y[..., None]
        self._pixels = (base + 0.02 * np.asarray(texture, np.float32)[..., None]).astype(np.float32)
        self._x, self._y = 0.2 + rng.random() * (canvas.aspect - 0.4), 0.3 + 0.4 * rng.random()
        self._color = np.clip(self._top + 0.06, 0, 1)

    def paint(self, canvas: Canvas, time: float) -> None:
        canvas.pixels[:] = self._pixels
        canvas.disc(self._x + 0.01 * time, self._y, 0.08, self._color)


def paint_event(canvas: Canvas, kind: str, time: float, seed: int) -> None:
    """Paint an event of one of EVENT_KINDS over what is there, as it looks `time` seconds after its start."""
    _PAINTERS[kind](canvas, time, seed)


def _vivid(share: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(share % 1, 0.9, 1.0)


def _balls(canvas: Canvas, time: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(7):
        x, speed, phase = rng.random() * canvas.aspect, 0.5 + rng.random(), rng.random()
        x = abs((x + speed * time) % (2 * canvas.aspect) - canvas.aspect)
        y = 0.85 - 0.7 * abs(math.sin((time * 1.4 + phase) * math.pi))
        canvas.disc(x, y, 0.1, _vivid(number / 7))
        canvas.disc(x - 0.03, y - 0.03, 0.03, (1, 1, 1), 0.7)


def _burst(canvas: Canvas, time: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for shot in range(int(time / 0.8) + 1):
        x, y, hue = rng.random() * canvas.aspect, 0.2 + 0.4 * rng.random(), rng.random()
        age = time - shot * 0.8
        if 0 <= age < 1.2:
            for spark in range(28):
                angle = spark / 28 * 2 * math.pi
                reach = 0.45 * (1 - math.exp(-3 * age))
                sx, sy = x + reach * math.cos(angle), y + reach * math.sin(angle) + 0.15 * age * age
                canvas.disc(sx, sy, 0.035, _vivid(hue), max(0.0, 1 - age / 1.2))


def _stripes(canvas: Canvas, time: float, seed: int) -> None:
    phase = (canvas.x + canvas.y * 0.5) * 9 - time * 6 + seed
    on = (np.sin(phase) > 0)[..., None]
    canvas.pixels[:] = np.where(on, np.array(_vivid(0.14), np.float32), np.array(_vivid(0.62), np.float32))


def _flock(canvas: Canvas, time: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(16):
        x, y, speed = rng.random() * canvas.aspect, 0.1 + 0.7 * rng.random(), 0.5 + 0.5 * rng.random()
        x = (x + speed * time) % (canvas.aspect + 0.2) - 0.1
        flap = 0.05 * math.sin(time * 14 + x * 9)
        for side in (-1, 1):
            canvas.line(x, y, x + side * 0.07, y - 0.03 + flap, 0.022, (1, 1, 1))


def _spinner(canvas: Canvas, time: float, seed: int) -> None:
    x, y = canvas.aspect / 2, 0.5
    for arm in range(6):
        angle = time * 3 + arm * math.pi / 3 + seed
        canvas.line(x, y, x + 0.42 * math.cos(angle), y + 0.42 * math.sin(angle), 0.09, _vivid(arm / 6))
    canvas.disc(x, y, 0.1, (1, 1, 1))


_PAINTERS: dict[str, Callable[[Canvas, float, int], None]] = {
    "balls": _balls,
    "burst": _burst,
    "stripes": _stripes,
    "flock": _flock,
    "spinner": _spinner,
}


def _sound(truth: ClipTruth, seed: int) -> np.ndarray:
    count = round(truth.duration * SOUND_RATE)
    time = np.arange(count) / SOUND_RATE
    rng = np.random.default_rng(seed)
    sound = 0.01 * np.sin(2 * np.pi * 90 * time) + 0.002 * rng.standard_normal(count)
    for event in truth.events:
        first, last = (round(t * SOUND_RATE) for t in (event.start, event.end))
        base = 330 * 2 ** (EVENT_KINDS.index(event.kind) / 5)
        local = np.arange(last - first) / SOUND_RATE
        pitch = base * np.array([1, 1.25, 1.5, 2])[(local * 6).astype(int) % 4]
        sound[first:last] += 0.3 * np.sin(2 * np.pi * pitch * local) * np.minimum(1, 40 * (local % (1 / 6)))
    return sound.astype(np.float32)
