"""What the film's scenes paint with: skies, clouds, hills, water that mirrors, on a Canvas of floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vtsum.recipes.procedural import Canvas, Color


def rgb(code: int) -> np.ndarray:
    """Return a colour 0xRRGGBB as float32 [3], 0..1."""
    return np.array([(code >> 16) & 255, (code >> 8) & 255, code & 255], np.float32) / 255


def mix(a: Color, b: Color, share: float) -> np.ndarray:
    """Return the colour that lies `share` (0..1) of the way from a to b."""
    share = min(1.0, max(0.0, share))
    return np.asarray(a, np.float32) * (1 - share) + np.asarray(b, np.float32) * share


def ease(value: float, start: float, end: float) -> float:
    """Return 0 before start, 1 after end, and a smooth rise between."""
    share = min(1.0, max(0.0, (value - start) / (end - start)))
    return share * share * (3 - 2 * share)


def noise(width: int, height: int, cells: tuple[int, int], seed: int, octaves: int = 4) -> np.ndarray:
    """Return smooth noise [height, width], 0..1, that repeats sideways."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width), np.float32)
    columns, rows = cells
    for octave in range(octaves):
        nx, ny = columns * 2**octave, rows * 2**octave
        grid = rng.random((ny + 2, nx)).astype(np.float32)
        y, x = np.linspace(0, ny, height, endpoint=False), np.linspace(0, nx, width, endpoint=False)
        y0, x0 = y.astype(int), x.astype(int)
        fy, fx = (y - y0)[:, None], (x - x0)[None]
        fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
        x1 = (x0 + 1) % nx
        top = grid[y0][:, x0] * (1 - fx) + grid[y0][:, x1] * fx
        low = grid[y0 + 1][:, x0] * (1 - fx) + grid[y0 + 1][:, x1] * fx
        out += ((top * (1 - fy) + low * fy) * 0.5**octave).astype(np.float32)
    out -= out.min()
    return np.asarray(out / out.max(), np.float32)


