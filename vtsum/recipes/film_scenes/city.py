"""The city in the rain: an empty street, then a tram and people under umbrellas."""

from __future__ import annotations

import math

import numpy as np

from vtsum.recipes.film_scenes.paint import Painter, mix, rgb

_KERB = 0.8
_LAMPS = (0.22, 0.86, 1.5)


class Rain:
    """Rain on a street in the evening."""

    def __init__(self, canvas: Painter) -> None:
        rng = np.random.default_rng(77)
        self._houses = []
        for depth, (low, high, wide) in enumerate(((0.12, 0.32, 0.16), (0.22, 0.45, 0.24))):
            x = -0.05
            while x < canvas.aspect:
                width, top = rng.uniform(wide * 0.7, wide * 1.2), rng.uniform(low, high)
                self._houses.append((depth, x, width, top, rng.integers(4), int(rng.integers(1 << 30))))
                x += width
        self._drops = rng.random((75, 4))
        self._rings = rng.random((14, 3))
        umbrellas = (0xE8433A, 0xFFC23A, 0x3AA0E8, 0x58C06A, 0xF07AB8, 0xF4F0E8, 0x9A6AE0)
        coats = (0x2F3E5C, 0x6A3A34, 0x3C5A4A, 0x5A4A66, 0x70583A)
        self._people = []
        for number in range(11):
            side = 1 if number % 2 else -1
            self._people.append(
                (
                    6.2 + number * 0.55 + rng.uniform(0, 0.4),
                    side,
                    rng.uniform(0.13, 0.2),
                    rng.uniform(0, 1),
                    rgb(umbrellas[number % 7]),
                    rgb(coats[number % 5]),
                )
            )
        self._people.sort(key=lambda person: person[3])
        self._still = Painter(canvas.width, canvas.height)
        self._paint_street(self._still)

    def _paint_street(self, canvas: Painter) -> None:
        canvas.sky([(0, rgb(0x1E2A44)), (0.4, rgb(0x47587A)), (0.7, rgb(0x7F8AA0))])
        for depth, x, width, top, style, seed in self._houses:
            rng = np.random.default_rng(seed)
            wall = mix(
                (rgb(0x5A4A56), rgb(0x47506A), rgb(0x6A5848), rgb(0x3F4A52))[style], rgb(0x6A7890), 0.55 - 0.45 * depth
            )
            canvas.box(x, top, x + width - 0.004, _KERB, wall)
            canvas.box(x + width * 0.86, top, x + width - 0.004, _KERB, wall * 0.85)
            canvas.box(x - 0.006, top - 0.012, x + width + 0.002, top + 0.006, wall * 0.7)
            columns, rows = max(2, int(width / 0.055)), int((0.66 - top) / 0.075)
            for row in range(rows):
                for column in range(columns):
                    wx, wy = x + (column + 0.28) * width / columns, top + 0.035 + row * 0.075
                    lit = rng.random() < 0.42
                    glow = mix(rgb(0xFFD98A), rgb(0xFFB65A), rng.random())
                    canvas.box(
                        wx, wy, wx + 0.024, wy + 0.036, mix(glow, wall, 0.35 - 0.35 * depth) if lit else wall * 0.6
                    )
            if depth and rng.random() < 0.75:  # a shop with an awning
                left, right = x + 0.02, x + width - 0.03
                canvas.box(left, 0.69, right, _KERB, rgb(0xFFDFA0))
                for item in np.arange(left + 0.02, right - 0.01, 0.035):
                    canvas.box(
                        item, 0.74, item + 0.018, 0.775, rgb(int(rng.choice([0xC8503A, 0x4A78A8, 0x5A9A5A, 0xB88A3A])))
                    )
                color = rgb(int(rng.choice([0xB83A34, 0x2F6A5A, 0x3A4F8A, 0xB8702A])))
                canvas.polygon(
                    [(left - 0.01, 0.705), (left + 0.01, 0.665), (right - 0.01, 0.665), (right + 0.01, 0.705)], color
                )
                for stripe in np.arange(left + 0.01, right - 0.03, 0.05):
                    canvas.polygon(
                        [(stripe, 0.705), (stripe + 0.003, 0.665), (stripe + 0.024, 0.665), (stripe + 0.025, 0.705)],
                        rgb(0xF4EEE0),
                    )
        for x in _LAMPS:
            canvas.box(x - 0.005, 0.42, x + 0.005, _KERB, rgb(0x1C2028))
            canvas.line(x, 0.425, x + 0.04, 0.41, 0.008, rgb(0x1C2028))
            canvas.ellipse(x + 0.045, 0.417, 0.02, 0.011, rgb(0xFFF0C0))
            canvas.glow(x + 0.045, 0.42, 0.24, rgb(0xFFC070), 0.42)
        canvas.box(-0.1, _KERB - 0.012, canvas.aspect + 0.1, _KERB + 0.006, rgb(0x7A7F88))

    def __call__(self, canvas: Painter, time: float) -> None:
        canvas.pixels[:] = self._still.pixels
        self._tram(canvas, time)
        canvas.mirror(_KERB, time * 0.35, rgb(0x26303F), 0.5, 0.003)
        for ring_x, ring_y, phase in self._rings:
            age = (time * 0.9 + phase) % 1
            place = (ring_x + math.floor(time * 0.9 + phase) * 0.618) % 1 * canvas.aspect
            depth = _KERB + 0.02 + ring_y * 0.18
            canvas.ring(place, depth, 0.008 + 0.035 * age, 0.003 + 0.011 * age, 0.0012, rgb(0xB8C4D4), 0.5 * (1 - age))
        for start, side, height, lane, umbrella, coat in self._people:
            gone = (time - start) * (0.2 + 0.05 * lane)
            x = -0.15 + gone if side > 0 else canvas.aspect + 0.15 - gone
            if gone > 0 and -0.2 < x < canvas.aspect + 0.2:
                self._person(
                    canvas,
                    x,
                    0.815 + 0.13 * lane,
                    height * (0.95 + 0.6 * lane),
                    side,
                    time * 6.5 + start * 5,
                    umbrella,
                    coat,
                )
        for x, y, speed, length in self._drops:
            drop_y = (y + time * (1.6 + 0.8 * speed)) % 1.15 - 0.1
            drop_x = (x * 1.2 * canvas.aspect - 0.12 * drop_y * (1 + speed)) % (canvas.aspect + 0.1)
            reach = 0.03 + 0.045 * length
            canvas.line(
                drop_x, drop_y, drop_x - 0.12 * reach, drop_y + reach, 0.0028, rgb(0xC8D4E8), 0.25 + 0.2 * speed
            )

    def _tram(self, canvas: Painter, time: float) -> None:
        left = -1.25 + (time - 8.2) * 0.52
        if not -1.3 < left < canvas.aspect + 0.1:
            return
        right, top, floor = left + 1.05, 0.545, 0.775
        canvas.box(left, top, right, floor, rgb(0xE8B02E))
        canvas.box(left, floor - 0.06, right, floor, rgb(0xB8322C))
        canvas.box(left + 0.02, top - 0.016, right - 0.02, top + 0.008, rgb(0xF2E8D0))
        for window in range(7):
            wx = left + 0.035 + window * 0.145
            canvas.box(wx, top + 0.03, wx + 0.115, top + 0.12, rgb(0xFFF3CC))
            if window % 3 != 1:
                head = wx + 0.04 + 0.02 * (window % 2)
                canvas.disc(head, top + 0.078, 0.019, rgb((0x8A5A44, 0x5A4038, 0xC09070)[window % 3]))
                canvas.ellipse(head, top + 0.122, 0.03, 0.028, rgb((0x3A5A8A, 0x8A3A4A, 0x4A6A4A)[window % 3]))
                canvas.box(wx - 0.01, top + 0.12, wx + 0.125, top + 0.15, rgb(0xE8B02E))
        canvas.line(left + 0.5, top - 0.015, left + 0.56, 0.47, 0.006, rgb(0x20242C))
        canvas.box(-0.1, 0.466, canvas.aspect + 0.1, 0.469, rgb(0x20242C))
        for wheel in (0.14, 0.24, 0.8, 0.9):
            canvas.disc(left + wheel, floor + 0.008, 0.022, rgb(0x22242A))
        canvas.glow(right, floor - 0.04, 0.26, rgb(0xFFF0B8), 0.8)
        canvas.disc(right - 0.005, floor - 0.04, 0.013, rgb(0xFFFCEA))

    def _person(
        self,
        canvas: Painter,
        x: float,
        y: float,
        h: float,
        side: int,
        step: float,
        umbrella: np.ndarray,
        coat: np.ndarray,
    ) -> None:
        swing = math.sin(step) * 0.16 * h
        bob = 0.012 * h * abs(math.cos(step))
        hip = y - 0.42 * h - bob
        canvas.ellipse(x, y + 0.004, 0.17 * h, 0.025 * h, rgb(0x10141C), 0.4)
        for foot in (swing, -swing):
            canvas.line(x, hip, x + foot * 0.6, y - 0.2 * h, 0.07 * h, coat * 0.6)
            canvas.line(x + foot * 0.6, y - 0.2 * h, x + foot, y - 0.01 * h, 0.06 * h, coat * 0.6)
            canvas.line(x + foot, y - 0.01 * h, x + foot + side * 0.05 * h, y - 0.01 * h, 0.045 * h, rgb(0x1A1A20))
        canvas.polygon(
            [
                (x - 0.1 * h, hip - 0.34 * h),
                (x + 0.1 * h, hip - 0.34 * h),
                (x + 0.16 * h, hip + 0.1 * h),
                (x - 0.16 * h, hip + 0.1 * h),
            ],
            coat,
        )
        canvas.disc(x, hip - 0.43 * h, 0.085 * h, rgb(0xE0B090))
        canvas.ellipse(x - side * 0.02 * h, hip - 0.47 * h, 0.09 * h, 0.06 * h, rgb(0x3A2A24))
        hand = (x + side * 0.12 * h, hip - 0.16 * h)
        canvas.line(x + side * 0.05 * h, hip - 0.28 * h, *hand, 0.06 * h, coat * 1.15)
        top, radius = hip - 0.66 * h, 0.42 * h
        cx = x + side * 0.08 * h
        canvas.line(*hand, cx, top - 0.3 * h, 0.02 * h, rgb(0x20202A))
        where = canvas.window(cx - radius, top - radius * 0.75, cx + radius, top + 0.02)
        dx, dy = canvas.x[where] - cx, canvas.y[where] - top
        dome = (np.hypot(dx / radius, dy / (radius * 0.72)) - 1) * radius * 0.72
        hem = dy - 0.035 * h * (np.abs(np.sin(dx / radius * math.pi * 2.5)) - 0.6)
        bend = np.clip(
            dx / np.maximum(radius * np.sqrt(np.clip(1 - (dy / (radius * 0.72)) ** 2, 0.01, 1)), 1e-4), -1, 1
        )
        gore = (np.floor((np.arcsin(bend) / math.pi + 0.5) * 6) % 2)[..., None]
        light = (1.08 - 0.28 * np.clip(0.5 + bend * 0.5, 0, 1))[..., None]
        color = np.clip(umbrella * (0.82 + 0.18 * gore) * light, 0, 1).astype(np.float32)
        canvas.shaded(where, np.maximum(dome, hem), color)
