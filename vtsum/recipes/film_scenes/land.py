"""The country: a train over the hills, mist on a lake, balloons before the mountains."""

from __future__ import annotations

import math

import numpy as np

from vtsum.recipes.film_scenes.paint import Painter, ease, mix, noise, rgb, ridge, scrolled


def _tree(canvas: Painter, x: float, y: float, size: float, shade: float) -> None:
    canvas.line(x, y, x, y - size * 0.5, size * 0.12, rgb(0x5A4028))
    dark, light = mix(rgb(0x2E6B38), rgb(0x8FAF4A), shade), mix(rgb(0x5FA04A), rgb(0xC0D468), shade)
    for dx, dy, r in ((-0.22, -0.6, 0.3), (0.22, -0.6, 0.3), (0, -0.85, 0.36)):
        canvas.disc(x + dx * size, y + dy * size, r * size, dark)
    for dx, dy, r in ((-0.28, -0.68, 0.18), (-0.06, -0.98, 0.22)):
        canvas.disc(x + dx * size, y + dy * size, r * size, light)


class Train:
    """Empty hills with sheep and a windmill, until the train comes over the viaduct."""

    def __init__(self, canvas: Painter) -> None:
        self._clouds = noise(canvas.width * 2, int(canvas.height * 0.5), (8, 6), 8)
        width, height = canvas.width, canvas.height
        self._ground = Painter(width, height)
        self._crests = [
            ridge(width * 2, 41, 0.3, 0.52, 0.36)[:width],
            ridge(width * 2, 42, 0.2, 0.62, 0.47)[:width],
            ridge(width * 2, 47, 0.1, 0.95, 0.84)[:width],
        ]
        rng = np.random.default_rng(4)
        self._trees = sorted((rng.uniform(0.55, 0.6), rng.uniform(0, 1.78), rng.uniform(0.05, 0.08)) for _ in range(16))

    def __call__(self, canvas: Painter, time: float) -> None:
        canvas.sky([(0, rgb(0x4E9BD8)), (0.4, rgb(0xBFE0F0)), (0.55, rgb(0xF2F1DC))])
        canvas.glow(1.45, 0.12, 0.5, rgb(0xFFE890), 0.28)
        canvas.disc(1.45, 0.12, 0.05, rgb(0xFFF8DC))
        canvas.clouds(self._clouds, time * 0.02, rgb(0xFFFFFF), 0.9, 0.5)
        canvas.land(self._crests[0], rgb(0x9DBFA8), rgb(0xBDD8B0), 0.2)
        cover = canvas.land(self._crests[1], rgb(0x86B860), rgb(0x5E9A48), 0.3)
        rows = canvas.height - cover.shape[0]
        furrows = np.sin((canvas.x[rows:] * 0.5 + canvas.y[rows:] * 2.6) * 46) > 0.2
        field = (canvas.x[rows:] > 0.9) & (canvas.y[rows:] < 0.8)
        canvas.pixels[rows:] += ((furrows & field)[..., None] * cover) * np.array([0.05, 0.035, -0.02], np.float32)
        self._windmill(canvas, 0.28, 0.5, time)
        for y, x, size in self._trees:
            _tree(canvas, x, y + 0.02, size, (x * 7) % 1 * 0.5)
        self._viaduct(canvas)
        self._train(canvas, time)
        canvas.land(self._crests[2], rgb(0x7FB244), rgb(0x3E7A30), 0.16)
        for number, (x, y) in enumerate(((0.3, 0.93), (0.48, 0.955), (1.42, 0.93))):
            self._sheep(canvas, x + 0.02 * math.sin(time * 0.4 + number), y, time + number * 1.7)
        _tree(canvas, 1.66, 0.99, 0.34, 0.15)

    def _windmill(self, canvas: Painter, x: float, y: float, time: float) -> None:
        canvas.polygon([(x - 0.035, y), (x + 0.035, y), (x + 0.022, y - 0.13), (x - 0.022, y - 0.13)], rgb(0xF2EADA))
        canvas.polygon([(x + 0.008, y), (x + 0.035, y), (x + 0.022, y - 0.13), (x + 0.005, y - 0.13)], rgb(0xCFC3B0))
        canvas.polygon([(x - 0.028, y - 0.128), (x, y - 0.165), (x + 0.028, y - 0.128)], rgb(0x8C4A36))
        for blade in range(4):
            angle = time * 0.9 + blade * math.pi / 2
            c, s = math.cos(angle), math.sin(angle)
            px, py = x + 0.1 * c, y - 0.135 + 0.1 * s
            canvas.line(x, y - 0.135, px, py, 0.006, rgb(0x5A4632))
            canvas.polygon(
                [
                    (x + 0.03 * c, y - 0.135 + 0.03 * s),
                    (px, py),
                    (px - 0.022 * s, py + 0.022 * c),
                    (x + 0.03 * c - 0.022 * s, y - 0.135 + 0.03 * s + 0.022 * c),
                ],
                rgb(0xFFFBF0),
                0.95,
            )

    def _viaduct(self, canvas: Painter) -> None:
        deck, foot, span = 0.66, 0.95, 0.178
        where = canvas.window(0, deck, canvas.aspect, foot)
        across = (canvas.x[where] % span) - span / 2
        arch = span * 0.37
        rise = np.sqrt(np.clip(arch**2 - across**2, 0, None))
        open_below = (np.abs(across) < arch) & (canvas.y[where] > deck + 0.045 + arch - rise)
        stone = rgb(0xB9A48C) * (1 - 0.06 * (np.sin(canvas.y[where] * 190) > 0.6))[..., None]
        stone = stone * np.where(across > span * 0.42, 0.86, 1.0)[..., None].astype(np.float32)
        canvas.shaded(where, np.where(open_below, 1.0, -1.0), stone.astype(np.float32))
        canvas.box(-0.1, deck - 0.018, canvas.aspect + 0.1, deck + 0.008, rgb(0xD3C2A8))
        canvas.box(-0.1, deck + 0.008, canvas.aspect + 0.1, deck + 0.015, rgb(0x8F7C66))

    def _train(self, canvas: Painter, time: float) -> None:
        front = 2.35 - (time - 5.5) * 0.42  # the front end; it drives to the left
        rail = 0.642
        if front > 1.9 or front < -1.5:
            return
        for puff in range(16):  # smoke hangs where it was let out
            born = time - puff * 0.22 - (time % 0.22)
            age = time - born
            x = 2.35 - (born - 5.5) * 0.42 + 0.055
            grey = 0.97 - 0.1 * (puff % 3)
            canvas.disc(
                x + 0.05 * age,
                rail - 0.165 - 0.07 * age**0.8,
                0.016 + 0.028 * age**0.7,
                (grey, grey, grey),
                max(0.0, 0.75 - age * 0.2),
            )
        for car, color in enumerate((0xC8402F, 0x2F6FB0, 0xE0A83A, 0x3B8A5A)):
            left = front + 0.3 + car * 0.25
            canvas.box(left - 0.02, rail - 0.028, left + 0.24, rail - 0.02, rgb(0x33302E))
            canvas.box(left, rail - 0.12, left + 0.23, rail - 0.022, rgb(color))
            canvas.box(left, rail - 0.05, left + 0.23, rail - 0.022, rgb(color) * 0.75)
            canvas.box(left - 0.008, rail - 0.132, left + 0.238, rail - 0.118, rgb(0x4A4642))
            for window in range(4):
                wx = left + 0.018 + window * 0.053
                canvas.box(wx, rail - 0.105, wx + 0.036, rail - 0.065, rgb(0xFFF2C4))
                canvas.disc(wx + 0.018, rail - 0.073, 0.011, rgb((0x6A4636, 0x2E3A58, 0x7A3A4A)[(window + car) % 3]))
            for wheel in (0.045, 0.185):
                self._wheel(canvas, left + wheel, rail - 0.018, 0.019, -time * 9)
        self._engine(canvas, front, rail, time)

    def _engine(self, canvas: Painter, x: float, rail: float, time: float) -> None:
        green = rgb(0x1F5B45)
        canvas.box(x + 0.02, rail - 0.035, x + 0.27, rail - 0.022, rgb(0xA82F2A))
        canvas.box(x + 0.03, rail - 0.098, x + 0.19, rail - 0.034, green)
        canvas.box(x + 0.03, rail - 0.092, x + 0.19, rail - 0.078, mix(green, rgb(0xFFFFFF), 0.35))
        canvas.disc(x + 0.032, rail - 0.066, 0.032, rgb(0x28332E))
        for band in (0.08, 0.13):
            canvas.box(x + band, rail - 0.099, x + band + 0.006, rail - 0.034, rgb(0xE0B84A))
        canvas.box(x + 0.045, rail - 0.15, x + 0.068, rail - 0.097, rgb(0x28332E))
        canvas.box(x + 0.039, rail - 0.16, x + 0.074, rail - 0.148, rgb(0xE0B84A))
        canvas.ellipse(x + 0.115, rail - 0.1, 0.018, 0.018, rgb(0xE0B84A))
        canvas.box(x + 0.185, rail - 0.15, x + 0.265, rail - 0.034, green)
        canvas.box(x + 0.2, rail - 0.135, x + 0.245, rail - 0.1, rgb(0xFFF2C4))
        canvas.box(x + 0.175, rail - 0.162, x + 0.275, rail - 0.149, rgb(0xA82F2A))
        canvas.polygon([(x + 0.03, rail - 0.035), (x + 0.03, rail - 0.008), (x - 0.01, rail - 0.008)], rgb(0xA82F2A))
        canvas.glow(x + 0.01, rail - 0.075, 0.06, rgb(0xFFF0B0), 0.7)
        for wheel in (0.07, 0.13, 0.22):
            self._wheel(canvas, x + wheel, rail - 0.02, 0.026, -time * 8)
        c, s = math.cos(-time * 8) * 0.014, math.sin(-time * 8) * 0.014
        canvas.line(x + 0.07 + c, rail - 0.02 + s, x + 0.22 + c, rail - 0.02 + s, 0.008, rgb(0xD8D8D8))

    def _wheel(self, canvas: Painter, x: float, y: float, radius: float, angle: float) -> None:
        canvas.disc(x, y, radius, rgb(0x26242A))
        canvas.disc(x, y, radius * 0.75, rgb(0xB8423A))
        for spoke in range(3):
            c, s = math.cos(angle + spoke * math.pi / 3), math.sin(angle + spoke * math.pi / 3)
            canvas.line(
                x - c * radius * 0.8,
                y - s * radius * 0.8,
                x + c * radius * 0.8,
                y + s * radius * 0.8,
                radius * 0.16,
                rgb(0x26242A),
            )

    def _sheep(self, canvas: Painter, x: float, y: float, time: float) -> None:
        dip = 0.012 * max(0.0, math.sin(time * 0.9))
        for leg in (-0.022, -0.01, 0.014, 0.026):
            canvas.line(x + leg, y, x + leg, y + 0.035, 0.007, rgb(0x2E2A2A))
        for dx, dy, r in ((-0.025, 0, 0.022), (0, -0.008, 0.027), (0.025, 0, 0.022), (0, 0.008, 0.024)):
            canvas.disc(x + dx, y + dy, r, rgb(0xF4F0E6))
        canvas.disc(x - 0.05, y - 0.006 + dip, 0.013, rgb(0x3A3434))


