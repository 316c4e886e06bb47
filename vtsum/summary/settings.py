"""What summary.json says of the options of a summary."""

from __future__ import annotations

from typing import Any, TypedDict

_ADDED_SETTINGS: dict[str, Any] = {
    "offline_default": False,
    "writer": None,
    "clock": "summary",
    "device": "cpu",
    "keep": [],
    "drop": [],
    "margin": [0.0, 0.0],
    "min_shot": None,
    "start": 0.0,
    "end": None,
    "title": None,
    "fade": 0.005,
    "loudness": None,
    "encoder": "libx264",
    "crf": None,
    "preset": None,
    "tracks": "best",
    "stream_copy": False,
    "crop": None,
    "about": None,
}


class Span(TypedDict):
    """A stretch of the source video."""

    start: float
    end: float


class Settings(TypedDict):
    """What the user asked for."""

    budget: str  # as written: "15%", "30s", "12frames"
    budget_seconds: float  # what that is for this video
    model: str
    fps: float  # sampled frames a second
    formats: list[str]
    fade: float  # seconds at each cut of the sound
    loudness: float | None  # LUFS that the sound of each piece was brought to; null: it stays as it is
    encoder: str  # libav's, of summary.mp4
    crf: int | None  # its quality; null: the encoder's usual one here
    preset: str | None  # its speed; null: the encoder's usual one here
    stream_copy: bool  # cut at key frames without encoding
    crop: str | None  # width to height of the part of the pictures that is shown: "9:16"; null: all of them
    tracks: str  # of the source in summary.mp4: "best" (of its sound) or "all"
    clock: str  # of subtitles and chapters among them: "summary" or "source"
    sampler: str  # which of the sampled frames the encoder saw
    start: float  # the part of the video that was watched: from here, in seconds
    end: float | None  # to here; null: to its end
    title: str | None  # what the user calls the summary
    segmenter: str  # what found the events
    refine: str  # what chose among the shots
    about: str | None  # what the summary is to tell of, by words heard and read, and by pictures; null: of all alike
    keep: list[Span]  # what the summary shows in any case
    drop: list[Span]  # what it does not show in any case
    margin: list[float]  # seconds added before and after each chosen piece, where the budget has room
    min_shot: float | None  # seconds that a shot and a piece of it last at least; null: shots 0.5, pieces 1
    speech: str | None  # the recogniser; null: nobody listened
    transcript: str | None  # the user's own, a file's name
    denoiser: str | None  # of words that a recogniser heard
    captioner: str  # who describes the pictures
    writer: str | None  # who writes the text; null: it is extracted
    offline_default: bool  # nothing that only this machine's caches hold was taken
    device: str  # where models were to compute: "auto", "cpu", "cuda:1"
    ocr: bool  # whether words on the screen were to be read
    speech_limit: float | None  # seconds of voice that were listened to at most


def filled_settings(value: Any) -> Any:
    """The settings of a summary, those that came to version 2 later as they were before."""
    return {**_ADDED_SETTINGS, **value} if isinstance(value, dict) else value
