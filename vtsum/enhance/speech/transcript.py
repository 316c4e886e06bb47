"""What was said and when: words with their times, in utterances, in a transcript.

Every recogniser, subtitle reader and denoiser takes and gives these. They are values: nothing in them changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

PAUSE = 0.2  # seconds of silence from which a gap between words counts: a stop consonant's closure is under 0.15 s

# Scripts written without spaces between words: Chinese and Japanese; Thai, Lao, Burmese and Khmer.
_HAN = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
_THAI = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u1000-\u102a\u103f-\u1055"
    "\u1780-\u17b3"
)
_UNSPACED = re.compile(f"[{_HAN}{_THAI}]")
_HAN_SIGN, _THAI_SIGN = re.compile(f"[{_HAN}]"), re.compile(f"[{_THAI}]")
_OTHERS = f"[^{_HAN}{_THAI}]"
# What counts as a word there, with the marks and signs behind it: about as long as their words are.
_PIECE = re.compile(f"(?:[{_HAN}]{_OTHERS}*){{1,2}}|(?:[{_THAI}]{_OTHERS}*){{1,4}}|{_OTHERS}+")
_WIDE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef\U00020000-\U0003ffff]"
)


def pieces(token: str) -> list[str]:
    """A token without white space as words: itself, or, in a script without spaces, two signs (Chinese, Japanese) or
    four letters (Thai and its like) at a time, each with the marks and signs behind it."""
    return _PIECE.findall(token) if _UNSPACED.search(token) else [token]


def count_words(text: str) -> int:
    """How many words `pieces` makes of a text, or a few more, without making them."""
    if text.isascii():
        return len(text.split())
    return len(text.split()) + len(_HAN_SIGN.findall(text)) // 2 + len(_THAI_SIGN.findall(text)) // 4


def joined(words: Iterable[str]) -> str:
    """Words as a text: with spaces between them, but for scripts that have none."""
    text = ""
    for word in words:
        if text and not (_WIDE.match(text[-1]) and _WIDE.match(word[0])):
            text += " "
        text += word
    return text


@dataclass(frozen=True)
class Word:
    """One word as it was heard or read.

    Attributes:
        text (str): the word, with its punctuation where it has some; never empty, no white space in it.
        start, end (float): seconds from the start of the video; 0 <= start <= end.
        confidence (float): 0..1, how sure the source is; 1 for a transcript written by a person.
    Raises:
        ValueError: if one of these does not hold.
    """

    text: str
    start: float
    end: float
    confidence: float

    def __post_init__(self) -> None:
        if not self.text or any(c.isspace() for c in self.text):
            raise ValueError(f"Word: text must be one word without white space, got {self.text!r}")
        if not 0.0 <= self.start <= self.end < math.inf:  # false for NaN too
            raise ValueError(f"Word: start, end must be seconds with 0 <= start <= end, got {self.start}, {self.end}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"Word: confidence must be in 0..1, got {self.confidence}")


@dataclass(frozen=True)
class Utterance:
    """Words spoken in one breath: between two pauses, or in one subtitle.

    Attributes:
        words (tuple[Word, ...]): at least one, in the order of their starts.
    Raises:
        ValueError: no words, or words out of order.
    """

    words: tuple[Word, ...]

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("Utterance: words must be at least one, got none")
        for one, other in zip(self.words, self.words[1:], strict=False):
            if other.start < one.start:
                raise ValueError(
                    f"Utterance: words must be in the order of their starts, got {one.text!r} at {one.start} "
                    f"before {other.text!r} at {other.start}"
                )

    @property
    def text(self) -> str:
        return joined(word.text for word in self.words)

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return max(word.end for word in self.words)


@dataclass(frozen=True)
class Transcript:
    """Everything that was said in a video.

    Attributes:
        utterances (tuple[Utterance, ...]): in the order of their starts; empty where nothing was said.
        source (str): where it is from, e.g. "faster-whisper:tiny.en", "subtitles", "talk.srt".
        language (str | None): a BCP 47 or ISO 639 tag as the source gives it ("en"); None: not known.
        warnings (tuple[str, ...]): what a reader should know of it, one line each.
        unheard (tuple[tuple[float, float], ...]): (start, end) in seconds of voice to which nobody listened.
        models (tuple): (part, name, SHA-256 of its files, device; None: not known) of all that listened and cleaned.
        again (Callable | None): what is heard between these seconds the second time
            (`vtsum.enhance.speech.again.heard_again`); None for what was written by a person.
    Raises:
        ValueError: utterances out of order.
    """

    utterances: tuple[Utterance, ...]
    source: str
    language: str | None
    warnings: tuple[str, ...] = ()
    unheard: tuple[tuple[float, float], ...] = ()
    models: tuple[tuple[str, str, dict[str, str], str | None], ...] = ()
    again: Callable[[Sequence[tuple[float, float]]], list[list[Word]]] | None = field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        for one, other in zip(self.utterances, self.utterances[1:], strict=False):
            if other.start < one.start:
                raise ValueError(
                    f"Transcript: utterances must be in the order of their starts, got one at {one.start} "
                    f"before one at {other.start}"
                )

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for utterance in self.utterances for word in utterance.words)

    @property
    def text(self) -> str:
        """The words, one utterance a line."""
        return "\n".join(utterance.text for utterance in self.utterances)

    def pauses(self, duration: float, shortest: float = PAUSE) -> list[tuple[float, float]]:
        """Where nobody speaks, heard or unheard, the times before the first word and after the last one included.

        Args:
            duration (float): of the video, in seconds.
            shortest (float): gaps under so many seconds are not pauses: they belong to the speech.
        Returns:
            list[tuple[float, float]]: (start, end) in seconds, in order, apart from each other, within 0..duration.
        Raises:
            ValueError: a duration or a shortest gap that is negative or not finite.
        """
        for name, value in (("duration", duration), ("shortest", shortest)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"pauses: {name} must be finite and not negative, got {value}")
        return [(a, b) for a, b in self._gaps(duration) if b > a and b - a >= shortest]

    def _gaps(self, duration: float) -> Iterator[tuple[float, float]]:
        at = 0.0
        for start, end in sorted([*((word.start, word.end) for word in self.words), *self.unheard]):
            yield at, min(start, duration)
            at = max(at, end)
        yield at, duration
