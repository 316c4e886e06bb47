"""Writing over a film's pictures: a title card, and a lower third on its bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vtsum.recipes.film_scenes.paint import Painter, ease, rgb

_FADE = 0.4  # seconds
_LETTERS = {"title": (0.125, 0.07), "lower third": (0.065, 0.05)}  # size of the typeface, of the picture's height
_LIGHT = rgb(0xFFFFFF)
_PLATE = rgb(0x10182C)
_BAR = rgb(0xFFC23A)


@dataclass(frozen=True)
class Writing:
    """Two lines on the screen, a large one above a small one, between two times in seconds of the film."""

    start: float
    end: float
    lines: tuple[str, str]
    kind: Literal["title", "lower third"]


class Card:
    """Draws a piece of writing, in Pillow's own typeface."""

    def __init__(self, writing: Writing, width: int, height: int) -> None:
        self._writing = writing
        letters = Image.new("L", (width, height))
        plate = Image.new("L", (width, height))
        bar = Image.new("L", (width, height))
        draw, under = ImageDraw.Draw(letters), ImageDraw.Draw(plate)
        large, small = (ImageFont.load_default(share * height) for share in _LETTERS[writing.kind])
        if writing.kind == "title":
            under.rectangle((0, 0.28 * height, width, 0.66 * height), fill=150)
            draw.text((width / 2, 0.41 * height), writing.lines[0], 255, large, anchor="mm")
            draw.text((width / 2, 0.56 * height), writing.lines[1], 255, small, anchor="mm")
        else:
            left = 0.06 * width
            right = (
                left
                + 0.05 * width
                + max(draw.textlength(t, f) for t, f in zip(writing.lines, (large, small), strict=True))
            )
            under.rectangle((left, 0.72 * height, right, 0.92 * height), fill=215)
            ImageDraw.Draw(bar).rectangle((left, 0.72 * height, left + 0.012 * width, 0.92 * height), fill=255)
            draw.text((left + 0.03 * width, 0.775 * height), writing.lines[0], 255, large, anchor="lm")
            draw.text((left + 0.03 * width, 0.867 * height), writing.lines[1], 255, small, anchor="lm")
        self._layers = [
            (np.asarray(mask, np.float32)[..., None] / 255, color)
            for mask, color in ((plate, _PLATE), (bar, _BAR), (letters, _LIGHT))
        ]

    def __call__(self, canvas: Painter, time: float) -> None:
        """Lay the writing over the picture at `time` seconds of the film."""
        begin, end = self._writing.start, self._writing.end
        shown = min(ease(time, begin, begin + _FADE), 1 - ease(time, end - _FADE, end))
        if shown <= 0:
            return
        np.clip(canvas.pixels, 0, 1, out=canvas.pixels)
        for cover, color in self._layers:
            canvas.pixels += (color - canvas.pixels) * (cover * np.float32(shown))
