"""What is written of a video without words: only what was measured, and true."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.fakes import ColourModel, Deaf, FakeCaption
from tests.vtsum.samples import ENVIRONMENT
from vtsum.summary import facts, schema
from vtsum.summary.loudness import BLOCK, SILENT, Loudness

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


def _summary(
    folder: Path, seconds: float, picture, sound: np.ndarray | None = None, segmenter: str = "cuts"
) -> vtsum.Summary:
    times = [i / RATE for i in range(round(seconds * RATE))]
    clip = write_clip(folder / "clip.mp4", times, picture, rate=RATE, sound=sound)
    return vtsum.summarize(
        clip, folder / "o", budget="5s", model=ColourModel(), segmenter=segmenter, formats=["json", "txt"]
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
        "0:22 long; 3 parts were found, beginning at 0:00, 0:08 and 0:14.",
        "Part 1: dark pictures.",
        "Part 2: its pictures change more than those of any other, louder than any other.",
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
    assert _told(made) == [f"0:12 long; no change of scene was found; {sound}.", "All of it: hardly anything moves."]


@pytest.mark.parametrize("segmenter", ["cuts", "joint"])
def test_a_picture_that_stands_longer_than_any_shot_is_one_part(segmenter: str, tmp_path: Path) -> None:
    made = _summary(tmp_path, 70, lambda number, time: _still(20), segmenter=segmenter)
    assert len(made.data["shots"]) == 2
    assert _told(made) == [
        "1:10 long; no change of scene was found; there is no sound.",
        "All of it: dark pictures, hardly anything moves.",
    ]
    (part,) = made.data["text"][1]["times"]
    assert (part["start"], part["end"]) == (0.0, 70.0)
    assert made.data["text"][1]["shots"] == [i for i, shot in enumerate(made.data["shots"]) if shot["chosen"]]


def test_of_a_small_thing_that_moves_it_is_not_said_that_it_moves_most(tmp_path: Path) -> None:
    """It may lie on the pixels that are compared in one part, and between them in another, where it moves more."""

    def picture(number: int, time: float) -> np.ndarray:
        shown = _still(40 if time < 8 else 160)
        at, level = ((15, 31), 250) if time < 8 else ((16, 30), 90)
        if number % 2:
            shown[at] = level
        return shown

    made = _summary(tmp_path, 16, picture)
    assert len(made.shots) == 2
    assert not any("change more" in text for text in _told(made))


def test_the_length_is_that_at_the_head() -> None:
    """Where sound or pictures end a thousandth earlier, too; and less than a second is not no time."""
    for spans, duration, told in (
        ([(0.0, 12.0), (12.0, 30.0)], 29.999, "0:30 long; 2 parts"),
        ([(0.0, 29.96)], 29.96, "0:29 long; no"),
        ([(0.0, 0.967)], 0.967, "1.0 s long; no"),
    ):
        assert facts._whole(spans, duration, False, None).text.startswith(told)


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
    with pytest.raises(vtsum.VTSumError, match="captioner must be one of auto, embedded, none, blip"):
        vtsum.summarize(clip, tmp_path / "x", captioner="bilp", **options)
    assert not (tmp_path / "x").exists()


def test_of_sound_that_was_not_decoded_nothing_is_said() -> None:
    times = np.arange(0, 20, 0.1)
    quiet = np.zeros(200)
    assert Loudness(times, quiet).is_silent(0, 20)
    assert not Loudness(times[:0], quiet[:0]).is_silent(0, 20), "nothing could be decoded"
    lost = Loudness(times, quiet, [(12.0, 12.5)])
    assert lost.is_silent(0, 10)
    assert not lost.is_silent(10, 20)
    click = quiet.copy()
    click[0] = 0.2  # at the very beginning: no part may call the whole silent
    assert not Loudness(times, click).is_silent(0, 20)
    loud = quiet.copy()
    loud[30:60] = 0.3
    spans = [(0.0, 10.0), (10.0, 20.0)]
    assert Loudness(times, loud).stands_out(spans) == 0
    assert Loudness(times, loud, [(12.0, 12.5)]).stands_out(spans) is None
    loud[197] = 0.25  # a bang at the end of the other part, where it is not listened to for silence
    assert Loudness(times, loud).stands_out(spans) is None


def test_ten_hours_of_many_parts_are_heard_soon() -> None:
    """Each part's own tenths alone are looked at: of all of them 7,200 times it was a minute."""
    rng = np.random.default_rng(0)
    times = np.arange(360_000) / 10
    levels = np.where(rng.random(len(times)) < 0.98, 0.0, rng.random(len(times)) / 100)
    sound = Loudness(times, levels, [(5.0, 5.1), (7000.0, 7300.0)])
    spans = [(5.0 * n, 5.0 * n + 5) for n in range(7_200)]
    began = time.thread_time()
    silent = [sound.is_silent(*span) for span in spans]
    assert Loudness(times, levels).stands_out(spans) is None
    assert time.thread_time() - began < 2
    for n in (0, 1, 2, 1399, 1400, 1459, 1460, *rng.integers(0, 7_200, 200)):
        start, end = spans[n]
        tenths = levels[(times > start - BLOCK) & (times < end)]
        lost = n == 1 or 1400 <= n < 1460
        assert silent[n] == (not lost and tenths.max() < SILENT), n


