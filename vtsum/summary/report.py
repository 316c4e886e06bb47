"""The page a person looks at: one self-contained HTML file with the summary playing in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from vtsum.enhance.speech.subtitle_text import language_tag
from vtsum.enhance.speech.summary import is_unsure
from vtsum.enhance.speech.transcript import joined
from vtsum.shown import clean
from vtsum.summary.schema import Screen, SentenceEntry, ShotEntry, Speech, SummaryDocument
from vtsum.summary.spoken import summary_subtitles
from vtsum.summary.text import ORIGINS, clock_time, shown_sentence, shown_title

MAX_EMBEDDED = 24_000_000  # bytes of video in the page; browsers take long to open more
# A longer summary is embedded smaller, in the first of these sizes that fits: (height in pixels, crf of x264).
_PROXIES = ((360, 30), (240, 34), (144, 38))
_FIRST_PICTURES = 24  # key frames shown at once; more are folded away
_POINTS = 900  # of the curve; more than the widest page has pixels for
_WIDTH, _HEIGHT = 1000.0, 100.0  # user units of the curve
_HEADINGS = {
    ("seen",): "What it shows",
    ("read",): "What is written",
    ("heard",): "What is said",
    ("heard", "seen"): "What is seen and said",
    ("heard", "read"): "What is said and written",
    ("measured",): "What was measured",
}
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)  # seconds between ticks of the axis
_TEMPLATES = Path(__file__).with_name("templates")


def write_report(path: Path, data: SummaryDocument, folder: Path) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        data: the content of summary.json.
        folder: where summary.mp4 and the key frames are.
    Raises:
        OSError: a file cannot be read or written.
    """
    path.write_text(render(data, embedded_video(folder), _pictures(data, folder)), encoding="utf-8")


def embedded_video(folder: Path) -> bytes:
    """summary.mp4, or a smaller form of it where it is too large for a page."""
    video = folder / "summary.mp4"
    if video.stat().st_size <= MAX_EMBEDDED:
        return video.read_bytes()
    from vtsum.video import cut, probe
    from vtsum.video.coding import Coding

    proxy = folder / "page.mp4"
    duration = probe(video).duration
    for height, crf in _PROXIES:
        cut(video, [(0.0, duration)], proxy, max_height=height, coding=Coding(crf=crf))
        if proxy.stat().st_size <= MAX_EMBEDDED:
            break
    content = proxy.read_bytes()
    proxy.unlink()
    return content


def _pictures(data: SummaryDocument, folder: Path) -> dict[int, bytes]:
    """Key frames by shot; they lie in the folder also where they were not asked for."""
    found = {}
    files = sorted((folder / "keyframes").glob("*.jpg"))
    chosen = [shot for shot in data["shots"] if shot["clip"]]
    names = {file.name: file for file in files}
    for shot in chosen:
        clip = shot["clip"]
        if clip and clip["keyframe"] and (file := names.get(Path(clip["keyframe"]).name)):
            found[shot["index"]] = file.read_bytes()
    return found


def render(data: SummaryDocument, video: bytes, pictures: dict[int, bytes]) -> str:
    """Return the page's HTML. All text is cleaned and escaped; nothing is fetched from anywhere, and the
    page's own policy says so.

    Args:
        data: the content of summary.json.
        video (bytes): an MP4 whose times are those of summary.mp4.
        pictures (dict[int, bytes]): JPEGs by the index of their shot.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    chosen = [shot for shot in data["shots"] if shot["clip"]]
    best = min(chosen, key=lambda shot: shot["rank"], default=None)
    duration = data["source"]["duration"]
    low, high = _value_range(data["frames"]["saliency"])
    said = _said(data["speech"])
    origins = sorted({sentence["origin"] for sentence in data["text"]})
    subtitles = summary_subtitles(data)
    return environment.get_template("report.html.j2").render(
        data=data,
        name=shown_title(data["title"]["text"], data["title"]["origin"]),
        heading=_heading(data),
        quoted=data["title"]["origin"] not in ("file", "name"),
        chapters=[(c["start"], shown_title(c["title"], c["origin"])) for c in data["chapters"]],
        clock=clock_time,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        video=_base64(video),
        subtitles=_base64(None if subtitles is None else subtitles.encode()),
        language=language_tag(data["speech"]["language"]) if data["speech"] else None,
        poster=_base64(pictures.get(best["index"])) if best else None,
        page_data=_for_script(_page_data(data)),
        chosen=chosen,
        first_pictures=_FIRST_PICTURES,
        pictures={index: _base64(picture) for index, picture in pictures.items()},
        words_heading=_HEADINGS.get(tuple(origins), "In words"),
        origins=len(origins),
        sentences=[_sentence(s, data["shots"]) for s in data["text"]],
        said=said,
        unsure=any(word["unsure"] for line in said for word in line["words"]),
        written=data["screen"]["lines"] if data["screen"] else [],
        voices=[_band(u["start"], u["end"], duration) for u in (data["speech"] or {"utterances": []})["utterances"]],
        line=curve_path(data["frames"]["time"], data["frames"]["saliency"], duration, low, high),
        low=low,
        high=high,
        bands=[_band(shot["clip"]["start"], shot["clip"]["end"], duration) for shot in chosen if shot["clip"]],
        boundaries=[round(shot["start"] / duration * _WIDTH, 2) for shot in data["shots"][1:]],
        ticks=[(clock_time(t), round(t / duration * 100, 3)) for t in axis_ticks(duration)],
        facts=_facts(data),
    )


def _fit(value: Any) -> Any:
    """What the template is about to write: markup is our own."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _base64(content: bytes | None) -> Markup | None:
    return None if content is None else Markup(base64.b64encode(content).decode())


