"""Subtitles and chapters of an MP4, which players show when they are asked to."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
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


def add_tracks(
    path: Path,
    cues: Sequence[tuple[float, float, str]],
    language: str | None,
    chapters: Sequence[tuple[float, float, str]] = (),
    title: str | None = None,
) -> None:
    """Put a track of subtitles (mov_text), chapters and a title into an MP4; pictures and sound stay as they are.

    Args:
        path: the MP4, which is replaced when the new one is whole.
        cues: (start, end, text) in seconds, in order; none: there is no track of them.
        language: of the texts, a tag of BCP 47.
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
            if cues:
                track = target.add_mux_stream("mov_text")
                track.time_base = Fraction(1, _TICKS)
                track.metadata["language"] = _three_letters(language)
            if title:
                target.metadata["title"] = title
            target.set_chapters([_chapter(number, *chapter) for number, chapter in enumerate(chapters)])
            waiting = deque(cues)
            for packet in source.demux():
                if packet.dts is None:
                    continue
                while waiting and waiting[0][0] <= packet.dts * packet.time_base:
                    target.mux(_packet(track, *waiting.popleft()))
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
            for left in waiting:
                target.mux(_packet(track, *left))
    except (av.FFmpegError, OSError) as error:
        raise VTSumError(f"add_tracks: {show(path)} must be an MP4 that can be replaced: {reason(error)}") from None


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


def _packet(track: Stream, start: float, end: float, text: str) -> av.Packet:
    content = text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").encode()
    packet = av.Packet(len(content).to_bytes(2, "big") + content)
    begins = round(start * _TICKS)
    packet.stream, packet.time_base = track, Fraction(1, _TICKS)
    packet.pts = packet.dts = begins
    packet.duration = max(round(end * _TICKS) - begins, 1)
    return packet
