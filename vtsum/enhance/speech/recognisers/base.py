"""What recognisers share; what each must be stands in `vtsum.protocols`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from vtsum.enhance.speech.activity import Stretch
from vtsum.enhance.speech.sound import RATE
from vtsum.enhance.speech.transcript import Utterance, Word
from vtsum.protocols import Recogniser

PAUSES = (0.1, 2.0)  # seconds that stretches recognised together keep of the pause between them, at least and most
REPETITIVE = 2.4  # compression ratio above which a decoder went round in circles (Radford et al. 2022, section 4.5)
_UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}  # languages written without spaces: every character is a word


def is_understood(recogniser: Recogniser, heard: Sequence[Utterance]) -> bool:
    """Whether what was heard is speech that the recogniser knows, by all of it together."""
    words = [word for utterance in heard for word in utterance.words]
    telling = {word.text.lower() for word in words if len(word.text) >= 4 and word.confidence >= 0.2}
    if not words or len(telling) < recogniser.telling:
        return False
    return float(np.mean([word.confidence for word in words])) >= recogniser.understood


class Pack:
    """Several stretches as one sound, silence between them: what a model of fixed length is fed without waste.

    Pauses keep their length as far as they may: by them Whisper tells where sentences end.

    Attributes:
        samples (np.ndarray): float32 [n] at 16 kHz.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        chunks: list[np.ndarray] = []
        self._offsets: list[tuple[float, float, float]] = []  # begin and end in the pack, start in the video
        at = 0.0
        for i, stretch in enumerate(stretches):
            if i:
                silence = np.zeros(round(_pause(stretches[i - 1], stretch) * RATE), np.float32)
                chunks.append(silence)
                at += len(silence) / RATE
            chunks.append(stretch.samples)
            length = len(stretch.samples) / RATE
            self._offsets.append((at, at + length, stretch.start))
            at += length
        self.samples = np.concatenate(chunks)

    def utterances(self, heard: Iterable[tuple[str, float, float, float]]) -> list[Utterance]:
        """(text, start, end, confidence) with times in the pack as utterances on the video's clock, one for each
        stretch that has words. A word counts to the stretch in which its middle lies, and ends with it."""
        found: list[list[Word]] = [[] for _ in self._offsets]
        for text, start, end, confidence in heard:
            text = "".join(text.split())
            if not any(c.isalnum() for c in text):
                continue
            start, end = float(start), float(end)
            middle = (start + end) / 2
            index = max((i for i, (a, _, _) in enumerate(self._offsets) if middle >= a - PAUSES[0] / 2), default=0)
            begin, until, base = self._offsets[index]
            a = base + min(max(start, begin), until) - begin
            b = base + min(max(end, start, begin), until) - begin
            if found[index]:
                a = max(a, found[index][-1].start)
            found[index].append(Word(text, a, max(a, b), float(min(max(confidence, 0.0), 1.0))))
        return [Utterance(tuple(words)) for words in found if words]


def packs(stretches: Iterable[Stretch], longest: float) -> Iterator[Pack]:
    """Stretches gathered, in order, into sounds of at most `longest` seconds; a longer stretch is one by itself."""
    gathered: list[Stretch] = []
    length = 0.0
    for stretch in stretches:
        seconds = len(stretch.samples) / RATE
        pause = _pause(gathered[-1], stretch) if gathered else 0.0
        if gathered and length + pause + seconds > longest:
            yield Pack(gathered)
            gathered, length, pause = [], 0.0, 0.0
        length += pause + seconds
        gathered.append(stretch)
    if gathered:
        yield Pack(gathered)


def _pause(before: Stretch, after: Stretch) -> float:
    return min(max(after.start - before.end, PAUSES[0]), PAUSES[1])


def is_repetitive(text: str) -> bool:
    """Whether a text says the same over and over: it compresses to less than 1 / 2.4 of its size."""
    data = text.encode()
    return len(data) > 40 and len(data) / len(zlib.compress(data)) > REPETITIVE


def words_of_tokens(
    tokens: Sequence[int], decode: Callable[[list[int]], str], language: str | None
) -> list[tuple[str, int, int]]:
    """(text, first token, last token + 1) of each word in a byte-level token sequence.

    A word begins with a token that begins with a space; in languages written without spaces, with every character.
    Punctuation joins the word before it. Tokens that hold part of a character, or a space alone, wait for what follows.
    """
    words: list[tuple[str, int, int]] = []
    first = 0
    for last in range(1, len(tokens) + 1):
        text = decode(list(tokens[first:last]))
        if (text.endswith("\N{REPLACEMENT CHARACTER}") or not text.strip()) and last < len(tokens):
            continue
        begins = text[:1].isspace() or not words or language in _UNSPACED
        if begins and any(c.isalnum() for c in text):
            words.append((text.strip(), first, last))
        elif words:
            words[-1] = (words[-1][0] + text.strip(), words[-1][1], last)
        first = last
    return [word for word in words if word[0]]
