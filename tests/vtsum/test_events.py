"""Events: shots from features, cuts and liveliness from pictures, and planted events that the summary must show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vtsum
from tests.vtsum.samples import decode
from tests.vtsum.test_event_segment import scenes
from vtsum.enhance.event_segmentation import PictureChanges, find_shots
from vtsum.recipes.procedural import five_events, make_clip
from vtsum.summary import schema
from vtsum.summary.pipeline import EMBEDDED_SIZE


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_shots_do_not_depend_on_the_scale(scale):
    lengths = [12, 5, 30, 8, 3, 22]
    shots, means, scatter = find_shots(scale * scenes(lengths, 0.1), 1.0)
    assert [s.end for s in shots] == list(np.cumsum(lengths))
    assert means.shape == (6, 32)
    assert 0 < scatter <= 1
    assert shots[0].seconds(1.0, 80.0) == (0, 12)


def test_a_still_scene_is_one_shot_but_for_its_longest():
    flicker = 1.0 + 0.01 * np.random.default_rng(0).normal(size=(150, 64))
    shots, _, _ = find_shots(flicker, 1.0)
    assert [len(s) for s in shots] != [1] * 150
    assert len(shots) == 3
    assert max(len(s) for s in shots) <= 60


def test_shots_at_the_borders():
    assert find_shots(np.zeros((0, 4)), 1.0)[0] == []
    assert [len(s) for s in find_shots(np.ones((1, 4)), 1.0)[0]] == [1]
    assert [len(s) for s in find_shots(np.zeros((5, 4)), 1.0)[0]] == [5]


def show(changes: PictureChanges, pictures: np.ndarray, rate: float, pad: int = 0) -> None:
    for i, picture in enumerate(pictures):
        padded = np.pad(picture, ((0, 0), (0, pad)), constant_values=255 * (i % 2))
        changes.see(i / rate, memoryview(padded.tobytes()), padded.shape[1], picture.shape[1], picture.shape[0])


def test_a_cut_between_sampled_frames_is_found_and_a_fade_is_not():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 255, (2, 90, 160)).astype(float)
    weight = np.concatenate([np.zeros(40), np.ones(60), np.linspace(1, 0, 50), np.zeros(50)])
    pictures = first + (second - first) * weight[:, None, None] + rng.normal(0, 2, (200, 90, 160))
    changes = PictureChanges()
    # The lines are padded with values that differ from picture to picture: they must not count.
    show(changes, np.clip(pictures, 0, 255).astype(np.uint8), 25.0, pad=32)
    assert changes.boundary(1.0, 2.0) == pytest.approx(40 / 25)
    assert changes.boundary(0.0, 1.0) is None
    assert changes.boundary(4.0, 6.0) is None
    assert PictureChanges().boundary(0.0, 1.0) is None
    assert changes.liveliness(4.1, 5.9) > changes.liveliness(2.0, 3.9) > 0
    assert changes.liveliness(50.0, 60.0) == 0


def test_pictures_of_another_size_are_no_change():
    changes = PictureChanges()
    for size in ((90, 160), (45, 80), (45, 80)):
        changes.see(0.0, memoryview(bytes(size[0] * size[1])), size[1], size[1], size[0])
    assert changes.liveliness(-1.0, 1.0) == 0


@pytest.fixture(scope="module")
def embedded():
    from vtsum.model import load

    return load("embedded")


def test_the_size_of_pictures_is_known_without_the_model(embedded):
    assert embedded.image_size == EMBEDDED_SIZE


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_summary_shows_five_planted_events(embedded, tmp_path, seed):
    """A minute of dull scenes with five lively events of three seconds: each is in the summary.

    At one sampled frame a second a clip's place is known to half a second or so: of the 1.5 s that a shot is given at
    first, half must fall into the event.
    """
    truth = make_clip(tmp_path / "events.mp4", five_events(60.0, 3.0), seed=seed, audio=False)
    made = vtsum.summarize(tmp_path / "events.mp4", tmp_path / "o", model=embedded, formats=["json"])
    clips = [shot["clip"] for shot in made.shots if shot["clip"]]
    shown = [sum(max(0.0, min(e.end, c["end"]) - max(e.start, c["start"])) for c in clips) for e in truth.events]
    assert min(shown) >= 0.75, f"seconds shown of each event: {shown}"
    assert made.duration <= 9.0


CLIPS = ["big_buck_bunny_0_30.webm", "chaplin.mp4", "flipping_a_pancake.mkv", "nasa_13013.mp4", "skateboarding_dog.mp4"]


def summary_of(video: Path, output: Path) -> dict[str, Any]:
    """With everything embedded: playable, within its budget, with sound if the video has sound, and with an account."""
    made = vtsum.summarize(video, output)
    data = schema.read(made.files["json"])
    budget, frame = data["settings"]["budget_seconds"], 1 / data["source"]["fps"]
    _, seconds, sound = decode(made.files["mp4"])
    assert 0.8 * budget <= seconds <= budget + frame
    assert data["summary"]["has_audio"] == data["source"]["has_audio"]
    if data["source"]["has_audio"]:
        # The last picture of a clip may stay longer than one frame; sound goes on under it.
        assert sound == pytest.approx(made.duration, abs=0.1)
        assert sound == pytest.approx(seconds, abs=0.2)
    assert data["text"]
    assert all(len(sentence["text"].split()) >= 3 for sentence in data["text"])
    assert len(list(made.files["keyframes"].iterdir())) == sum(shot["chosen"] for shot in made.shots)
    return data


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(shared, tmp_path, name):
    summary_of(shared / "media" / name, tmp_path / "o")


def test_a_real_talk_is_heard(shared, tmp_path):
    """The talk's own words are in the text, with their times."""
    data = summary_of(shared / "media" / "speech_and_silence.mp4", tmp_path / "o")
    speech = data["speech"]
    assert speech["source"] == "faster-whisper:tiny.en"
    said = " ".join(w["text"] for u in speech["utterances"] for w in u["words"]).lower()
    assert "this is an example video" in said
    assert "you can see the time" in said
    heard = [s for s in data["text"] if s["origin"] == "heard"]
    assert heard
    assert all(s["times"][0]["end"] <= 19.0 for s in heard)  # silence follows


@pytest.mark.parametrize(("gap", "cuts"), [(1, [1.0]), (4, [])])
def test_a_longer_time_between_two_pictures_is_no_cut(gap: int, cuts: list[float]) -> None:
    """Three levels a picture, then thirteen: at once a cut, but not where three pictures between were passed over."""
    changes, levels = PictureChanges(), [*range(0, 75, 3), *range(85, 160, 3)]
    for number, level in enumerate(levels):
        late = 0 if number < 25 else gap - 1
        changes.note((number + late) / 25, np.full((20, 20), level, np.uint8))
    assert [time for time, _ in changes.cuts()] == cuts
