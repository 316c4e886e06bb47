"""Frame sampling in the main job: which frames of a file the encoder sees, what the others get, and what is kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import write_clip
from tests.vtsum.fakes import ColourModel
from vtsum.enhance.event_segmentation import find_shots
from vtsum.recipes.procedural import write_video
from vtsum.summary.progress import ignore
from vtsum.summary.watching import AT_LEAST, SHARE, Watched, WatchedFrames, _Choice, watch
from vtsum.video import probe

LENGTHS = (23, 31, 12, 40, 17, 28, 9, 25, 33, 22)  # seconds between cuts


class CountingModel(ColourModel):
    """Keeps account of the pictures it was shown."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        return super().encode(images)


def pictures(seed: int, rate: int) -> Iterator[np.ndarray]:
    """Scenes of coloured tiles, a bright square crosses every third of them; a corner makes each second another."""
    rng = np.random.default_rng(seed)
    for number, seconds in enumerate(LENGTHS):
        ground = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), 12, axis=0), 12, axis=1)
        for i in range(seconds * rate):
            image = ground.copy()
            if number % 3 == 2:
                x = i * 3 % 72
                image[20:44, x : x + 24] = (255, 255, 0)
            image[:4, :4] = i // rate * 37 % 256
            yield image


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sampling") / "scenes.mp4"
    write_video(path, pictures(0, 2), Fraction(2), (96, 72))
    return path


def watched(path: Path, sampler: str, fps: float = 1.0) -> tuple[CountingModel, Watched]:
    model = CountingModel()
    return model, watch(path, probe(path), model, fps, ignore, sampler=sampler)


def test_a_quarter_is_encoded_and_the_rest_is_like_it(video):
    full_model, full = watched(video, "all")
    frames = sum(LENGTHS)
    assert sum(full_model.batches) == frames == len(full.features)
    assert full.encoded.all()
    assert full.encoded_share == 1.0
    model, found = watched(video, "coverage")
    assert found.encoded_share == SHARE
    assert sum(model.batches) == found.encoded.sum() == frames * SHARE
    assert set(model.batches[:-1]) <= {32}
    assert found.features.shape == full.features.shape
    assert found.features.dtype == full.features.dtype
    assert np.array_equal(found.features[found.encoded], full.features[found.encoded])
    assert np.abs(found.features - full.features).mean() < 0.06 * full.features.std()
    assert np.abs(found.saliency - full.saliency).mean() < 0.02
    even = watched(video, "uniform")[1]
    assert even.encoded_share == SHARE
    assert set(np.diff(np.flatnonzero(even.encoded))) == {4}
    assert np.abs(found.features - full.features).mean() < np.abs(even.features - full.features).mean()


def test_cuts_stay_where_they_are(video):
    cuts = list(np.cumsum(LENGTHS))
    for sampler in ("all", "coverage", "uniform"):
        shots = find_shots(watched(video, sampler)[1].event_features, 1.0)[0]
        assert set(cuts) <= {shot.end for shot in shots}, sampler


def test_the_same_frames_every_time(video):
    first, second = watched(video, "coverage")[1], watched(video, "coverage")[1]
    assert np.array_equal(first.encoded, second.encoded)
    assert np.array_equal(first.features, second.features)
    assert np.array_equal(first.saliency, second.saliency)


def test_a_short_video_is_encoded_whole(tmp_path):
    path = tmp_path / "short.mp4"
    frames = list(pictures(1, 2))
    write_video(path, iter(frames[: AT_LEAST * 2]), Fraction(2), (96, 72))
    every, found = watched(path, "all")[1], watched(path, "coverage")[1]
    assert found.encoded.all()
    assert np.array_equal(found.features, every.features)
    assert np.array_equal(found.saliency, every.saliency)
    write_video(path, iter(frames[: AT_LEAST * 4]), Fraction(2), (96, 72))
    for sampler in ("coverage", "uniform"):
        some = watched(path, sampler)[1]
        assert len(some.encoded) == 2 * AT_LEAST
        assert some.encoded.sum() == AT_LEAST


def test_pictures_that_are_not_chosen_are_dropped():
    size, count = 64, 2400
    rng = np.random.default_rng(0)

    def batches() -> Iterator[np.ndarray]:
        for _ in range(count // 30):
            yield rng.integers(0, 256, (30, size, size, 3), dtype=np.uint8)

    for sampler in ("coverage", "uniform"):
        choice, shown = _Choice(sampler), 0
        tracemalloc.start()
        for batch in choice.chosen(batches()):
            shown += len(batch)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert shown == count * SHARE
        thumbnails = count * 288 * 4
        assert peak - thumbnails < 400 * size * size * 3, sampler


def test_the_batches_of_the_decoder_do_not_matter():
    rng = np.random.default_rng(0)
    images = np.repeat(rng.integers(0, 256, (150, 16, 16, 3), dtype=np.uint8), rng.integers(1, 8, 150), axis=0)
    kept = []
    for size in (1, 32, 77):
        choice = _Choice("coverage")
        shown = list(choice.chosen(images[at : at + size] for at in range(0, len(images), size)))
        assert np.array_equal(np.concatenate(shown), images[choice.picks])
        kept.append(choice.picks)
    assert kept[0] == kept[1] == kept[2]


def test_another_sampler_is_refused(video):
    with pytest.raises(ValueError, match="watch: sampler must be one of coverage, uniform, all, got 'some'"):
        watched(video, "some")


def test_a_summary_from_a_quarter_of_the_frames(video, tmp_path):
    model = CountingModel()
    made = vtsum.summarize(video, tmp_path / "out", model=model, formats=["json"], budget="40s")
    assert sum(model.batches) == sum(LENGTHS) * SHARE
    assert len(made.data["frames"]["saliency"]) == sum(LENGTHS)
    starts = {round(shot["start"], 2) for shot in made.shots}
    assert {float(cut) for cut in np.cumsum(LENGTHS)[:-1]} <= starts


@pytest.mark.parametrize(
    ("pix_fmt", "codec"),
    [
        ("yuv420p", "libx264"),
        ("yuv420p10le", "libx264"),
        ("rgb24", "libx264rgb"),
        ("rgb8", "gif"),
        ("gray10le", "ffv1"),
    ],
)
def test_changes_are_seen_in_every_pixel_format(tmp_path, pix_fmt, codec):
    """Deep, RGB and palette pictures have no plane of 8-bit luma to be looked at as it is."""

    def picture(number: int, time: float) -> np.ndarray:
        return np.full((90, 160, 3), 20 if number < 60 else 200, np.uint8)

    path = tmp_path / ("a.gif" if codec == "gif" else "a.mkv")
    write_clip(path, [i / 25 for i in range(100)], picture, codec=codec, pix_fmt=pix_fmt)
    frames = WatchedFrames(path, probe(path), 1.0, 32, lambda stage, done: None)
    assert sum(len(batch) for batch in frames.batches(8)) == 4
    assert frames.changes.boundary(2.0, 3.0) == pytest.approx(2.4, abs=0.01)
    assert frames.changes.brightness(0.0, 2.0) < 40
    assert frames.changes.brightness(3.0, 4.0) > 180
