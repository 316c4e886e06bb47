"""One text from what is seen, read and said: every sentence names its time and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Origin = Literal["seen", "read", "heard", "written", "measured"]


class Quotation(Protocol):
    """A sentence that was spoken, or a quotation of the screen: its seconds, and how it ranks among its kind."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def score(self) -> float: ...


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
        confidence (float): 0..1; of captions, of lines read and of words heard, which do not compare.
        times (tuple): at least one (start, end) in seconds, in order.
        origin ("seen" | "read" | "heard" | "written" | "measured"): a caption of the pictures, words on the screen,
            words that were spoken, a sentence written after them, or what was measured of a video that gave few.
        shots (tuple[int, ...]): indices of the chosen shots it speaks of; empty for words outside them.
    """

    text: str
    confidence: float
    times: tuple[tuple[float, float], ...]
    origin: Origin
    shots: tuple[int, ...] = ()


def merge_text(
    captions: Sequence[Caption],
    sentences: Sequence[Quotation],
    limit: int,
    *,
    quotations: Sequence[Quotation] = (),
    clips: Sequence[tuple[int, float, float]] = (),
) -> list[Sentence]:
    """Captions, quotations of the screen and spoken sentences as one text, in order of time.

    If there are more than `limit`, each kind keeps an equal share of `limit` as far as it can, rounded in favour of
    words that were said, then of those on the screen, for they are the video's own; within a kind the best stay:
    captions by confidence, the others by score.

    Args:
        captions: of the pictures.
        sentences: that were spoken.
        limit (int): at most so many sentences in all.
        quotations: of the screen.
        clips: (shot, start, end) of the chosen shots in seconds: tells which of them words belong to.
    Returns:
        list[Sentence]: by start of their first time; at equal times what is seen comes first, then what is read.
    Raises:
        ValueError: a negative limit.
    """
    if limit < 0:
        raise ValueError(f"merge_text: limit must be at least 0, got {limit}")
    seen = sorted((c for c in captions if c.moments), key=lambda c: -c.confidence)
    read = sorted(quotations, key=lambda q: -q.score)
    heard = sorted(sentences, key=lambda s: -s.score)
    kept_heard, kept_read, kept_seen = shares(limit, (len(heard), len(read), len(seen)))
    text = [
        Sentence(c.text, c.confidence, tuple(m.span for m in c.moments), "seen", tuple(m.shot for m in c.moments))
        for c in seen[:kept_seen]
    ]
    origins: list[tuple[Origin, Sequence[Quotation]]] = [("read", read[:kept_read]), ("heard", heard[:kept_heard])]
    for origin, words in origins:
        for w in words:
            shots = tuple(shot for shot, start, end in clips if min(end, w.end) > max(start, w.start))
            text.append(Sentence(w.text, w.confidence, ((w.start, w.end),), origin, shots))
    return sorted(text, key=lambda s: (s.times[0][0], ("seen", "read", "heard").index(s.origin)))


def shares(limit: int, counts: Sequence[int]) -> list[int]:
    """How many of each kind are kept: one of each in turn, the first kind first, until there are `limit`."""
    kept = [0] * len(counts)
    while sum(kept) < min(limit, sum(counts)):
        for i, count in enumerate(counts):
            kept[i] += int(kept[i] < count and sum(kept) < limit)
    return kept
