"""The summary's clips as cuts of the source video, for programs that edit: EDL, OpenTimelineIO, FCPXML.

EDL and FCPXML are written here: OpenTimelineIO's adapters for them leave the sound out of the one and list the video
six times in the other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from vtsum.errors import VTSumError
from vtsum.files import plain
from vtsum.summary.exports.timecode import editing_rate, frames_of, timecode_of
from vtsum.summary.exports.times import clips_of
from vtsum.summary.schema import SummaryDocument


@dataclass(frozen=True)
class Cut:
    """A stretch of the source: its first frame, how many, where it lies in the summary; the chapters that begin in it,
    as (frame of the source, title)."""

    start: int
    length: int
    at: int
    chapters: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Cuts:
    """All cuts at one rate. Frames of the source count from its first picture; `begins` is that one's timecode, in
    frames, with dropped numbers or not. `url` names the source."""

    cuts: list[Cut]
    rate: Fraction
    frames: int
    begins: int
    drop: bool
    url: str

    @property
    def length(self) -> int:
        return sum(cut.length for cut in self.cuts)


def cuts_of(document: SummaryDocument, video: Path | None) -> Cuts:
    """The summary's clips in frames of the source.

    Where pictures come unevenly, frames are those of an editor that puts each at its time on an even grid.

    Raises:
        VTSumError: the video cannot be read, or is not the one that was summarised.
    """
    source = document["source"]
    if not 0.001 <= source["fps"] <= 1000:
        raise VTSumError(f"export: the video's frame rate must be 0.001 to 1000, got {source['fps']:g}")
    rate = editing_rate(source["fps"])
    begins, drop = (0, False) if video is None else _first_timecode(document, video, rate)
    chapters = [(round(chapter["start"] * rate), chapter["title"]) for chapter in document["chapters"]]
    cuts, at = [], 0
    for clip in clips_of(document):
        start = round(clip["start"] * rate)
        length = max(round(clip["end"] * rate) - start, 1)
        own = tuple((max(frame, start), title) for frame, title in chapters if start <= frame < start + length)
        cuts.append(Cut(start, length, at, own))
        at += length
    name = source["name"].rpartition("/")[2]  # a stranger's path would have editors look there, on other machines even
    url = quote(name) if video is None else "file://" + quote(os.fsencode(video))
    return Cuts(cuts, rate, max(round(source["duration"] * rate), 1), begins, drop, url)


def _first_timecode(document: SummaryDocument, video: Path, rate: Fraction) -> tuple[int, bool]:
    """The timecode that the file states for its first picture, in frames; 0 where it states none."""
    from contextlib import closing

    from vtsum.video.source import open_container

    with closing(open_container(video, "export")) as container:
        size = document["source"]["size_bytes"]
        if os.stat(video).st_size != size:
            raise VTSumError(
                f"export: {plain(video)}: must be the video that was summarised, of {size:,} bytes, "
                f"got {os.stat(video).st_size:,}"
            )
        stated = [container.metadata, *(stream.metadata for stream in container.streams)]
        found = [frames_of(metadata["timecode"], rate) for metadata in stated if "timecode" in metadata]
    return next((each for each in found if each is not None), (0, False))


def edl(document: SummaryDocument, video: Path | None) -> str:
    """CMX 3600, as Premiere Pro, DaVinci Resolve and Avid read it."""
    cuts = cuts_of(document, video)
    name = _line(document["source"]["name"])
    tracks = "AA/V" if document["source"]["has_audio"] else "V"
    lines = [f"TITLE: {_line(document['title']['text'])[:70]}"]
    lines += ["FCM: DROP FRAME" if cuts.drop else "FCM: NON-DROP FRAME", ""]
    for number, cut in enumerate(cuts.cuts, 1):
        source = (cuts.begins + cut.start, cuts.begins + cut.start + cut.length)
        record = (cut.at, cut.at + cut.length)
        times = " ".join(timecode_of(frames, cuts.rate, cuts.drop) for frames in (*source, *record))
        lines += [f"{number:03}  AX       {tracks:5} C        {times}", f"* FROM CLIP NAME: {name}"]
    return "\n".join(lines) + "\n"


def fcpxml(document: SummaryDocument, video: Path | None) -> str:
    """FCPXML 1.8, which Final Cut Pro from 10.4 on and DaVinci Resolve read; chapters are its chapter markers.

    Raises:
        VTSumError: the pictures have no size.
    """
    cuts = cuts_of(document, video)
    source, title = document["source"], document["title"]["text"]
    if min(source["width"], source["height"]) < 1:
        found = f"{source['width']} x {source['height']}"
        raise VTSumError(f"export: fcpxml: source.width and source.height must be at least 1, got {found}")

    def time(frames: int) -> str:
        seconds = frames / cuts.rate
        return f"{seconds}s"

    root = ElementTree.Element("fcpxml", version="1.8")
    resources = ElementTree.SubElement(root, "resources")
    size = {"width": str(source["width"]), "height": str(source["height"])}
    ElementTree.SubElement(resources, "format", {"id": "r1", "frameDuration": time(1), **size})
    sound = {"hasAudio": "1", "audioSources": "1"} if source["has_audio"] else {}
    whole = {"start": time(cuts.begins), "duration": time(cuts.frames), "format": "r1"}
    ElementTree.SubElement(
        resources, "asset", {"id": "r2", "name": source["name"], "src": cuts.url, **whole, "hasVideo": "1", **sound}
    )
    event = ElementTree.SubElement(ElementTree.SubElement(root, "library"), "event", name=title)
    project = ElementTree.SubElement(event, "project", name=title)
    code = "DF" if cuts.drop else "NDF"
    sequence = ElementTree.SubElement(
        project, "sequence", format="r1", duration=time(cuts.length), tcStart="0s", tcFormat=code
    )
    spine = ElementTree.SubElement(sequence, "spine")
    for cut in cuts.cuts:
        span = {"offset": time(cut.at), "start": time(cuts.begins + cut.start), "duration": time(cut.length)}
        clip = ElementTree.SubElement(spine, "asset-clip", {"ref": "r2", "name": source["name"], **span})
        clip.set("tcFormat", code)
        for frame, chapter in cut.chapters:
            mark = {"start": time(cuts.begins + frame), "duration": time(1), "value": chapter}
            ElementTree.SubElement(clip, "chapter-marker", mark)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n' + ElementTree.tostring(root, "unicode") + "\n"


def otio(document: SummaryDocument, video: Path | None) -> str:
    """OpenTimelineIO's JSON: a track of pictures and one of sound, chapters as markers.

    Raises:
        VTSumError: opentimelineio is not installed.
    """
    from vtsum.extras import require

    require("exports", "export")
    import opentimelineio as io

    cuts = cuts_of(document, video)
    source = document["source"]
    rate = float(cuts.rate)

    def span(start: int, length: int) -> io.opentime.TimeRange:
        return io.opentime.TimeRange(io.opentime.RationalTime(start, rate), io.opentime.RationalTime(length, rate))

    timeline = io.schema.Timeline(document["title"]["text"], global_start_time=io.opentime.RationalTime(0, rate))
    for kind in ("Video", "Audio") if source["has_audio"] else ("Video",):
        track = io.schema.Track(kind, kind=kind)
        for cut in cuts.cuts:
            whole = io.schema.ExternalReference(cuts.url, span(cuts.begins, cuts.frames))
            clip = io.schema.Clip(source["name"], whole, span(cuts.begins + cut.start, cut.length))
            if kind == "Video":
                for frame, title in cut.chapters:
                    clip.markers.append(io.schema.Marker(title, span(cuts.begins + frame, 0)))
            track.append(clip)
        timeline.tracks.append(track)
    return str(io.adapters.write_to_string(timeline, "otio_json")) + "\n"


def _line(text: str) -> str:
    """Words as they may stand in one line of a file that is read line by line."""
    return " ".join(text.split())
