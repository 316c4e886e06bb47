"""Pictures that stay are encoded once: work follows pictures that are there, not the time that they take."""

from __future__ import annotations

from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import number_picture, write_clip
from tests.vtsum.fakes import ColourModel
from vtsum.data.features import encode_video
from vtsum.model.frame_encoder import Encoding
from vtsum.summary.progress import ignore
from vtsum.summary.watching import watch
from vtsum.video import probe


class CountingModel(ColourModel):
    """Knows the pictures that it was shown."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.shown += [image.tobytes() for image in images]
        return super().encode(images)


@pytest.mark.parametrize("size", [1, 3, 32, 300])
def test_features_are_those_of_each_picture(size: int) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    order = np.repeat(rng.integers(0, 3, 80), rng.integers(1, 6, 80))
    model = CountingModel()
    encoding = Encoding(model, "test")
    found = np.concatenate([encoding(kinds[order[at : at + size]]) for at in range(0, len(order), size)])
    assert np.array_equal(found, ColourModel().encode(kinds[order]))
    assert found.dtype == np.float32
    assert model.shown == [kinds[kind].tobytes() for kind, _ in groupby(order)]


def test_what_is_given_may_be_written_over(tmp_path):
    """A decoder's batch is one place for the next pictures, too."""
    encoding = Encoding(ColourModel(), "test")
    images = np.zeros((2, 32, 32, 3), np.uint8)
    first = encoding(images)
    images[:] = 200
    assert not np.array_equal(encoding(images), first)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures for half an hour."""
    path = tmp_path_factory.mktemp("slides") / "slides.mkv"
    times = [0.0, 400.0, 700.0, 1200.0]
    return write_clip(path, times, lambda n, _: number_picture(n, 96, 54), last_duration=600.0, codec="ffv1")


@pytest.mark.parametrize("sampler", ["all", "coverage", "uniform"])
def test_a_slide_is_encoded_once(sampler: str, slides: Path) -> None:
    model = CountingModel()
    found = watch(slides, probe(slides), model, 1.0, ignore, sampler=sampler)
    assert len(model.shown) == 4
    assert len(found.features) == len(found.encoded) == round(found.duration) > 1200
    for begin, end in pairwise([0, 400, 700, 1200, len(found.features)]):
        assert np.abs(np.diff(found.features[begin + 2 : end - 2], axis=0)).max() < 1e-6


def test_of_extracted_features_too(slides):
    model = CountingModel()
    features, duration, _ = encode_video(slides, model, 1.0, 7, lambda *_: None)
    assert len(model.shown) == 4
    assert len(features) == round(duration)


def test_of_a_stream_too(slides):
    model = CountingModel()
    *_, last = vtsum.stream(slides, model=model, every=3600, rate=1.0)
    assert last.moments[-1]["shot_end"] > 1200
    assert len(model.shown) < 10, "and one to learn the model's width"
