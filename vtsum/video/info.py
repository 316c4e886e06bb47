"""What a video file says about itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vtsum.errors import VTSumError
from vtsum.shown import one_line
from vtsum.video.picture import display_size, turn_of
from vtsum.video.source import check_file, choose_audio, choose_video, open_container, show
from vtsum.video.timeline import claimed_duration, first_picture, frame_rate, longest_duration


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video file.

    Attributes:
        path (Path): as given. duration (float): seconds, as the container states it; may be wrong for broken files.
        width, height (int): in pixels as displayed: after rotation, with square pixels.
        fps (float): average frame rate as stated. rotation (int): degrees clockwise that a player turns the picture.
        has_audio (bool): there is sound that can be decoded. video_codec (str), audio_codec (str | None), container
        (str): libav's names. title (str | None): from the metadata. size_bytes (int): of the file.
        stated_duration (float | None): the longest that the container itself states; None: `duration` is a guess.
    """

    path: Path
    duration: float
    width: int
    height: int
    fps: float
    rotation: int
    has_audio: bool
    video_codec: str
    audio_codec: str | None
    container: str
    title: str | None
    size_bytes: int
    stated_duration: float | None = None


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Read a video's facts and decode its first picture.

    Args:
        path: a video file in any format that FFmpeg knows.
    Returns:
        VideoInfo: the facts.
    Raises:
        VTSumError: the file is missing, empty, no regular file, holds no video that can be decoded, or is encrypted.
    """
    size_bytes = check_file(path, "probe").stat().st_size
    container = open_container(path, "probe")
    try:
        stream = choose_video(container, path, "probe")
        audio = choose_audio(container, stream)
        found = first_picture(container, stream)
        if found is None:
            raise VTSumError(f"probe: {show(path)}: no picture could be decoded ({stream.codec_context.name} video)")
        frame, _ = found
        turn = turn_of(frame)
        width, height = display_size(frame.width, frame.height, stream.sample_aspect_ratio, turn)
        return VideoInfo(
            path=Path(path),
            duration=claimed_duration(container, stream) or 1.0 / float(frame_rate(stream)),
            stated_duration=longest_duration(container, stream),
            width=width,
            height=height,
            fps=float(frame_rate(stream)),
            rotation=turn.rotation,
            has_audio=audio is not None,
            video_codec=stream.codec_context.name,
            audio_codec=None if audio is None else audio.codec_context.name,
            container=container.format.name,
            title=one_line(container.metadata.get("title") or "") or None,
            size_bytes=size_bytes,
        )
    finally:
        container.close()