class Mist:
    """A lake in the mist where nothing happens."""

    def __init__(self, canvas: Painter) -> None:
        self._hills = ridge(canvas.width * 2, 61, 0.3, 0.5, 0.4)[: canvas.width]
        self._mist = noise(canvas.width * 2, canvas.height, (4, 3), 9, 3)

    def __call__(self, canvas: Painter, time: float) -> None:
        canvas.sky([(0, rgb(0xA9B2B6)), (0.5, rgb(0xC3C8C6))])
        canvas.land(self._hills, rgb(0x9AA5A8), rgb(0xB4BBBB), 0.1)
        canvas.mirror(0.53, time * 0.3, rgb(0xA6B0B2), 0.5, 0.003)
        canvas.clouds(self._mist, time * 0.01, rgb(0xC6CBCA), 0.7, 0.2)
        for number in range(9):
            x = 0.12 + number * 0.021 + 0.007 * (number % 3)
            tip = 0.62 + 0.03 * (number % 4)
            canvas.line(x, 1.0, x + 0.02 + 0.004 * math.sin(time * 0.6 + number), tip, 0.005, rgb(0x7D8579))
        canvas.box(1.1, 0.75, 1.5, 0.765, rgb(0x858A86))
        for post in (1.14, 1.28, 1.42):
            canvas.box(post, 0.75, post + 0.012, 0.86, rgb(0x7E8380))