def test_captions_are_shown_by_their_chance(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By command: a captioner of the user's own, told several pictures of a shot and the words heard there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CAPTIONER)
    (tmp_path / "talk.srt").write_text("1\n00:00:00,500 --> 00:00:11,500\nLook at the bouncing balls over there.\n")
    command = [sys.executable, "-m", "vtsum.cli", "summarize", str(clip), "--captioner", "mine:Captioner", "-o", "out"]
    done = forked.run(
        [*command, "--budget", "9s", "--transcript", "talk.srt", "--no-ocr", "-f", "json,txt,html", "-q"],
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    data = schema.read(tmp_path / "out" / "summary.json")
    seen = [sentence for sentence in data["text"] if sentence["origin"] == "seen"]
    assert [s["text"] for s in seen] == ["Shown at 0.51."], "of chances .5 and .51 the higher one alone"
    assert not seen[0]["guess"]
    assert {"part": "captions", "name": "mine", "sha256": {"a.safetensors": "d" * 64}, "device": None} in data["models"]
    told = (tmp_path / "told.txt").read_text().splitlines()
    assert len(told) >= 2
    assert all(line.startswith("2 (") for line in told)
    assert any(line.endswith(("Look", "at", "the", "bouncing", "balls", "over", "there.")) for line in told)


CAPTIONER = """
from types import SimpleNamespace


class Captioner:
    name, sha256, pictures = "mine", {"a.safetensors": "d" * 64}, 2

    def describe(self, scenes):
        with open("told.txt", "w") as file:
            for scene in scenes:
                print(len(scene.pictures), scene.pictures[0].shape, scene.heard, file=file)
        chances = [0.51, *[0.5] * (len(scenes) - 1)]
        return [SimpleNamespace(text=f"shown at {c}", confidence=0.9, chance=c) for c in chances]
"""


def test_the_default_takes_nothing_from_caches(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody_listens: None
) -> None:
    """With a checkpoint in the hub's cache, auto asks it; with offline_default nobody is asked."""

    class Sure:
        name, sha256, pictures = "cached", {}, 1

        def __init__(self, device):
            assert device in ("auto", "cpu")

        def describe(self, scenes):
            return [FakeCaption("a striped field", 0.9, 0.9) for _ in scenes]

    monkeypatch.setattr("vtsum.model.captioners.best_at_hand", Sure)
    asked: list[str] = []
    made = importlib.import_module("vtsum.enhance.speech.transcribe")
    monkeypatch.setattr(made, "make_recogniser", lambda name, device: asked.append(name) or Deaf())
    options = {"budget": "5s", "model": ColourModel(), "formats": ["json"], "ocr": False}
    with_cache = vtsum.summarize(clip, tmp_path / "a", **options)
    assert {s["origin"] for s in with_cache.data["text"]} == {"seen", "measured"}  # all captions alike: one sentence
    assert any(w.startswith("what is said to be seen was written by cached,") for w in with_cache.warnings)

    class Fails(Sure):
        def describe(self, scenes):
            raise vtsum.VTSumError("out of memory")

    monkeypatch.setattr("vtsum.model.captioners.best_at_hand", Fails)
    failed = vtsum.summarize(clip, tmp_path / "c", **options)
    assert {s["origin"] for s in failed.data["text"]} == {"measured"}
    assert "the pictures were not described: out of memory" in failed.warnings
    without = vtsum.summarize(clip, tmp_path / "b", offline_default=True, **options)
    assert {s["origin"] for s in without.data["text"]} == {"measured"}
    assert asked == ["auto", "auto", "carried"]
    assert without.data["settings"]["offline_default"]
    assert without.data["models"][0]["part"] == "saliency"
