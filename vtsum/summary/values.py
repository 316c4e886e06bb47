"""The values that options take: what a command line or Python gives, checked and brought to one form."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vtsum.errors import VTSumError
from vtsum.shown import one_line

if TYPE_CHECKING:
    from vtsum.enhance.summary_refinement import Budget
    from vtsum.summary.schema import Span
    from vtsum.video.coding import Coding

Take = Callable[[Any, str], Any]
FORMATS = ("mp4", "txt", "json", "keyframes", "html", "analysis")


class OneOf:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: Any, where: str) -> str:
        if value not in self.words:
            rule = " or ".join(self.words) if len(self.words) == 2 else f"one of {', '.join(self.words)}"
            raise VTSumError(f"{where} must be {rule}, got {value!r}")
        return str(value)


def number_in(low: float, high: float) -> Take:
    """A number in a range."""

    def take(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            got = f"{value:g}" if isinstance(value, int | float) else repr(value)
            raise VTSumError(f"{where} must be {low:g} to {high:g}, got {got}")
        return value

    return take


def or_none(value: Any, where: str) -> Any:
    """A name; "none" is None."""
    return None if value == "none" else value


def a_budget(value: Any, where: str) -> Budget:
    """A length: `vtsum.enhance.summary_refinement.parse_budget`."""
    from vtsum.enhance.summary_refinement import parse_budget

    return parse_budget(value)


def a_limit(value: Any, where: str) -> float | None:
    """Seconds above 0, or a time like 10min; None, or "all": as long as it takes."""
    if value is None:
        return None
    if isinstance(value, str):
        return seconds_or_all(value, where)
    if not value > 0:
        raise VTSumError(f"{where} must be above 0 seconds, or None, got {value:g}")
    return float(value)


def seconds_or_all(text: str, where: str) -> float | None:
    """Seconds of a time like 10min; None for "all"; `where` begins the message where it is neither."""
    from vtsum.enhance.summary_refinement import parse_budget

    if text.strip().lower() == "all":
        return None
    try:
        length = parse_budget(text)
    except VTSumError:
        length = None
    if length is None or length.kind != "seconds":
        raise VTSumError(f"{where} must be a time (10min, 90s, 1:30) or all, got {text!r}")
    return length.value


def stretches(value: Any, where: str) -> list[Span]:
    """Stretches of a video (`vtsum.summary.by_hand`), as summary.json has them."""
    from vtsum.summary.by_hand import spans_of

    if not isinstance(value, str):
        value = [(one["start"], one["end"]) if isinstance(one, dict) else one for one in value]
    return spans_of(value, where)


def known_segmenter(value: Any, where: str) -> str:
    """A segmenter's name."""
    from vtsum.enhance.event_segmentation import find_segmenter

    find_segmenter(value, where)
    return str(value)


def known_formats(value: str | Sequence[str], where: str) -> list[str]:
    """Formats of a summary, in canonical order.

    Raises:
        VTSumError: an unknown one, or none at all.
    """
    from vtsum.summary.exports import EXPORTS

    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    known = (*FORMATS, *EXPORTS)
    where = where.removesuffix("s")
    for name in names:
        if name not in known:
            raise VTSumError(f"{where} must be among {', '.join(known)}, got {name!r}")
    if not names:
        raise VTSumError(f"{where} must name at least one of {', '.join(known)}, got none")
    return [name for name in known if name in names]


def seconds_of(value: Any, where: str, *, most: float = 1e6) -> float:
    """Seconds of a number, or of a text such as 90, 2.5s, 2min, 1:30 or 1:02:03.

    Raises:
        VTSumError: it is neither, below 0 or above `most`.
    """
    from vtsum.enhance.summary_refinement import parse_budget
    from vtsum.summary.by_hand import seconds_in

    found: float | None = None
    if isinstance(value, str):
        found = seconds_in(value.strip())
        if found is None:
            try:
                length = parse_budget(value)
            except VTSumError:
                length = None
            found = length.value if length is not None and length.kind == "seconds" else None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    if found is None or not 0 <= found <= most:
        raise VTSumError(f"{where} must be seconds or a time (2.5, 90s, 1:30), 0 to {most:g} s, got {value!r:.60}")
    return found


def seconds_or_none(value: Any, where: str) -> float | None:
    """The same; None is None."""
    return None if value is None else seconds_of(value, where)


def words_or_none(value: Any, where: str) -> str | None:
    """One clean line of at most 300 letters; None is None."""
    if value is None:
        return None
    text = one_line(value) if isinstance(value, str) else ""
    if not 0 < len(text) <= 300:
        raise VTSumError(f"{where} must be words on one line, at most 300 letters, got {value!r:.60}")
    return text


def a_topic(value: Any, where: str) -> str | None:
    """`words_or_none` of which one tells of a topic."""
    from vtsum.summary.about import terms

    text = words_or_none(value, where)
    if text is not None and not terms(text):
        raise VTSumError(f"{where} must hold a word that tells of a topic, got {text!r:.60}")
    return text


def a_fade(value: Any, where: str) -> float:
    """Seconds of a fade."""
    from vtsum.video.coding import LONGEST_FADE

    return seconds_of(value, where, most=LONGEST_FADE)


def a_loudness(value: Any, where: str) -> float | None:
    """LUFS that sound is brought to; None is None."""
    if value is None:
        return None
    from vtsum.video.levels import LOUDEST, SOFTEST

    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not SOFTEST <= found <= LOUDEST:
        raise VTSumError(f"{where} must be {SOFTEST:g} to {LOUDEST:g} LUFS, got {value!r:.60}")
    return found


def a_shape(value: Any, where: str) -> str | None:
    """Width to height, as "9:16"; None is None."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", value.strip()) if isinstance(value, str) else None
    if found is None or not 0.1 <= int(found[1]) / int(found[2]) <= 10:
        raise VTSumError(f"{where} must be width to height, such as 9:16, from 1:10 to 10:1, got {value!r:.60}")
    return found[0]


def shape_of(text: str | None) -> tuple[int, int] | None:
    """The two numbers of `a_shape`."""
    if text is None:
        return None
    width, height = map(int, text.split(":"))
    return width, height


def whole_or_none(value: Any, where: str) -> int | None:
    """A whole number of at least 0; None is None."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise VTSumError(f"{where} must be a whole number, got {value!r:.60}")
    return value


def known_encoder(value: Any, where: str) -> str:
    """One of the encoders of a cut."""
    from vtsum.video.coding import ENCODERS

    return OneOf(*ENCODERS)(value, where)


def coding_of(asked: Mapping[str, Any], op: str) -> Coding:
    """How a cut is encoded, by the options for it.

    Raises:
        VTSumError: they do not go together.
    """
    from vtsum.video.coding import Coding

    given = {name: asked[name] for name in ("encoder", "crf", "preset", "fade")}
    usual = {**dataclasses.asdict(Coding()), "loudness": None, "crop": None}
    for name in usual if asked["stream_copy"] else ():
        if asked[name] != usual[name]:
            raise VTSumError(f"{op}: stream_copy must be without {name}, which is of encoding, got {asked[name]!r:.60}")
    coding = Coding(**given)
    coding.check(op)
    return coding


def a_margin(value: Any, where: str) -> list[float]:
    """Seconds before and after a piece."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(parts) <= 2:
        raise VTSumError(f"{where} must be one or two numbers of seconds (0.2,0.5), got {value!r:.60}")
    first, last = (seconds_of(part, where, most=60) for part in (parts[0], parts[-1]))
    return [first, last]
