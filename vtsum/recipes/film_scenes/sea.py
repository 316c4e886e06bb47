"""The harbour: sunrise with gulls, and the fireworks at night."""

from __future__ import annotations

import math

import numpy as np

from vtsum.recipes.film_scenes.paint import Color, Painter, ease, mix, noise, rgb, ridge, scrolled

_HORIZON = 0.6
# Seconds of the scene at which rockets go up; each bursts 0.7 s later.
LAUNCHES = (5.5, 6.6, 7.4, 8.4, 9.1, 9.9, 10.6, 11.2, 11.7, 12.1, 12.5, 12.8, 13.2, 13.5, 14.0, 14.3)


def _waves(canvas: Painter, time: float, base: float, color: Color, crest: Color, size: float, speed: float) -> None:
    x = canvas.columns()
    line = base + size * (np.sin(x * 7 / (0.4 + base) + time * speed) + 0.5 * np.sin(x * 13 - time * speed * 1.3 + 1))
    canvas.land(line.astype(np.float32), crest, color, depth=0.05)


def lighthouse(canvas: Painter, time: float, light: float, day: Color) -> None:
    """A striped tower on its rock at the right, its beam turning where `light` (0..1) is on."""
    x, foot = 1.47, 0.52
    rock = 0.62 - 0.1 * np.exp(-(((canvas.columns() - 1.5) / 0.17) ** 2)) - 0.03 * np.sin(canvas.columns() * 41)
    rock = np.where(canvas.columns() > 1.18, rock, 2).astype(np.float32)
    canvas.land(rock, mix(rgb(0x6B5A55), day, 0.35), mix(rgb(0x2A2730), day, 0.15), 0.16)
    top = 0.2
    if light > 0:
        angle = time * 1.1
        reach = math.cos(angle)
        end = x + math.copysign(2.4, reach)
        for part in (1.0, 0.6, 0.3):
            canvas.polygon(
                [(x, top - 0.008), (end, top - 0.3 * part), (end, top + 0.3 * part), (x, top + 0.008)],
                rgb(0xFFF0B8),
                0.075 * light * abs(reach) ** 1.5,
            )
        canvas.glow(x, top, 0.22 + 0.1 * max(0.0, math.sin(angle)), rgb(0xFFDF90), 0.75 * light)
    for band in range(6):
        a, b = band / 6, (band + 1) / 6
        ya, yb = foot + (top + 0.03 - foot) * a, foot + (top + 0.03 - foot) * b
        wa, wb = 0.042 - 0.016 * a, 0.042 - 0.016 * b
        color = mix(rgb(0xC8372D) if band % 2 else rgb(0xF4EEE2), day, 0.3)
        canvas.polygon([(x - wa, ya), (x + wa, ya), (x + wb, yb), (x - wb, yb)], color)
        canvas.polygon([(x + wa * 0.3, ya), (x + wa, ya), (x + wb, yb), (x + wb * 0.3, yb)], (0, 0, 0.06), 0.28)
    canvas.box(x - 0.036, top + 0.02, x + 0.036, top + 0.032, rgb(0x33303A))
    canvas.box(x - 0.02, top - 0.018, x + 0.02, top + 0.02, mix(rgb(0x59606B), rgb(0xFFF3C0), light))
    canvas.polygon([(x - 0.028, top - 0.016), (x, top - 0.05), (x + 0.028, top - 0.016)], mix(rgb(0xA52A26), day, 0.3))
    canvas.polygon(
        [(1.57, 0.53), (1.57, 0.46), (1.62, 0.425), (1.67, 0.46), (1.67, 0.53)], mix(rgb(0xD9C9B4), day, 0.4)
    )
    canvas.polygon([(1.555, 0.465), (1.62, 0.415), (1.685, 0.465)], mix(rgb(0x8C3B2E), day, 0.3))
    canvas.box(1.6, 0.475, 1.622, 0.5, mix(rgb(0x4A5560), rgb(0xFFD070), light))


