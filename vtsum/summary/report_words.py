"""What the page says in words: sentences, chapters, transcript, shots and facts, each with its moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtsum.enhance.speech.summary import is_unsure
from vtsum.enhance.speech.transcript import joined
from vtsum.summary.moments import Clips, Moment, moments_of
from vtsum.summary.schema import SummaryDocument
from vtsum.summary.text import ORIGINS, clock_time, shown_sentence, shown_title, span_text

_HEADINGS = {
    ("seen",): "What it shows",
    ("read",): "What is written",
    ("heard",): "What is said",
    ("heard", "seen"): "What is seen and said",
    ("heard", "read"): "What is said and written",
    ("measured",): "What was measured",
}


def _button(moment: Moment, label: str) -> dict[str, Any]:
    """What a button that plays a moment needs: it plays the summary from where that shows it, else the original."""
    inside = moment.at is not None
    return {"label": label, "at": moment.at if inside else moment.start, "inside": inside}


def words_heading(data: SummaryDocument) -> str:
    """What stands over the sentences: where they are from."""
    return _HEADINGS.get(tuple(sorted({sentence["origin"] for sentence in data["text"]})), "In words")


def sentences(data: SummaryDocument, clips: Clips) -> list[dict[str, Any]]:
    """The text's sentences, as summary.txt has them."""
    found = []
    for sentence in data["text"]:
        moments = moments_of(sentence, data["shots"], clips)
        measured = sentence["origin"] == "measured"  # of all of the video, or of a whole part
        found.append(
            {
                "text": shown_sentence(sentence),
                "origin": ORIGINS[sentence["origin"]].lower(),
                "spans": "" if measured else " ".join(f"{m.start}-{m.end}" for m in moments),
                "moments": [_button(m, span_text(m.start, m.end)) for m in moments],
            }
        )
    return found


def chapters(data: SummaryDocument, clips: Clips) -> list[dict[str, Any]]:
    """The chapters; of one whose beginning the summary does not show, where it first shows something of it."""
    found = []
    ends = [chapter["start"] for chapter in data["chapters"][1:]] + [data["source"]["duration"]]
    for chapter, end in zip(data["chapters"], ends, strict=False):  # no chapters, one end
        begin = clips.moment(chapter["start"])
        first = None if begin.at is not None else clips.first_in(chapter["start"], end)
        found.append(
            {
                "title": shown_title(chapter["title"], chapter["origin"]),
                "start": chapter["start"],
                "end": end,
                "begin": _button(begin, clock_time(begin.start)),
                "first": None if first is None else _button(first, clock_time(first.start)),
            }
        )
    return found


def transcript(data: SummaryDocument, clips: Clips) -> list[dict[str, Any]]:
    """Each utterance's time and words, and what stands before a word: a space, in most scripts."""
    lines = []
    for utterance in data["speech"]["utterances"] if data["speech"] else []:
        words: list[dict[str, Any]] = []
        for word in utterance["words"]:
            before = words[-1]["text"] if words else ""
            gap = " " if before and joined((before, word["text"])) != before + word["text"] else ""
            words.append({"text": word["text"], "gap": gap, "unsure": is_unsure(word["text"], word["confidence"])})
        moment = clips.moment(utterance["start"], utterance["end"])
        button = _button(moment, clock_time(moment.start))
        lines.append({"start": moment.start, "end": moment.end, "button": button, "words": words})
    return lines


def screen(data: SummaryDocument, clips: Clips) -> list[dict[str, Any]]:
    """Each line on the screen, and its time."""
    lines = []
    for line in data["screen"]["lines"] if data["screen"] else []:
        moment = clips.moment(line["start"], line["end"], stands=True)
        button = _button(moment, clock_time(moment.start))
        words = {"text": line["text"], "unsure": not line["confirmed"]}
        lines.append({"start": moment.start, "end": moment.end, "button": button, **words})
    return lines


def shots(data: SummaryDocument, clips: Clips) -> list[dict[str, Any]]:
    """Every shot; one of the summary is played from the part that it shows."""
    kept, dropped = ([(span["start"], span["end"]) for span in data["settings"][name]] for name in ("keep", "drop"))
    found = []
    for shot in data["shots"]:
        start, end, clip = shot["start"], shot["end"], shot["clip"]
        moment = clips.moment(clip["start"], clip["end"]) if clip else Moment(start, end)
        found.append(
            {
                "start": start,
                "end": end,
                "label": span_text(start, end),
                "button": _button(moment, clock_time(moment.start)),
                "reason": shot["reason"],
                "keep": any(a <= start + 0.001 and end <= b + 0.001 for a, b in kept),
                "drop": any(a <= start + 0.001 and end <= b + 0.001 for a, b in dropped),
            }
        )
    return found


def facts(data: SummaryDocument) -> list[tuple[str, str]]:
    """What anybody may want to know of the video and its summary."""
    source, made, settings = data["source"], data["summary"], data["settings"]
    form = Path(source["name"]).suffix.lstrip(".").upper()
    size = f"{source['size_bytes'] / 1e6:.1f}\u00a0MB"
    return [
        ("Video", ", ".join(filter(None, (source["name"], form, size)))),
        ("Picture", f"{source['width']} x {source['height']}, {source['fps']:.4g} frames a second"),
        ("Sound", "yes" if source["has_audio"] else "none"),
        ("Length", f"{source['duration']:.1f} s; summary {made['duration']:.1f} s ({100 * made['share']:.1f}%)"),
        ("Asked for", f"{settings['budget']} = {settings['budget_seconds']:.1f} s"),
        *([] if settings["about"] is None else [("Preferred", f"what tells of “{settings['about']}”")]),
        ("Speech", _speech_fact(data)),
        ("Words on the screen", _screen_fact(data)),
        ("Made by", f"VTSum {data['vtsum_version']}"),
    ]


def terms(data: SummaryDocument) -> list[tuple[str, str]]:
    """How it was made, in the field's words."""
    source, settings, model = data["source"], data["settings"], data["model"]
    sound = source["audio_codec"] or "no sound"
    return [
        ("File", f"{source['video_codec']}, {sound}, in {source['container']}"),
        ("Looked at", f"{len(data['frames']['time'])} frames, {settings['fps']:g} a second"),
        ("Seen by the encoder", f"{100 * data['frames']['encoded_share']:.0f}% of them ({settings['sampler']})"),
        ("Shots", f"{len(data['shots'])}, found by {settings['segmenter']}, chosen by {settings['refine']}"),
        ("Model", model["name"]),
        ("Weights", f"sha256 {model['weights_sha256'][:16]}"),
    ]


def _screen_fact(data: SummaryDocument) -> str:
    screen = data["screen"]
    if screen is None:
        return "not read"
    return f"{len(screen['lines'])} lines, read by {screen['source']}" if screen["lines"] else "none found"


def _speech_fact(data: SummaryDocument) -> str:
    speech = data["speech"]
    if speech is None:
        return "not listened to"
    words = sum(len(utterance["words"]) for utterance in speech["utterances"])
    return f"{words} words, from {speech['source']}" if words else "none found"
