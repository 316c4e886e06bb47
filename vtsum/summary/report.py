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
from markupsafe import Markup, escape

from vtsum.enhance.speech.subtitle_text import language_tag
from vtsum.shown import clean
from vtsum.summary import report_timeline as timeline
from vtsum.summary import report_words as words
from vtsum.summary.moments import Clips
from vtsum.summary.schema import SummaryDocument
from vtsum.summary.spoken import summary_subtitles
from vtsum.summary.text import clock_time, shown_title, text_file

MAX_EMBEDDED = 24_000_000  # bytes of video in the page; browsers take long to open more
# A longer summary is embedded smaller, in the first of these sizes that fits: (height in pixels, crf of x264).
_PROXIES = ((360, 30), (240, 34), (144, 38))
_STYLES = ("page.css", "player.css", "timeline.css", "lists.css", "media.css")
_SCRIPTS = ("start.js", "player.js", "original.js", "timeline.js", "playing.js", "copying.js", "recut.js", "keys.js")
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
    """Return the page's HTML. All text is cleaned and escaped; nothing is fetched from anywhere, and the page's own
    policy says so: only the original video is looked for, beside the page, when somebody wants to see it.

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
    script = f'"use strict";\n(() => {{\n{_joined(_SCRIPTS)}}})();\n'
    chosen = [shot for shot in data["shots"] if shot["clip"]]
    best = min(chosen, key=lambda shot: shot["rank"], default=None)
    duration = data["source"]["duration"]
    frames = data["frames"]
    low, high = timeline.value_range(frames["saliency"])
    clips = Clips(data["shots"])
    said = words.transcript(data, clips)
    subtitles = summary_subtitles(data)
    return environment.get_template("report.html.j2").render(
        data=data,
        name=shown_title(data["title"]["text"], data["title"]["origin"]),
        heading=_heading(data),
        quoted=data["title"]["origin"] not in ("file", "name"),
        clock=clock_time,
        style=Markup(_joined(_STYLES)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        video=_base64(video),
        subtitles=_base64(None if subtitles is None else subtitles.encode()),
        language=language_tag(data["speech"]["language"]) if data["speech"] else None,
        poster=_base64(pictures.get(best["index"])) if best else None,
        page_data=_for_script(_page_data(data, low, high)),
        chosen=chosen,
        pictures={index: _base64(picture) for index, picture in pictures.items()},
        words_heading=words.words_heading(data),
        origins=len({sentence["origin"] for sentence in data["text"]}),
        sentences=words.sentences(data, clips),
        chapters=words.chapters(data, clips),
        said=said,
        unsure=any(word["unsure"] for line in said for word in line["words"]),
        written=words.screen(data, clips),
        shots=words.shots(data, clips),
        recut="analysis" in data["settings"]["formats"],
        line=timeline.curve_path(frames["time"], frames["saliency"], duration, low, high),
        voices=timeline.bands([(line["start"], line["end"]) for line in said], duration),
        bands=timeline.bands([(s["clip"]["start"], s["clip"]["end"]) for s in chosen if s["clip"]], duration),
        boundaries=[round(shot["start"] / duration * timeline.WIDTH, 3) for shot in data["shots"][1:]],
        ticks=[(clock_time(t), round(t / duration * 100, 3)) for t in timeline.axis_ticks(duration)],
        facts=words.facts(data),
        terms=words.terms(data),
    )


def _joined(names: Sequence[str]) -> str:
    return "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names)


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


def _page_data(data: SummaryDocument, low: float, high: float) -> dict[str, Any]:
    clips = [(shot["index"], shot["clip"]) for shot in data["shots"] if shot["clip"]]
    return {
        "name": data["source"]["name"],
        "size": data["source"]["size_bytes"],
        "duration": data["source"]["duration"],
        "fps": data["settings"]["fps"],
        "range": [low, high],
        "saliency": [round(value, 3) for value in data["frames"]["saliency"]],
        "clips": [[i, c["start"], c["end"], c["summary_start"], c["summary_end"]] for i, c in clips if c],
        "budget": data["settings"]["budget"],
        "text": text_file(data),
    }
