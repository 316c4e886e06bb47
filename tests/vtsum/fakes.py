"""Stand-ins for a model and a recogniser, quick and of known behaviour: for tests of what happens around them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from vtsum.enhance.speech import Stretch, Utterance


class Deaf:
    """A recogniser that is given all voice and understands none of it."""

    name, longest, language = "deaf", 12.0, "en"
    doubtful, understood, telling = 0.0, 0.0, 0

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        for _ in stretches:
            yield from ()


def deafen(patch: pytest.MonkeyPatch) -> None:
    """Have nobody but Deaf to listen; sound is still read and searched for voice."""
    patch.setattr(
        importlib.import_module("vtsum.enhance.speech.transcribe"), "make_recogniser", lambda name, device: Deaf()
    )


@dataclass(frozen=True)
class FakeCaption:
    text: str
    confidence: float
    chance: float | None = None


class ColourModel:
    """Features are the mean colours of a 4 x 4 grid; saliency is how colourful a frame is; it says the main colour.
    It has no boundary head."""

    name = "colour"
    weights_sha256 = "0" * 64
    embedded = False
    image_size = 32
    text_is_guess = True
    reads_pictures = False

    def encode(self, images: np.ndarray) -> np.ndarray:
        n, size = len(images), self.image_size
        assert images.shape == (n, size, size, 3)
        assert images.dtype == np.uint8
        cells = images.reshape(n, 4, size // 4, 4, size // 4, 3).mean(axis=(2, 4)) / 255
        return (cells.reshape(n, -1) + 0.01).astype(np.float32)

    def event_features(self, features: np.ndarray) -> np.ndarray:
        return features

    def saliency(self, features: np.ndarray) -> np.ndarray:
        cells = features.reshape(len(features), 16, 3)
        return np.clip((cells.max(2) - cells.min(2)).mean(1), 0, 1).astype(np.float32)

    def boundaries(self, features: np.ndarray) -> np.ndarray | None:
        return None

    def describe(
        self, features: np.ndarray, spans: list[tuple[int, int]], key_frames: object = None
    ) -> list[FakeCaption]:
        means = [features[a:b].reshape(-1, 3).mean(0) for a, b in spans]
        return [FakeCaption(f"something {('red', 'green', 'blue')[int(np.argmax(m))]}", 0.5) for m in means]
