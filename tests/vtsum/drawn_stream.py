"""Drawn films of any length, as arrays: places that come back, lit another way, in which something moves or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def drawn(seed: int, count: int, places: int = 40) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds, uint8 [54, 96, 3]), a picture a second; shots of 3 to 30 seconds."""
    rng = np.random.default_rng(seed)
    colours, grids = rng.integers(0, 255, (places, 3)), rng.integers(0, 60, (places, 6, 8, 3))
    number = 0
    while number < count:
        place, length, speed = int(rng.integers(places)), int(rng.integers(3, 30)), int(rng.integers(12))
        light = colours[place] + rng.integers(-25, 25, 3)
        base = np.clip(light + grids[place], 0, 255).astype(np.uint8).repeat(9, 0).repeat(12, 1)
        for step in range(min(length, count - number)):
            picture = base.copy()
            left = (step * speed) % 80
            picture[20:36, left : left + 14] = 255 - colours[place]
            yield float(number), picture
            number += 1
