"""One text from what is seen and what is said: every sentence names its time and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vtsum.enhance.speech.summary import SpokenSentence

Origin = Literal["seen", "heard", "measured"]


class _Moment(Protocol):
    @property
    def shot(self) -> int: ...
    @property
    def span(self) -> tuple[float, float]: ...


class Caption(Protocol):
    """What `vtsum.summary.text.describe` gives: a sentence about pictures, and the moments it speaks of."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def moments(self) -> Sequence[_Moment]: ...


@dataclass(frozen=True)
class Sentence:
    """A sentence of the text summary.

    Attributes:
        text (str): ends with a stop.
        confidence (float): 0..1; of captions and of words heard, which do not compare.
        times (tuple): at least one (start, end) in seconds, in order.
        origin ("seen" | "heard" | "measured"): a caption of the pictures, words that were spoken, or what was measured
            of a video that gave neither.
        shots (tuple[int, ...]): indices of the chosen shots it speaks of; empty for words spoken outside them.
    """

    text: str
    confidence: float
    times: tuple[tuple[float, float], ...]
    origin: Origin
    shots: tuple[int, ...] = ()


def merge_text(
    captions: Sequence[Caption],
    sentences: Sequence[SpokenSentence],
    limit: int,
    *,
    clips: Sequence[tuple[int, float, float]] = (),
) -> list[Sentence]:
    """Captions and spoken sentences as one text, in order of time.

    If there are more than `limit`, each kind keeps at least half of `limit` as far as it can, rounded in
    favour of words that were said, for they are the video's own; within a kind the best stay: captions by
    confidence, sentences by score.

    Args:
        captions: of the pictures.
        sentences: from `summarise_transcript`.
        limit (int): at most so many sentences in all.
        clips: (shot, start, end) of the chosen shots in seconds: tells which of them a spoken sentence belongs to.
    Returns:
        list[Sentence]: by start of their first time; at equal times what is seen comes first.
    Raises:
        ValueError: a negative limit.
    """
    if limit < 0:
        raise ValueError(f"merge_text: limit must be at least 0, got {limit}")
    seen = sorted((c for c in captions if c.moments), key=lambda c: -c.confidence)
    heard = sorted(sentences, key=lambda s: -s.score)
    share = min(max(limit - limit // 2, limit - len(seen)), len(heard))
    text = [
        Sentence(c.text, c.confidence, tuple(m.span for m in c.moments), "seen", tuple(m.shot for m in c.moments))
        for c in seen[: limit - share]
    ]
    text += [
        Sentence(
            s.text,
            s.confidence,
            ((s.start, s.end),),
            "heard",
            tuple(shot for shot, start, end in clips if min(end, s.end) > max(start, s.start)),
        )
        for s in heard[:share]
    ]
    return sorted(text, key=lambda s: (s.times[0][0], s.origin == "heard"))
