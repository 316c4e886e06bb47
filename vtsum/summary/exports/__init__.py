"""A summary for other programs: edit lists, subtitles, chapters, a table. Made of summary.json alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vtsum.errors import VTSumError
from vtsum.files import AnyPath, check_inputs, check_new, replacing, spot
from vtsum.shown import cleaned, reason
from vtsum.summary.exports.chapters import chapter_list, ffmetadata, youtube
from vtsum.summary.exports.cuts import edl, fcpxml, otio
from vtsum.summary.exports.subtitle_files import srt, webvtt
from vtsum.summary.exports.table import csv
from vtsum.summary.exports.times import CLOCKS, Clocked
from vtsum.summary.schema import SummaryDocument

_CUTS: dict[str, Callable[[SummaryDocument, Path | None], str]] = {"edl": edl, "otio": otio, "fcpxml": fcpxml}
_TIMED: dict[str, tuple[str, Callable[[Clocked], str]]] = {
    "srt": ("srt", srt),
    "vtt": ("vtt", webvtt),
    "chapters": ("chapters.txt", chapter_list),
    "ffmetadata": ("ffmetadata", ffmetadata),
    "youtube": ("youtube.txt", youtube),
}
EXPORTS = (*_CUTS, "csv", *_TIMED)


def export(
    document: SummaryDocument,
    names: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    clock: str = "summary",
    video: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    inputs: Sequence[AnyPath] = (),
) -> dict[str, Path]:
    """Write a summary in the formats of other programs.

    Args:
        document: the content of summary.json (`vtsum.summary.schema.read`).
        names: "edl" (CMX 3600), "otio" (OpenTimelineIO) and "fcpxml" (Final Cut Pro), the summary's clips as cuts of
            the source video; "csv", a row for each shot; "srt" and "vtt", subtitles of what is said; "chapters" (OGM,
            as mkvmerge and MP4Box read it), "ffmetadata" (FFmpeg) and "youtube" (lines for a description), chapters.
        folder: where the files go.
        clock: the times of subtitles and chapters: "summary", those of summary.mp4, or "source", the video's own.
        video: the source video, for cuts that name its place and count from its own timecode; None: they name the file
            alone, and count from 0.
        overwrite: replace files of the same names, but for the video.
        inputs: other files that are not to be replaced, such as the summary.json that was read.
    Returns:
        dict[str, Path]: the files by format: summary.edl, summary.otio, summary.fcpxml, summary.csv; summary.srt or
        source.srt by their clock, and likewise vtt, chapters.txt, ffmetadata and youtube.txt.
    Raises:
        VTSumError: an unknown name or clock; there is nothing to export, as chapters of a short video, or words where
            nobody speaks; the video is not the one that was summarised; a file cannot be written. Nothing is written
            then.
    """
    for name in names:
        if name not in EXPORTS:
            raise VTSumError(f"export: format must be among {', '.join(EXPORTS)}, got {name!r}")
    if clock not in CLOCKS:
        raise VTSumError(f"export: clock must be {' or '.join(CLOCKS)}, got {clock!r}")
    document = cleaned(document)  # which may be a stranger's
    place = None if video is None else Path(os.path.abspath(os.fspath(video)))
    texts: dict[str, str] = {}
    for name in names:
        if name in _CUTS:
            texts[name] = _CUTS[name](document, place)
        elif name in _TIMED:
            texts[name] = _TIMED[name][1](Clocked(document, clock))
        else:
            texts[name] = csv(document)
    files = {name: Path(folder) / file_of(name, clock) for name in texts}
    for file in files.values():
        check_inputs("export", file, [video, *inputs])
        check_new("export", file, overwrite)
    try:
        with replacing(Path(folder)) as part:
            for name, text in texts.items():
                part(files[name].name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise VTSumError(f"export: {spot(error, folder)}: cannot be written to: {reason(error)}") from None
    return files


def file_of(name: str, clock: str) -> str:
    """The name of the file that a format is written to."""
    return f"{clock}.{_TIMED[name][0]}" if name in _TIMED else f"summary.{name}"


FILES = tuple(dict.fromkeys(file_of(name, clock) for name in EXPORTS for clock in CLOCKS))
"""The names of all files that `export` may write."""
