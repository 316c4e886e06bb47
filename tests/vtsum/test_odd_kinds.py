"""Kinds of video that nobody rated: the shipped model's summary keeps its budget and says nothing that is not so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import write_clip
from vtsum.video import probe

pytestmark = pytest.mark.usefixtures("nobody_listens")
Draw = Callable[[int, float], np.ndarray]
SECONDS, BUDGET = 24.0, 8.0
LEVELS = [37, 200, 91, 160, 70, 230]


def _slope(height: int, width: int, kind: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * kind % 256, (y * 3 + kind * 40) % 256, np.full_like(x, kind * 70 % 256)], -1).astype(np.uint8)


def _portrait(number: int, time: float) -> np.ndarray:
    return np.roll(_slope(128, 72, 1 + int(time // 6)), number, 0)


def _cartoon(number: int, time: float) -> np.ndarray:
    """Flat colours, and a disc that goes to and fro over them."""
    picture = np.full((96, 128, 3), [(240, 200, 40), (60, 160, 240), (90, 200, 90)][int(time // 8)], np.uint8)
    y, x = np.mgrid[:96, :128]
    picture[(y - 48) ** 2 + (x - 64 - 40 * np.sin(time)) ** 2 < 150] = (200, 30, 30)
    return picture


def _night(number: int, time: float) -> np.ndarray:
    picture = np.random.default_rng(number % 20).normal(8, 4, (96, 128, 3)).clip(0, 255).astype(np.uint8)
    if 8 < time < 16:  # a light passes by
        picture[40:48, number % 120 : number % 120 + 8] += 60
    return picture


def _screen(number: int, time: float) -> np.ndarray:
    """A pointer over a page, on which a window opens."""
    picture = np.full((96, 128, 3), 245, np.uint8)
    picture[10:90:8, 8:100] = 120  # lines of writing that is too small to read
    if time > 12:
        picture[50:90, 30:110] = (150, 180, 220)
    y, x = int(48 + 30 * np.sin(time)), int(64 + 40 * np.cos(time / 2))
    picture[y : y + 5, x : x + 4] = 0
    return picture


def _cuts(number: int, time: float) -> np.ndarray:
    """Another picture each time."""
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)


def _flat(number: int, time: float) -> np.ndarray:
    return np.full((96, 128, 3), [LEVELS[int(time // 4)], LEVELS[int(time // 4) - 1], 90], np.uint8)


# Pictures a second; what must be said; what may be said of parts besides.
KINDS: dict[str, tuple[Draw, int, str, set[str]]] = {
    "portrait": (_portrait, 10, r"\d+ parts were found", {"its pictures change more than those of any other"}),
    "cartoon": (
        _cartoon,
        10,
        "3 parts were found, beginning at 0:00, 0:08 and 0:16",
        {"its pictures change more than those of any other"},
    ),
    "night": (_night, 10, "Part 1: dark pictures", {"dark pictures"}),
    "screen recording": (_screen, 10, "2 parts were found, beginning at 0:00 and 0:12", {"bright pictures"}),
    "100 cuts a second": (_cuts, 100, "no change of scene was found", set()),
    "flat": (_flat, 10, "6 parts were found, of about 4 s each", {"hardly anything moves"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_budget_is_kept_and_what_is_said_is_so(kind: str, tmp_path: Path) -> None:
    draw, rate, must, may = KINDS[kind]
    clip = write_clip(tmp_path / "clip.mp4", [i / rate for i in range(round(SECONDS * rate))], draw, rate=rate)
    made = vtsum.summarize(clip, tmp_path / "o", budget=f"{BUDGET:g}s", formats=["mp4", "json", "txt"])
    assert 0.6 * BUDGET < made.duration <= BUDGET + 1 / rate
    shots = [(shot["start"], shot["end"]) for shot in made.data["shots"] if shot["chosen"]]
    assert all(0 <= start < end <= SECONDS + 0.1 for start, end in shots)
    video = probe(made.files["mp4"])
    assert (video.width > video.height) == (kind != "portrait")
    assert video.duration == pytest.approx(made.duration, abs=0.2)
    assert {sentence["origin"] for sentence in made.data["text"]} == {"measured"}
    first, *of_parts = [sentence["text"] for sentence in made.data["text"]]
    assert first.startswith("0:24 long; ")
    assert first.endswith("; there is no sound.")
    assert re.search(must, " ".join([first, *of_parts]))
    assert {said for text in of_parts for said in text.rstrip(".").split(": ")[1].split(", ")} <= may