class Balloons:
    """Snow mountains in the afternoon; one balloon after the other rises before them."""

    def __init__(self, canvas: Painter) -> None:
        width = canvas.width
        self._far = ((0.1, 0.3, 0.42), (0.62, 0.2, 0.5), (1.15, 0.27, 0.44), (1.62, 0.17, 0.5), (2.1, 0.3, 0.4))
        self._near = ((0.32, 0.4, 0.42), (0.92, 0.33, 0.52), (1.42, 0.43, 0.4), (1.9, 0.36, 0.46))
        self._forest = ridge(width * 2, 78, 0.2, 0.86, 0.74, 4)
        self._clouds = noise(width * 2, int(canvas.height * 0.5), (8, 7), 21)
        rng = np.random.default_rng(12)
        self._pines = sorted((rng.uniform(0, 3.5), rng.uniform(0.08, 0.14)) for _ in range(60))
        self._balloons = [
            (0.5, 4.0, 0.115, (0xD83A34, 0xFFD84A), 1.00),
            (1.22, 5.3, 0.15, (0x2F6FD0, 0xFFFFFF), 1.0),
            (0.95, 6.6, 0.07, (0xF08A30, 0x7A2E8A), 0.75),
            (1.55, 7.4, 0.085, (0x35A060, 0xFFE890), 0.85),
            (0.2, 8.2, 0.095, (0xE85A9A, 0xFFF4D0), 0.9),
            (0.78, 9.4, 0.05, (0x30B0C0, 0xFFFFFF), 0.6),
        ]

    def __call__(self, canvas: Painter, time: float) -> None:
        pan = time * 0.012
        canvas.sky([(0, rgb(0x2F6FB8)), (0.35, rgb(0x8EC2E6)), (0.62, rgb(0xF6E2C8))])
        canvas.clouds(self._clouds, pan * 0.5 + time * 0.008, rgb(0xFFFFFF), 0.8, 0.55)
        canvas.glow(1.3, 0.6, 0.9, rgb(0xFFD8A0), 0.22)
        for peaks, pace, haze in ((self._far, 0.4, 0.55), (self._near, 0.8, 0.12)):
            for number, (x, top, wide) in enumerate(peaks):
                self._peak(canvas, x - pan * pace, top, wide, haze, number + int(haze * 40))
            first = int(0.45 * canvas.height)
            veil = np.clip((canvas.y[first:] - 0.5) * 1.7, 0, 0.7)[..., None]
            canvas.pixels[first:] += (rgb(0xD5DFE6) - canvas.pixels[first:]) * veil
        for x, start, size, colors, pace in sorted(self._balloons, key=lambda b: b[2]):
            y = 1.1 - (time - start) * 0.105 * pace
            if time > start - 2 and y > -0.3:
                self._balloon(
                    canvas, x + 0.03 * math.sin(time * 0.5 + x * 9) - pan * pace, y, size, colors, time + x * 5
                )
        canvas.land(scrolled(self._forest, pan * 2, canvas.height, canvas.width), rgb(0x3D7048), rgb(0x1F4630), 0.14)
        for x, size in self._pines:
            px = x - pan * 2
            if -0.1 < px < canvas.aspect + 0.1:
                base = 0.93 + 0.05 * ((x * 7.7) % 1)
                for tier in range(3):
                    top, wide = base - size * (1.6 - tier * 0.42), size * (0.2 + 0.1 * tier)
                    shade = mix(rgb(0x17402E), rgb(0x2E6A44), (x * 3.3) % 1)
                    canvas.polygon([(px, top), (px + wide, top + size * 0.62), (px - wide, top + size * 0.62)], shade)

    def _peak(self, canvas: Painter, x: float, top: float, wide: float, haze: float, seed: int) -> None:
        """A mountain lit from the left: two faces, ribs on each, snow with a jagged edge."""
        rng = np.random.default_rng(seed)
        base, steps = 1.0, 9
        share = np.linspace(0, 1, steps)
        rough = rng.uniform(-0.02, 0.02, (3, steps)) * np.minimum(1, share * 3 + 0.15)
        down = top + (base - top) * share
        left = [(x - wide * s * 1.25 + r, y) for s, y, r in zip(share, down, rough[0], strict=True)]
        right = [(x + wide * s * 1.25 + r, y) for s, y, r in zip(share, down, rough[1], strict=True)]
        middle = [
            (x + wide * 0.2 * s + (0.04 if n % 2 else -0.03) * min(1, s * 4), y)
            for n, (s, y) in enumerate(zip(share, down, strict=True))
        ]
        air = rgb(0xC4D4E6)
        lit, dark = mix(rgb(0x8C8FA2), air, haze), mix(rgb(0x545D7C), air, haze)
        canvas.polygon([*left, *middle[::-1]], lit)
        canvas.polygon([*middle, *right[::-1]], dark)
        for side, edge, color in ((0, left, dark), (1, right, lit)):  # ribs: spurs that catch or lose the light
            for at in (2, 3, 4):
                (ex, _ey), (mx, my) = edge[at], middle[at]
                bx, by = mx + (ex - mx) * rng.uniform(0.35, 0.6), my + rng.uniform(0, 0.03)
                canvas.polygon([(bx, by), (bx + 0.025, by + 0.17), (bx - 0.05, by + 0.19)], color, 0.5 - 0.2 * side)
        snow = 0.3 * (base - top) / 0.7
        white, blue = mix(rgb(0xFFFFFF), air, haze * 0.5), mix(rgb(0xA9BEE2), air, haze * 0.6)
        for sign, color in ((-1, white), (1, blue)):
            border = []
            for n in range(7):
                part = n / 6
                low = top + snow * (0.75 + (0.38 if n % 2 else -0.1) + rng.uniform(-0.12, 0.12)) * (1 - 0.15 * part)
                reach = (low - top) / (base - top) * wide * 1.25
                border.append((x + sign * reach * part * 0.98 + wide * 0.03 * (1 - part), low if n < 6 else low - 0.02))
            inner = [p for p in middle if p[1] < border[0][1]]
            outer = [p for p in (left if sign < 0 else right) if p[1] < border[-1][1]]
            canvas.polygon([*inner, *border, *outer[::-1]], color)

    def _balloon(self, canvas: Painter, x: float, y: float, r: float, colors: tuple[int, int], time: float) -> None:
        where = canvas.window(x - r, y - r, x + r, y + 1.6 * r)
        dx, dy = canvas.x[where] - x, canvas.y[where] - y
        width = np.where(
            dy < 0,
            np.sqrt(np.clip(r * r - dy * dy, 1e-9, None)),
            r * (1 - 0.78 * np.clip(dy / (1.35 * r), 0, 1) ** 1.5),
        )
        distance = np.where(dy < 0, np.hypot(dx, dy) - r, np.maximum(np.abs(dx) - width, dy - 1.35 * r))
        across = np.clip(dx / np.maximum(width, 1e-4), -1, 1)
        stripe = (np.floor((np.arcsin(across) / math.pi + 0.5) * 8) % 2)[..., None]
        color = rgb(colors[0]) * (1 - stripe) + rgb(colors[1]) * stripe
        light = (1.08 - 0.5 * np.clip(across * 0.8 + dy / r * 0.25 + 0.1, 0, 1) - 0.15 * (across < -0.8))[..., None]
        band = (np.abs(dy - 0.18 * r) < 0.07 * r)[..., None]
        color = np.where(band, rgb(0xFFFFFF) * 0.95, color)
        canvas.shaded(where, distance, np.clip(color * light, 0, 1).astype(np.float32))
        low, basket = y + 1.35 * r, y + 1.85 * r
        for side in (-1, 1):
            canvas.line(x + side * 0.2 * r, low, x + side * 0.15 * r, basket, 0.003, rgb(0x5A4632))
        canvas.box(x - 0.18 * r, basket, x + 0.18 * r, basket + 0.26 * r, rgb(0x8A5A30))
        canvas.box(x - 0.2 * r, basket, x + 0.2 * r, basket + 0.06 * r, rgb(0x5E3C20))
        if math.sin(time * 1.7) > 0.3:
            canvas.glow(x, low + 0.12 * r, 0.7 * r, rgb(0xFFB040), 0.8 * ease(math.sin(time * 1.7), 0.3, 0.6))
