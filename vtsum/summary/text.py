"""The text summary: which moments get a sentence, and summary.txt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtsum.shown import one_line
from vtsum.summary.moments import Clips, moments_of
from vtsum.summary.moments import Moment as ShownMoment

if TYPE_CHECKING:
    from vtsum.model import Summarizer
    from vtsum.protocols import Caption
    from vtsum.summary.schema import SentenceEntry, SummaryDocument

MAX_SENTENCES = 5
ALIKE = 0.8  # share of common words from which two sentences say the same


@dataclass(frozen=True)
class Moment:
    """A chosen shot that may get a sentence: its index, sampled frames [i0, i1), seconds, score, and key frame."""

    shot: int
    frames: tuple[int, int]
    span: tuple[float, float]
    score: float
    picture: Path | None = None


@dataclass(frozen=True)
class ShotCaption:
    """One sentence, how sure the model is of it (0..1), and the moments it speaks of, in order."""

    text: str
    confidence: float
    moments: tuple[Moment, ...]


def describe(
    model: Summarizer, features: np.ndarray, moments: Sequence[Moment], limit: int = MAX_SENTENCES
) -> list[ShotCaption]:
    """One sentence for each of the best `limit` moments, in order of time; those that say the same become one.

    Args:
        model: what `vtsum.model.load` returns.
        features (array): [T, C], of all sampled frames.
        moments: the chosen shots.
        limit (int): at most so many sentences.
    Returns:
        list[ShotCaption]: in the order of their first moment; empty sentences are left out.
    """
    best = best_of(moments, limit)
    pictures = [_read(m.picture) for m in best if m.picture] if model.reads_pictures else None
    sentences = model.describe(features, [m.frames for m in best], pictures)
    if not sentences:  # a model without a decoder
        return []
    return gathered(best, sentences)


def best_of(moments: Sequence[Moment], limit: int) -> list[Moment]:
    """The `limit` moments of the highest scores, in order of time."""
    return sorted(sorted(moments, key=lambda m: -m.score)[:limit], key=lambda m: m.frames)


def gathered(moments: Sequence[Moment], captions: Sequence[Caption]) -> list[ShotCaption]:
    """The moments' captions as sentences; those that say the same become one."""
    said: list[tuple[str, list[float], list[Moment]]] = []
    for moment, sentence in zip(moments, captions, strict=True):
        text = _as_sentence(sentence.text)
        if not text:
            continue
        for other, confidences, spoken_of in said:
            if _likeness(other, text) >= ALIKE:
                confidences.append(sentence.confidence)
                spoken_of.append(moment)
                break
        else:
            said.append((text, [sentence.confidence], [moment]))
    return [ShotCaption(t, min(max(float(np.mean(c)), 0.0), 1.0), tuple(m)) for t, c, m in said]


def _read(picture: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def _as_sentence(text: str) -> str:
    """Bring a decoder's words to one line that starts with a capital and ends with a stop."""
    text = " ".join(str(text).split())
    text = re.sub(r" ([.,!?;:])", r"\1", text).rstrip(" ,;:-")
    if not re.search(r"\w", text):
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def _likeness(one: str, other: str) -> float:
    """Share of common words (Jaccard index)."""
    a, b = (set(re.findall(r"\w+", t.lower())) for t in (one, other))
    return len(a & b) / len(a | b) if a | b else 1.0


def clock_time(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03; fractions are dropped, as players show it."""
    whole = int(seconds + 1e-6)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span_text(start: float, end: float) -> str:
    """A stretch of time as 0:07-0:12."""
    return f"{clock_time(start)}-{clock_time(end)}"


ORIGINS = {"seen": "Seen", "read": "Read", "heard": "Heard", "written": "Written", "measured": "Measured"}


def shown_title(text: str, origin: str) -> str:
    """A title in quotation marks, if it is a quotation of what is read or heard."""
    return f"\u201c{text}\u201d" if origin in ("read", "heard") else text


def shown_sentence(sentence: SentenceEntry) -> str:
    """A sentence as it is shown: what was heard in quotation marks; what was read has its own."""
    return f"\u201c{sentence['text']}\u201d" if sentence["origin"] == "heard" else sentence["text"]


def _where(moments: Sequence[ShownMoment]) -> str:
    """Where the summary shows what a sentence speaks of."""
    shown = [clock_time(moment.summary) for moment in moments if moment.summary is not None]
    return f"in the summary at {', '.join(shown)}" if shown else "not in the summary"


def text_file(data: SummaryDocument) -> str:
    """The content of summary.txt: title, sentences with their times and where the summary shows them, chapters."""
    source, made = data["source"], data["summary"]
    lengths = f"{clock_time(made['duration'])} of {clock_time(source['duration'])}"
    settings = data["settings"]
    if settings["start"] or settings["end"] is not None:
        lengths += f", summarised from {span_text(data['shots'][0]['start'], data['shots'][-1]['end'])}"
    named = data["title"]["origin"] in ("file", "name")
    title = data["title"]
    lines = [shown_title(title["text"], title["origin"]), lengths if named else f"{source['name']}, {lengths}", ""]
    clips = Clips(data["shots"])
    for sentence in data["text"]:
        moments = moments_of(sentence, data["shots"], clips)
        times = ", ".join(span_text(moment.start, moment.end) for moment in moments)
        label = "" if sentence["origin"] == "read" else f"{ORIGINS[sentence['origin']]}: "  # a quotation says it itself
        where = "" if sentence["origin"] == "measured" or not made["file"] else f" ({_where(moments)})"
        lines.append(f"[{times}] {label}{shown_sentence(sentence)}{where}")
    if not data["text"]:
        lines.append("No sentence was found for this video.")
    if data["chapters"]:
        lines += ["", "Chapters"]
        lines += [f"{clock_time(c['start'])} {shown_title(c['title'], c['origin'])}" for c in data["chapters"]]
    notes = [f"Note: {warning}" for warning in data["warnings"]]
    if notes:
        lines += ["", *notes]
    return "\n".join(map(one_line, lines)) + "\n"
