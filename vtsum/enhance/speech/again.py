"""A second hearing: a sentence is believed if a recogniser hears it again in the same sound, played a tenth faster.

A misheard word seldom looks unsure ("fold the wheel" for "hold the wheel", at .74); but small changes of the sound
change it, and hardly what was heard right.

Source of the change: Ko et al., "Audio augmentation for speech recognition", 2015 (speed perturbation).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import numpy as np

from vtsum.enhance.speech.activity import Stretch
from vtsum.enhance.speech.plain_words import plain, word_set
from vtsum.enhance.speech.sound import RATE, read_sound
from vtsum.enhance.speech.transcript import Word, pieces
from vtsum.protocols import Recogniser
from vtsum.video.part import WHOLE, Part

FASTER = 1.1
AROUND = 0.25  # seconds of sound before and after a sentence
_APART = 1.0  # seconds between sentences as they are handed to the recogniser
_ARTICLES = word_set("a an the")


def heard_again(
    path: str | os.PathLike[str],
    recogniser: Recogniser,
    spans: Sequence[tuple[float, float]],
    part: Part = WHOLE,
) -> list[list[Word]]:
    """What a recogniser hears in stretches of a file's sound that are played a tenth faster.

    Args:
        path: the file. recogniser: who listens.
        spans: (start, end) in seconds, in the order of their starts. part: of the file that they lie in.
    Returns:
        list: the words of each, with times of no meaning; none where nothing is heard, nor in a stretch that is longer
        than the recogniser takes.
    Raises:
        VTSumError: the recogniser stopped working.
    """
    fit = [i for i, (start, end) in enumerate(spans) if end - start + 2 * AROUND <= recogniser.longest]
    placed: list[Stretch] = []

    def handed() -> Iterator[Stretch]:
        at = 0.0
        for samples in _cut(path, [spans[i] for i in fit], part):
            placed.append(Stretch(at, _faster(samples)))
            at = placed[-1].end + _APART
            yield placed[-1]

    found: list[list[Word]] = [[] for _ in spans]
    for utterance in recogniser.recognise(handed()) if fit else ():
        middle = (utterance.start + utterance.end) / 2
        found[fit[max((i for i, stretch in enumerate(placed) if stretch.start <= middle), default=0)]] += (
            utterance.words
        )
    return found


def repeats(sentence: str, again: str) -> bool:
    """Whether all words of a sentence but its articles stand in what was heard again, one after the other."""
    one, other = _words(sentence), _words(again)
    return any(other[i : i + len(one)] == one for i in range(len(other) - len(one) + 1))


def _words(text: str) -> list[str]:
    words = (plain(word) for token in re.findall(r"[\w'’]+", text) for word in pieces(token))
    return [word for word in words if word and word not in _ARTICLES]


def _cut(path: str | os.PathLike[str], spans: Sequence[tuple[float, float]], part: Part) -> Iterator[np.ndarray]:
    """The sound of each span and what lies around it, read once from front to back."""
    held, origin = np.zeros(0, np.float32), 0  # the sound from sample `origin` on
    blocks = read_sound(path, part=part)
    for start, end in spans:
        first, last = (max(round(t * RATE), 0) for t in (start - AROUND, end + AROUND))
        for time, block in blocks if origin + len(held) < last else ():
            if not len(held):
                origin = round(time * RATE)
            held = np.concatenate([held, block])
            if len(passed := held[: max(first - origin, 0)]):
                held, origin = held[len(passed) :], origin + len(passed)
            if origin + len(held) >= last:
                break
        yield held[max(first - origin, 0) : max(last - origin, 0)]


def _faster(samples: np.ndarray) -> np.ndarray:
    """The samples as a tape that runs faster: fewer of them, by the discrete Fourier transform."""
    count = int(len(samples) / FASTER)
    if not count:
        return samples[:0]
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, count) * (count / len(samples)), np.float32)