def _gull(canvas: Painter, x: float, y: float, size: float, beat: float, shade: Color) -> None:
    lift = math.sin(beat)
    tip = -0.45 * lift * size
    for side in (-1, 1):
        mid = (x + side * size * 0.45, y - size * 0.22 - 0.12 * size * lift)
        end = (x + side * size, y + tip * 0.6)
        canvas.polygon([(x, y - size * 0.03), mid, end, (mid[0], mid[1] + size * 0.13), (x, y + size * 0.11)], shade)
        canvas.line(end[0] - side * size * 0.16, end[1] - 0.03 * size, end[0], end[1], size * 0.06, rgb(0x3A3F4A))
    canvas.ellipse(x, y + size * 0.04, size * 0.17, size * 0.1, shade)


def _boat(canvas: Painter, x: float, y: float, size: float, tilt: float, day: Color) -> None:
    def at(dx: float, dy: float) -> tuple[float, float]:
        return x + size * (dx - dy * tilt), y + size * (dy + dx * tilt)

    canvas.polygon([at(-0.5, 0), at(0.55, 0), at(0.38, 0.2), at(-0.4, 0.2)], mix(rgb(0x7A2E22), day, 0.2))
    canvas.polygon([at(-0.5, 0), at(0.55, 0), at(0.52, 0.05), at(-0.48, 0.05)], mix(rgb(0xF1E3C8), day, 0.3))
    canvas.line(*at(0, 0), *at(0, -1.05), size * 0.03, rgb(0x4B3526))
    canvas.polygon([at(0.04, -1.0), at(0.5, -0.1), at(0.04, -0.1)], mix(rgb(0xFFF6E6), day, 0.25))
    canvas.polygon([at(-0.04, -0.95), at(-0.04, -0.1), at(-0.42, -0.1)], mix(rgb(0xE8703A), day, 0.2))
    canvas.polygon([at(0.02, -1.05), at(-0.14, -1.0), at(0.02, -0.97)], rgb(0xD03A34))


class Sunrise:
    """Still night sea, then the sun comes up, a boat sails by and the gulls fly."""

    def __init__(self, canvas: Painter) -> None:
        self._clouds = noise(canvas.width * 2, int(canvas.height * 0.55), (8, 6), 3)
        self._far = ridge(canvas.width * 2, 11, 0.3, 0.59, 0.5)
        rng = np.random.default_rng(5)
        self._gulls = [
            (rng.uniform(0, 1.2), rng.uniform(0.12, 0.46), rng.uniform(0.055, 0.12), rng.uniform(7, 10))
            for _ in range(11)
        ]

    def __call__(self, canvas: Painter, time: float) -> None:
        up = ease(time, 3, 15)
        night = [rgb(0x141B3C), rgb(0x2C2F5E), rgb(0x6B4670), rgb(0xC8746A)]
        day = [rgb(0x3F7FC4), rgb(0x88B6DE), rgb(0xF3C48F), rgb(0xFFE0A6)]
        colors = [mix(a, b, up) for a, b in zip(night, day, strict=True)]
        canvas.sky(list(zip((0.0, 0.25, 0.48, 0.6), colors, strict=True)))
        sun_y = 0.68 - 0.34 * up
        canvas.glow(0.62, sun_y, 0.75, rgb(0xFFA050), 0.45)
        canvas.disc(0.62, sun_y, 0.068, mix(rgb(0xFF9A4A), rgb(0xFFF3C4), up))
        canvas.clouds(self._clouds, time * 0.012, mix(rgb(0x8A5A78), rgb(0xFFF2E4), up), 0.75, 0.52)
        tint = mix(rgb(0x3D3A66), rgb(0xC9A9A0), up)
        canvas.land(self._far[: canvas.width], tint, mix(tint, colors[3], 0.5), 0.12)
        lighthouse(canvas, time, 1 - ease(time, 6, 10), mix(rgb(0x39345C), rgb(0xFFD9A8), up))
        canvas.mirror(_HORIZON, time, mix(rgb(0x10234C), rgb(0x2F78A0), up), 0.62)
        row = int(_HORIZON * canvas.height)
        depth = canvas.y[row:] - _HORIZON
        sparkle = np.sin(canvas.x[row:] * 60 / (0.3 + depth * 3) + 9 * np.sin(depth * 160)) * np.sin(
            depth * 330 - time * 3
        )
        column = np.exp(-(((canvas.x[row:] - 0.62) / (0.05 + depth * 0.6)) ** 2))
        canvas.pixels[row:] += (np.clip(sparkle - 0.35, 0, 1) * column * (0.3 + 0.5 * up))[..., None] * rgb(0xFFD79A)
        sail = ease(time, 8, 9)
        if sail:
            _boat(
                canvas,
                -0.2 + (time - 8) * 0.13,
                0.68 + 0.006 * math.sin(time * 2),
                0.2,
                0.05 * math.sin(time * 1.7),
                colors[2],
            )
        deep = mix(rgb(0x0C1B3D), rgb(0x1F6088), up)
        _waves(canvas, time, 0.8, mix(deep, colors[1], 0.2), mix(deep, rgb(0xFFFFFF), 0.28), 0.008, 1.6)
        _waves(canvas, time, 0.91, deep, mix(deep, rgb(0xFFFFFF), 0.36), 0.012, 2.1)
        for start, y, size, beat in self._gulls:
            x = -0.3 - start + (time - 7.5) * (0.28 + size * 1.6)
            shade = mix(rgb(0x3B3F58), rgb(0xFFFFFF), 0.45 + 0.5 * up)
            if -0.2 < x < 2:
                _gull(canvas, x, y + 0.02 * math.sin(time * 1.5 + start * 9), size, time * beat + start * 20, shade)


