"""The subtitle track inside a video as a transcript."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle
from av.video.stream import VideoStream

from vtsum.enhance.speech.cues import MAX_LINE, Cue, bounded
from vtsum.enhance.speech.sound import picture_origin, shown_video
from vtsum.enhance.speech.subtitles import untagged, utterances_of
from vtsum.enhance.speech.transcript import Transcript
from vtsum.shown import one_line
from vtsum.video.source import PacketReader, choose_audio, discard_others, open_container, show
from vtsum.video.timeline import time_base

_PICTURES = {  # libav's names of codecs and of their decoders
    **dict.fromkeys(("dvd_subtitle", "dvdsub"), "DVD"),
    **dict.fromkeys(("dvb_subtitle", "dvbsub"), "DVB"),
    **dict.fromkeys(("hdmv_pgs_subtitle", "pgssub"), "PGS"),
    "xsub": "XSUB",
}
_LONGEST = 15.0  # seconds that a subtitle stays where the file does not say
_OVERRIDE = re.compile(r"\{[^{}]*\}")  # of ASS
_DRAWING = re.compile(r"\\p[1-9]")  # in an override: what follows is a shape, no words


def read_subtitle_track(path: str | os.PathLike[str]) -> Transcript | None:
    """Read the words of a video's subtitle track; the pictures and the sound are not decoded.

    Of several tracks the one in the language of the sound is taken, before the default one, before the first. Tracks of
    pictures (DVD, Blu-ray, DVB), and forced ones, which translate single phrases, are passed over.

    Args:
        path: a video file in any format that FFmpeg knows.
    Returns:
        Transcript | None: with times on the clock of the pictures, `source` "subtitles"; None where there is no track
        of words, or no words in it.
    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows, or the track holds more than 300,000 words.
    """
    where = f"read_subtitle_track: {show(path)}"
    with closing(open_container(path, "read_subtitle_track")) as container:
        stream = _choose(container, shown_video(container, path, "read_subtitle_track"))
        if stream is None:
            return None
        language = _language(stream)
        origin = picture_origin(path, "read_subtitle_track") or 0.0
        discard_others(container, [stream])
        cues = sorted(bounded(_cues(container, stream, origin), where), key=lambda cue: cue.start)
    utterances = utterances_of(cues, where)
    return Transcript(utterances, "subtitles", language) if utterances else None


@dataclass(frozen=True)
class SubtitleTrack:
    """A track of words: (start, end, text) in seconds from the first picture, its language and title as stated."""

    cues: list[tuple[float, float, str]]
    language: str | None
    title: str | None


def subtitle_tracks(path: str | os.PathLike[str]) -> list[SubtitleTrack]:
    """All tracks of words in a video, forced ones among them, in the order of the file; none of pictures.

    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows, or a track holds too many words.
    """
    where = f"subtitle_tracks: {show(path)}"
    with closing(open_container(path, "subtitle_tracks")) as container:
        found = [s.index for s in container.streams.subtitles if _is_words(s)]
    origin = picture_origin(path, "subtitle_tracks") or 0.0 if found else 0.0
    tracks = []
    for index in found:  # each from the front: a reader of one stream passes over the others
        with closing(open_container(path, "subtitle_tracks")) as container:
            stream = next(s for s in container.streams.subtitles if s.index == index)
            discard_others(container, [stream])
            cues = sorted(bounded(_cues(container, stream, origin), where), key=lambda cue: cue.start)
            texts = [(cue.start, cue.end, "\n".join(map(untagged, cue.lines))) for cue in cues]
            tracks.append(SubtitleTrack(texts, _language(stream), one_line(stream.metadata.get("title") or "") or None))
    return tracks


def _is_words(stream: SubtitleStream) -> bool:
    return stream.codec_context is not None and stream.codec_context.name not in _PICTURES


def unread_subtitles(path: str | os.PathLike[str]) -> str | None:
    """A note where a video's only subtitles are pictures, which nobody reads, or None.

    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows.
    """
    with closing(open_container(path, "unread_subtitles")) as container:
        names = {s.codec_context.name for s in container.streams.subtitles if s.codec_context is not None}
        drawn = sorted(names & set(_PICTURES))
        if not drawn or names - set(_PICTURES):
            return None
        kinds = ", ".join(dict.fromkeys(_PICTURES[name] for name in drawn))
        return f"the subtitles in the file are pictures ({kinds}): they were not read"


def _choose(container: InputContainer, video: VideoStream | None) -> SubtitleStream | None:
    spoken = choose_audio(container, video)
    wanted = None if spoken is None else _language(spoken)
    usable = [s for s in container.streams.subtitles if _is_words(s) and not s.disposition & Disposition.forced]
    if not usable:
        return None
    return max(
        usable,
        key=lambda s: (
            wanted is not None and _language(s) == wanted,
            bool(s.disposition & Disposition.default),
            -s.index,
        ),
    )


def _language(stream: av.stream.Stream) -> str | None:
    """The stream's language as the file states it ("eng"), or None."""
    language = stream.metadata.get("language", "")
    return language if re.fullmatch(r"[A-Za-z-]{2,11}", language) and language != "und" else None


def _cues(container: InputContainer, stream: SubtitleStream, origin: float) -> Iterator[Cue]:
    base = float(time_base(stream))
    for packet in PacketReader(container, [stream]):
        if packet.pts is None or not packet.size:
            continue
        try:
            found = stream.codec_context.decode2(packet)
        except (av.FFmpegError, ValueError, MemoryError, UnicodeDecodeError):
            continue  # a damaged subtitle; the next may be whole
        if found is None:
            continue
        start = packet.pts * base - origin
        shown = (packet.duration or 0) * base or found.end_display_time / 1000
        end = start + (shown if 0 < shown < 1e6 else _LONGEST)
        lines = [line for rect in found if isinstance(rect, AssSubtitle) for line in _lines(rect)]
        if lines and end > 0:
            yield Cue(max(start, 0.0), end, tuple(lines))


def _lines(rect: AssSubtitle) -> list[str]:
    """The lines of one piece, without any that is longer than a subtitle can be: libav gives every text as an ASS
    dialogue, eight fields before the words."""
    fields = rect.ass.decode("utf-8", "replace").split(",", 8)
    text = fields[-1] if len(fields) == 9 else ""
    if any(_DRAWING.search(override) for override in _OVERRIDE.findall(text)):
        return []
    return [line for line in re.split(r"\\[Nn]|\n", text.replace(r"\h", " ")) if line.strip() and len(line) <= MAX_LINE]
