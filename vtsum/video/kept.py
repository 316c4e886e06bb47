"""Tracks of a video that are all kept."""

from __future__ import annotations

import os
from contextlib import closing

from av.audio.stream import AudioStream
from av.container import InputContainer

from vtsum.errors import VTSumError
from vtsum.video.source import open_container, show

MOST_SOUND, MOST_SUBTITLES = 100, 200
"""Tracks of sound and of subtitles that are kept of a video: each is read in a pass of its own."""


def check_kept(path: str | os.PathLike[str], op: str) -> None:
    """Refuse a video whose tracks cannot all be kept.

    Raises:
        VTSumError: they are more than 100 of sound or 200 of subtitles, or one is of a kind that libav does not read.
    """
    with closing(open_container(path, op)) as container:
        kept_sound(container, path, op)
        count = len(container.streams.subtitles)
        if count > MOST_SUBTITLES:
            raise VTSumError(
                f"{op}: {show(path)}: must have at most {MOST_SUBTITLES} tracks of subtitles to keep all, got {count}"
            )


def kept_sound(container: InputContainer, path: str | os.PathLike[str], op: str) -> list[AudioStream]:
    """All tracks of sound of a video, in its order.

    Raises:
        VTSumError: as `check_kept`.
    """
    found = list(container.streams.audio)
    if len(found) > MOST_SOUND:
        raise VTSumError(
            f"{op}: {show(path)}: must have at most {MOST_SOUND} tracks of sound to keep all, got {len(found)}"
        )
    for number, stream in enumerate(found, 1):
        if stream.codec_context is None:
            raise VTSumError(f"{op}: {show(path)}: track {number} of sound is of a kind that cannot be read, or kept")
    return found