class Fireworks:
    """Dusk over the quiet harbour town, the light goes on, then fireworks that the water mirrors."""

    def __init__(self, canvas: Painter) -> None:
        rng = np.random.default_rng(23)
        self._stars = [(rng.uniform(0, 1.78), rng.uniform(0, 0.45), rng.uniform(0.2, 0.9)) for _ in range(55)]
        self._hills = scrolled(ridge(canvas.width * 2, 31, 0.3, 0.58, 0.44), 0.3, canvas.height, canvas.width)
        self._houses = []
        x = 0.05
        while x < 1.15:
            width, height = rng.uniform(0.06, 0.11), rng.uniform(0.06, 0.14)
            lit = [(cx, cy, rng.random()) for cx in (0.28, 0.68) for cy in (0.35, 0.7)]
            self._houses.append((x, width, height, rng.uniform(0, 1), lit))
            x += width * rng.uniform(0.95, 1.25)
        hues = [0xFF5A4A, 0xFFD050, 0x6CD8FF, 0xFF7AD0, 0x8CFF8A, 0xFFFFFF, 0xC08CFF, 0xFFA040]
        self._shells = [
            (
                at,
                rng.uniform(0.2, 1.35),
                rng.uniform(0.1, 0.3),
                rng.uniform(0.2, 0.34),
                rgb(hues[n % 8]),
                rng.uniform(0, 6),
            )
            for n, at in enumerate(LAUNCHES)
        ]

    def __call__(self, canvas: Painter, time: float) -> None:
        dark = ease(time, 0, 5)
        top, low = mix(rgb(0x33406E), rgb(0x090D22), dark), mix(rgb(0xC77F6C), rgb(0x262A54), dark)
        canvas.sky([(0, top), (0.35, mix(top, low, 0.4)), (0.6, low)])
        for x, y, light in self._stars:
            twinkle = light * dark * (0.85 + 0.15 * math.sin(time + x * 40))
            canvas.disc(x, y, 0.0028, rgb(0xFFFFFF), twinkle)
        canvas.glow(0.25, 0.14, 0.2, rgb(0xC8D0FF), 0.3 * dark)
        where = canvas.window(0.2, 0.09, 0.3, 0.19)
        dx, dy = canvas.x[where] - 0.25, canvas.y[where] - 0.14
        crescent = np.maximum(np.hypot(dx, dy) - 0.042, 0.038 - np.hypot(dx - 0.02, dy + 0.012))
        canvas.lay(where, crescent, rgb(0xF6F2DC), 0.4 + 0.6 * dark)
        flash = 0.0
        for launch, x, y, size, color, turn in self._shells:
            flash = max(flash, self._shell(canvas, time - launch, x, y, size, color, turn))
        canvas.land(self._hills, mix(rgb(0x39395E), rgb(0x15172E), dark) + 0.05 * flash, rgb(0x10122A), 0.2)
        self._town(canvas, dark, flash)
        lighthouse(canvas, time, ease(time, 2, 3.2), mix(rgb(0x7A5A66), rgb(0x20233F), dark) + 0.15 * flash)
        canvas.mirror(_HORIZON, time * 0.6, mix(rgb(0x394472), rgb(0x070B1C), dark), 0.6, 0.006)
        deep = mix(rgb(0x263058), rgb(0x060918), dark)
        _waves(canvas, time, 0.93, deep, mix(deep, rgb(0x8EA0D0), 0.3), 0.01, 1.3)
        _boat(canvas, 0.55, 0.8 + 0.005 * math.sin(time * 1.6), 0.17, 0.03 * math.sin(time * 1.3), rgb(0x23284A))
        canvas.glow(0.6, 0.78, 0.07, rgb(0xFFC060), 0.7 * dark)

    def _town(self, canvas: Painter, dark: float, flash: float) -> None:
        for x, width, height, tone, lit in self._houses:
            wall = mix(rgb(0x8A6A66), rgb(0xA79A86), tone) * (0.75 - 0.5 * dark + 0.22 * flash)
            top = 0.61 - height
            canvas.box(x, top, x + width, 0.61, wall)
            roof = mix(rgb(0x6A2F2A), rgb(0x3B3F55), tone) * (0.8 - 0.5 * dark + 0.2 * flash)
            canvas.polygon([(x - 0.008, top), (x + width / 2, top - 0.045), (x + width + 0.008, top)], roof)
            for cx, cy, chance in lit:
                wx, wy = x + width * cx, top + height * cy
                on = chance < 0.25 + 0.5 * dark
                canvas.box(wx, wy - 0.012, wx + 0.016, wy + 0.012, rgb(0xFFCE74) if on else wall * 0.6)

    def _shell(self, canvas: Painter, age: float, x: float, y: float, size: float, color: Color, turn: float) -> float:
        if age < 0 or age > 3:
            return 0.0
        if age < 0.7:  # the rocket climbs
            climb = 1 - (1 - age / 0.7) ** 2
            at = 0.58 + (y - 0.58) * climb
            canvas.line(x + 0.01 * math.sin(age * 30), at + 0.05 * (1 - climb) + 0.01, x, at, 0.006, rgb(0xFFE0A0), 0.8)
            return 0.0
        age -= 0.7
        spread = size * (1 - math.exp(-2.6 * age))
        fade = max(0.0, 1 - age / 1.9) ** 0.8
        canvas.glow(x, y, size * 2, color, 0.55 * math.exp(-2.2 * age))
        for layer, count in ((1.0, 30), (0.6, 16)):
            for spark in range(count):
                angle = turn + (spark + 0.5 * (layer < 1)) / count * 2 * math.pi
                reach = spread * layer * (0.94 + 0.06 * math.sin(spark * 7.3))
                back = reach * (0.45 + 0.35 * min(1.0, age / 1.5))
                sag = 0.09 * age * age
                c, s = math.cos(angle), math.sin(angle)
                hot = mix(color, rgb(0xFFFFFF), 0.75 * math.exp(-2 * age))
                head = (x + reach * c, y + reach * s + sag)
                canvas.line(x + back * c, y + back * s + sag * 0.75, *head, 0.0045, color, fade * 0.55)
                canvas.disc(*head, 0.0068, hot, min(1.0, fade * 1.2))
        return math.exp(-2.5 * age)
