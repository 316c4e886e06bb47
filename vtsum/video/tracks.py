"""Subtitles and chapters of an MP4, which players show when they are asked to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.stream import Stream

from vtsum.errors import VTSumError
from vtsum.files import written
from vtsum.shown import reason
from vtsum.video.source import show

if TYPE_CHECKING:
    from av.container.core import Chapter

_TICKS = 1000  # a second
_LONGEST = 65_535  # bytes of a text, whose length takes two
# MP4 wants languages in three letters (ISO 639-2/T).
_LANGUAGES = """
    ar:ara bg:bul bn:ben ca:cat cs:ces cy:cym da:dan de:deu el:ell en:eng es:spa et:est eu:eus fa:fas fi:fin fr:fra
    gl:glg gu:guj he:heb hi:hin hr:hrv hu:hun hy:hye id:ind is:isl it:ita ja:jpn ka:kat kk:kaz km:khm kn:kan ko:kor
    lo:lao lt:lit lv:lav mk:mkd ml:mal mr:mar ms:msa my:mya ne:nep nl:nld no:nor pa:pan pl:pol pt:por ro:ron ru:rus
    si:sin sk:slk sl:slv sq:sqi sr:srp sv:swe sw:swa ta:tam te:tel th:tha tl:tgl tr:tur uk:ukr ur:urd vi:vie zh:zho
"""


@dataclass(frozen=True)
class Track:
    """Subtitles: (start, end, text) in seconds, in order; the language of the texts, a tag of BCP 47 or the three
    letters of MP4, and what the track is called."""

    cues: Sequence[tuple[float, float, str]]
    language: str | None = None
    title: str | None = None


def add_tracks(
    path: Path,
    tracks: Sequence[Track],
    chapters: Sequence[tuple[float, float, str]] = (),
    title: str | None = None,
) -> None:
    """Put tracks of subtitles (mov_text), chapters and a title into an MP4; pictures and sound stay as they are.

    Args:
        path: the MP4, which is replaced when the new one is whole.
        tracks: of subtitles, each with at least one.
        chapters: (start, end, title) in seconds, in order.
        title: for the file's metadata.
    Raises:
        VTSumError: the file cannot be read or written.
    """
    try:
        with (
            written(path) as part,
            av.open(os.fspath(path)) as source,
            av.open(os.fspath(part), "w", format="mp4", options={"movflags": "+faststart"}) as target,
        ):
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            for stream in source.streams.audio:
                for key in ("language", "handler_name"):
                    if key in stream.metadata:
                        streams[stream.index].metadata[key] = stream.metadata[key]
            waiting: list[tuple[float, float, str, Stream]] = []
            for subtitles in tracks:
                track = target.add_mux_stream("mov_text")
                track.time_base = Fraction(1, _TICKS)
                track.metadata["language"] = _three_letters(subtitles.language)
                if subtitles.title:
                    track.metadata["handler_name"] = subtitles.title
                waiting += [(*cue, track) for cue in subtitles.cues]
            waiting.sort(key=lambda cue: cue[0], reverse=True)
            if title:
                target.metadata["title"] = title
            target.set_chapters([_chapter(number, *chapter) for number, chapter in enumerate(chapters)])
            for packet in source.demux():
                if packet.dts is None:
                    continue
                while waiting and waiting[-1][0] <= packet.dts * packet.time_base:
                    target.mux(_packet(*waiting.pop()))
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
            while waiting:
                target.mux(_packet(*waiting.pop()))
    except (av.FFmpegError, OSError) as error:
        raise VTSumError(f"add_tracks: {show(path)} must be an MP4 that can be replaced: {reason(error)}") from None


def apart(cues: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Cues of which none begins before the one before it ends: MP4 knows one text at a time. Those that begin together
    are shown together."""
    found: list[tuple[float, float, str]] = []
    for start, end, text in sorted(cues):
        if found and start - found[-1][0] < 1 / _TICKS:
            found[-1] = (found[-1][0], max(end, found[-1][1]), f"{found[-1][2]}\n{text}")
            continue
        if found and found[-1][1] > start:
            found[-1] = (found[-1][0], start, found[-1][2])
        found.append((start, end, text))
    return found


def _three_letters(language: str | None) -> str:
    first = (language or "").split("-")[0].lower()
    return dict(pair.split(":") for pair in _LANGUAGES.split()).get(first, first if len(first) == 3 else "und")


def _chapter(number: int, start: float, end: float, title: str) -> Chapter:
    return {
        "id": number,
        "start": round(start * _TICKS),
        "end": round(end * _TICKS),
        "time_base": Fraction(1, _TICKS),
        "metadata": {"title": title},
    }


def _packet(start: float, end: float, text: str, track: Stream) -> av.Packet:
    content = text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").encode()
    packet = av.Packet(len(content).to_bytes(2, "big") + content)
    begins = round(start * _TICKS)
    packet.stream, packet.time_base = track, Fraction(1, _TICKS)
    packet.pts = packet.dts = begins
    packet.duration = max(round(end * _TICKS) - begins, 1)
    return packet
