"""What is written of a video without words: only what was measured, and true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.fakes import ColourModel

pytestmark = pytest.mark.usefixtures("nobody_listens")
SIZE = (48, 64)
RATE = 10


def _still(level: int) -> np.ndarray:
    return np.full((*SIZE, 3), level, np.uint8)


def _moving(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).integers(60, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return noise.repeat(8, 0).repeat(8, 1)


def _night(number: int) -> np.ndarray:
    picture = _still(8)
    picture[20:28, number // 2 : number // 2 + 8] = 250  # a light passes by
    return picture


def _summary(folder: Path, seconds: float, picture, sound: np.ndarray | None = None) -> vtsum.Summary:
    times = [i / RATE for i in range(round(seconds * RATE))]
    clip = write_clip(folder / "clip.mp4", times, picture, rate=RATE, sound=sound)
    return vtsum.summarize(
        clip, folder / "o", budget="5s", model=ColourModel(), segmenter="cuts", formats=["json", "txt"]
    )


def _told(made: vtsum.Summary) -> list[str]:
    assert {s["origin"] for s in made.data["text"]} == {"measured"}
    assert not any(s["guess"] for s in made.data["text"])
    return [s["text"] for s in made.data["text"]]


def test_light_movement_and_loudness_of_the_parts(tmp_path: Path) -> None:
    def picture(number: int, time: float) -> np.ndarray:
        return _night(number) if time < 8 else _moving(number) if time < 14 else _still(240)

    sound = np.concatenate([tone(8, 48000, 1, level=0.02), tone(6, 48000, 1, level=0.5), tone(8, 48000, 1, level=0)], 1)
    made = _summary(tmp_path, 22, picture, sound)
    assert _told(made) == [
        "3 parts were found, beginning at 0:00, 0:08 and 0:14.",
        "Part 1: dark pictures.",
        "Part 2: more movement than in any other, louder than any other.",
        "Part 3: bright pictures, hardly anything moves, silent.",
    ]
    assert [s["times"][0]["start"] for s in made.data["text"]] == pytest.approx([0, 0, 8, 14], abs=0.2)
    text = made.files["txt"].read_text(encoding="utf-8")
    assert "[0:08-0:14] Measured: Part 2:" in text
    assert "guess" not in text


@pytest.mark.parametrize(("level", "sound"), [(None, "there is no sound"), (0.0, "the sound is silent")])
def test_one_part(tmp_path: Path, level: float | None, sound: str) -> None:
    samples = None if level is None else tone(12, 48000, 1, level=level)
    made = _summary(tmp_path, 12, lambda number, time: _still(120), samples)
    assert _told(made) == [f"No change of scene was found; {sound}.", "All of it: hardly anything moves."]


def test_a_model_whose_sentences_are_no_guesses_describes_the_pictures(clip: Path, tmp_path: Path) -> None:
    class Sure(ColourModel):
        text_is_guess = False

    options = {"budget": "5s", "formats": ["json"]}
    made = [
        vtsum.summarize(clip, tmp_path / str(n), model=model(), captioner=captioner, **options)
        for n, (model, captioner) in enumerate(
            [(Sure, "auto"), (Sure, "none"), (ColourModel, "auto"), (ColourModel, "embedded")]
        )
    ]
    origins = [{sentence["origin"] for sentence in one.data["text"]} for one in made]
    assert origins == [{"seen"}, {"measured"}, {"measured"}, {"seen"}]
    with pytest.raises(vtsum.VTSumError, match="captioner must be one of auto, embedded, none, got 'blip'"):
        vtsum.summarize(clip, tmp_path / "x", captioner="blip", **options)