def _breakable(name: str) -> Markup:
    """A name, cleaned and escaped, that may be broken after the signs that file names use for spaces."""
    return Markup(re.sub(r"([_.\-]+)", r"\1<wbr>", str(escape(clean(name)))))


def _heading(data: SummaryDocument) -> Markup:
    title = data["title"]
    stem = Path(title["text"]).stem if title["origin"] == "name" else ""
    return _breakable(stem or shown_title(title["text"], title["origin"]))


def _for_script(value: Any) -> Markup:
    """JSON that may stand inside a script element: no character that could end it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _page_data(data: SummaryDocument) -> dict[str, Any]:
    clips = [(shot["index"], shot["clip"]) for shot in data["shots"] if shot["clip"]]
    return {
        "duration": data["source"]["duration"],
        "times": data["frames"]["time"],
        "saliency": data["frames"]["saliency"],
        "clips": [[i, c["start"], c["end"], c["summary_start"], c["summary_end"]] for i, c in clips if c],
    }


def _sentence(sentence: SentenceEntry, shots: Sequence[ShotEntry]) -> dict[str, Any]:
    starts = [span["start"] for span in sentence["times"]]
    if sentence["origin"] == "seen":  # its times are those of its shots, of which the summary shows a part
        clips = [shots[i]["clip"] for i in sentence["shots"]]
        starts = [clip["start"] if clip else start for clip, start in zip(clips, starts, strict=True)]
    return {
        "text": shown_sentence(sentence),
        "origin": ORIGINS[sentence["origin"]].lower(),
        "confidence": sentence["confidence"],
        "shots": " ".join(str(i) for i in sentence["shots"]),
        "moments": [{"at": start} for start in starts],
    }


def _said(speech: Speech | None) -> list[dict[str, Any]]:
    """The transcript: each utterance's time and words, and what stands before a word: a space, in most scripts."""
    lines = []
    for utterance in speech["utterances"] if speech else []:
        words: list[dict[str, Any]] = []
        for word in utterance["words"]:
            before = words[-1]["text"] if words else ""
            gap = " " if before and joined((before, word["text"])) != before + word["text"] else ""
            words.append({"text": word["text"], "gap": gap, "unsure": is_unsure(word["text"], word["confidence"])})
        lines.append({"at": utterance["start"], "words": words})
    return lines


def _band(start: float, end: float, duration: float) -> tuple[float, float]:
    return round(start / duration * _WIDTH, 2), round(max((end - start) / duration * _WIDTH, 1.0), 2)


def _value_range(saliency: Sequence[float]) -> tuple[float, float]:
    """The values at the foot and the top of the curve: the video's own range, at least a twentieth wide."""
    low, high = min(saliency), max(saliency)
    spare = max(0.05 - (high - low), 0.0) / 2
    return max(low - spare, 0.0), min(high + spare, 1.0)


def curve_path(times: Sequence[float], saliency: Sequence[float], duration: float, low: float, high: float) -> str:
    """SVG path data of the curve in a box of 1000 x 100, thinned to its extremes where it has too many points."""
    t, s = np.asarray(times), np.asarray(saliency)
    if len(t) > _POINTS:
        parts = np.array_split(np.arange(len(t)), _POINTS // 2)
        kept = np.unique([i for part in parts for i in (part[s[part].argmin()], part[s[part].argmax()])])
        t, s = t[kept], s[kept]
    x = np.clip(t / duration, 0, 1) * _WIDTH
    y = (1 - (s - low) / max(high - low, 1e-9)) * (_HEIGHT - 6) + 3
    # The last frame stays on the screen until the end.
    points = [*zip(x, y, strict=True), (_WIDTH, y[-1])]
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in points)


def axis_ticks(duration: float) -> list[float]:
    """Round times, at most nine of them, from 0."""
    step = next((step for step in _STEPS if duration / step <= 8), _STEPS[-1] * max(1, int(duration / _STEPS[-1] / 8)))
    return [float(t) for t in np.arange(0, duration * 0.999, step)]


def _facts(data: SummaryDocument) -> list[tuple[str, str]]:
    source, made, model, settings = data["source"], data["summary"], data["model"], data["settings"]
    sound = source["audio_codec"] or "no sound"
    return [
        ("Source", f"{source['name']}, {source['size_bytes'] / 1e6:.1f}\u00a0MB"),
        ("Picture", f"{source['width']} x {source['height']}, {source['fps']:.4g} frames a second"),
        ("Coding", f"{source['video_codec']}, {sound}, in {source['container']}"),
        ("Length", f"{source['duration']:.1f} s; summary {made['duration']:.1f} s ({100 * made['share']:.1f}%)"),
        ("Budget", f"{settings['budget']} = {settings['budget_seconds']:.1f} s"),
        ("Sampled", f"{len(data['frames']['time'])} frames, {settings['fps']:g} a second"),
        ("Encoded", f"{100 * data['frames']['encoded_share']:.0f}% of them ({settings['sampler']})"),
        ("Events", f"{len(data['shots'])}, found by {settings['segmenter']}, chosen by {settings['refine']}"),
        ("Speech", _speech_fact(data["speech"])),
        ("Screen", _screen_fact(data["screen"])),
        ("Model", model["name"]),
        ("Weights", f"sha256 {model['weights_sha256'][:16]}"),
        ("Made by", f"VTSum {data['vtsum_version']}"),
    ]


def _screen_fact(screen: Screen | None) -> str:
    if screen is None:
        return "not read"
    return f"{len(screen['lines'])} lines, read by {screen['source']}" if screen["lines"] else "no words found"


def _speech_fact(speech: Speech | None) -> str:
    if speech is None:
        return "not listened to"
    words = sum(len(utterance["words"]) for utterance in speech["utterances"])
    return f"{words} words, from {speech['source']}" if words else "none found"