class Painter(Canvas):
    """A Canvas with landscapes."""

    def sky(self, stops: Sequence[tuple[float, Color]]) -> None:
        """Fill with a gradient through (height 0..1, colour)."""
        heights = [height for height, _ in stops]
        rows = (np.arange(self.height) + 0.5) / self.height
        colors = np.stack([np.interp(rows, heights, [color[c] for _, color in stops]) for c in range(3)], axis=1)
        self.pixels[:] = colors[:, None].astype(np.float32)

    def clouds(self, texture: np.ndarray, shift: float, color: Color, strength: float, thin: float = 0.5) -> None:
        """Lay a noise texture as clouds, moved left by `shift` heights; lower `thin` gives more of them."""
        rows = texture.shape[0]
        columns = (np.arange(self.width) + shift * self.height) % texture.shape[1]
        left = columns.astype(int)
        part = (columns - left).astype(np.float32)[None]
        moved = texture[:, left] * (1 - part) + texture[:, (left + 1) % texture.shape[1]] * part
        cover = np.clip((moved - thin) / (1 - thin), 0, 1)
        fade = np.clip((1 - np.arange(rows) / rows) * 3, 0, 1)[:, None].astype(np.float32)
        cover = (cover * fade * strength)[..., None]
        self.pixels[:rows] += (np.asarray(color, np.float32) - self.pixels[:rows]) * cover

    def land(self, crest: np.ndarray, top: Color, bottom: Color, depth: float = 0.4) -> np.ndarray:
        """Fill below a crest (y for each column), from `top` at it to `bottom` at `depth` below. Return the cover."""
        below = self.y - crest[None]
        first = max(0, int(crest.min() * self.height) - 2)
        region = slice(first, self.height)
        cover = np.clip(below[region] * self.height + 0.5, 0, 1)[..., None]
        share = np.clip(below[region] / depth, 0, 1)[..., None]
        color = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
        self.pixels[region] += (color - self.pixels[region]) * cover
        return cover

    def columns(self) -> np.ndarray:
        """Return x of each column, [W]."""
        return self.x[0]

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color, alpha: float = 1.0) -> None:
        where = self.window(x - rx, y - ry, x + rx, y + ry)
        unit = np.hypot((self.x[where] - x) / rx, (self.y[where] - y) / ry)
        self.lay(where, (unit - 1) * min(rx, ry), color, alpha)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, color: Color, alpha: float) -> None:
        where = self.window(x - rx - width, y - ry - width, x + rx + width, y + ry + width)
        unit = np.hypot((self.x[where] - x) / rx, (self.y[where] - y) / ry)
        self.lay(where, np.abs(unit - 1) * min(rx, ry) - width, color, alpha)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color, alpha: float = 1.0) -> None:
        where = self.window(left, top, right, bottom)
        dx = np.abs(self.x[where] - (left + right) / 2) - (right - left) / 2
        dy = np.abs(self.y[where] - (top + bottom) / 2) - (bottom - top) / 2
        self.lay(where, np.maximum(dx, dy), color, alpha)

    def shaded(self, where: tuple[slice, slice], distance: np.ndarray, colors: np.ndarray) -> None:
        """Lay colours that differ from pixel to pixel, [h, w, 3], inside a shape."""
        cover = np.clip(0.5 - distance * self.height, 0, 1)[..., None].astype(np.float32)
        region = self.pixels[where]
        region += (colors - region) * cover

    def mirror(self, horizon: float, time: float, tint: Color, strength: float, ripple: float = 0.006) -> None:
        """Fill below the horizon with water that mirrors what lies above, in slow ripples."""
        row = int(horizon * self.height)
        count = self.height - row
        depth = (np.arange(count) + 0.5) / self.height
        wave = np.sin(depth * 260 / (1 + 6 * depth) - time * 2.2) + 0.6 * np.sin(depth * 90 + time * 1.4)
        rows = row - 1 - (depth * 1.25 + ripple * wave * (0.2 + 4 * depth)) * self.height
        spread = depth * 0.05 * self.height  # farther from what it mirrors, water blurs it
        upper = np.mean(
            [
                self.pixels[np.clip(rows + offset * spread, 0, row - 1).astype(int)]
                for offset in (-1.0, -0.5, 0.0, 0.5, 1.0)
            ],
            axis=0,
            dtype=np.float32,
        )
        sway = (np.round(ripple * 1.5 * np.sin(depth * 120 - time * 3) * (0.3 + 5 * depth) * self.height)).astype(int)
        columns = np.clip(np.arange(self.width)[None] + sway[:, None], 0, self.width - 1)
        upper = np.take_along_axis(upper, np.broadcast_to(columns[..., None], upper.shape), axis=1)
        color = np.asarray(tint, np.float32)
        self.pixels[row:] = upper * strength + color * (1 - strength)


def ridge(width: int, seed: int, rough: float, low: float, high: float, cells: int = 3) -> np.ndarray:
    """Return a skyline [width] between the heights low and high, rough 0 (round) to 1 (jagged); it repeats."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, width, endpoint=False)
    line = np.zeros(width)
    for octave in range(6):
        count = cells * 2**octave
        points = rng.random(count)
        if rough > 0.5:
            wave = np.interp(x * count, np.arange(count + 1), np.append(points, points[0]))
        else:
            wave = 0.5 + 0.5 * np.sin(2 * np.pi * (count * x + points[0])) * points[1 % count]
        line += wave * (0.35 + 0.2 * rough) ** octave
    line = (line - line.min()) / (line.max() - line.min())
    return np.asarray(low + (high - low) * (1 - line), np.float32)


def scrolled(line: np.ndarray, shift: float, height: int, width: int) -> np.ndarray:
    """Return the part of a repeating skyline seen when the view has moved right by `shift` heights."""
    at = (np.arange(width) + shift * height) % len(line)
    return np.asarray(np.interp(at, np.arange(len(line) + 1), np.append(line, line[0])), np.float32)


Scene = Callable[[Painter, float], None]
