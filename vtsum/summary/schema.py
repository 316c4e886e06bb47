"""summary.json: what is in it, and a strict check of it.

The document is an object of the fields of `SummaryDocument`, in UTF-8. All times are seconds; those called `start`,
`end` and `time` are counted in the source video, those called `summary_start` and `summary_end` in summary.mp4. The
field `schema` names the version: readers should refuse a version they do not know. Within a version fields are only
added, never changed or removed. `read` also takes version 1, which knew nothing of words on the screen.

Words (titles, sentences, notes) hold no control characters and no marks that turn the order of letters. The names of
files are as they are, bytes that are no UTF-8 as question marks; what a terminal would obey in them is written in the
file as its number (\\u202e).

`validate` checks types, unknown and missing fields, and the promises that types cannot express: shots in order, without
gaps or overlaps, clips inside their shots (and the margin asked for), sentences that speak of times inside the video.
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, TypedDict

from vtsum.errors import VTSumError
from vtsum.reading import read_json, said_of
from vtsum.summary.settings import Settings, Span, filled_settings
from vtsum.summary.typed import check_type

SCHEMA, BEFORE = "vtsum-summary/2", "vtsum-summary/1"
_ADDED: dict[str, Any] = {"models": [], "chapters": []}
_LIMIT = 1 << 30  # bytes: a long video has every frame and every word in it
_LONGEST = 10**10  # seconds: whatever is computed of it has an end
_SLACK = 0.002  # seconds: times are rounded to milliseconds


class Source(TypedDict):
    """The video that was summarised. `duration` is what could really be decoded, or, where the part that was watched
    ends before, what is stated."""

    name: str  # file name without its folder, as it is
    title: str | None  # from the file's own metadata
    size_bytes: int
    container: str
    video_codec: str
    audio_codec: str | None
    has_audio: bool
    width: int  # as displayed, after rotation
    height: int
    rotation: int  # degrees clockwise: 0, 90, 180, 270
    fps: float
    duration: float


class Model(TypedDict):
    """The model that gave saliency and text."""

    name: str
    weights_sha256: str
    embedded: bool
    text_is_guess: bool  # its sentences are guesses and must be shown as such


class ModelUsed(TypedDict):
    """What took part in the summary, and its files of weights."""

    part: str  # "saliency", "voice activity", "speech", "denoiser", "screen", "captions", "text"
    name: str
    sha256: dict[str, str]  # by file; "weights": of a network's values, whatever file they came from
    device: str | None  # where it computed; null: not known, as of the user's own


class SummaryVideo(TypedDict):
    """summary.mp4, or what it would be when it was not asked for (`file` null)."""

    file: str | None
    duration: float
    share: float  # of the source's duration
    has_audio: bool
    width: int
    height: int


class ClipEntry(TypedDict):
    """The part of a shot that the summary shows; with a margin it may reach into the shots beside."""

    start: float
    end: float
    summary_start: float
    summary_end: float
    asked: Span | None  # what was to be shown, where it was cut at key frames; null: it was cut where it was to be
    keyframe: str | None  # path inside the output folder
    keyframe_time: float


class ShotEntry(TypedDict):
    """One shot between two event boundaries."""

    index: int
    start: float
    end: float
    saliency: float  # mean over its frames, 0..1; of the embedded model: the share of viewers who would keep it
    liveliness: float  # how much its pictures change, 0..1 within this video
    score: float  # what the selection weighed: both of them, lowered for shots that look like a better one
    rank: int  # 1 is the highest score
    chosen: bool
    reason: str  # in words
    clip: ClipEntry | None  # null when not chosen


class Frames(TypedDict):
    """Every sampled frame: lists of equal length."""

    time: list[float]
    saliency: list[float]
    encoded_share: float  # of the frames, that the model's encoder saw; the others took their neighbours' features
    boundary: list[float] | None  # probability that an event begins there; null without a boundary head


class TitleEntry(TypedDict):
    """What the summary is called."""

    text: str
    # "given" by the user; "file": its own; "read" or "heard": a quotation; "written" after them; "name" of the file
    origin: str
    times: list[Span]  # of what is quoted; empty else


class ChapterEntry(TypedDict):
    """A chapter of the source video, up to the next one or the end."""

    start: float
    title: str
    origin: str  # as a title's, or "number"


class SentenceEntry(TypedDict):
    """One sentence of the text summary."""

    text: str
    origin: str  # "seen": it tells of the pictures; "read": it quotes the screen; "heard": it was spoken; "written"
    # after what is read and heard; "measured"
    confidence: float  # 0..1: mean probability of a token, or of a word heard or read; 1 of what was measured
    guess: bool  # it was asked for by --captioner embedded, and is hardly ever true
    times: list[Span]  # what it speaks of; of words heard or read, when they were
    shots: list[int]  # the chosen ones it belongs to; of a sentence seen, one for each of the times


class UtteranceEntry(TypedDict):
    """A sentence, or what was said in one breath."""

    start: float
    end: float
    words: list[WordEntry]


class WordEntry(TypedDict):
    """One word that was said."""

    text: str
    start: float
    end: float
    confidence: float  # 0..1; 1 where somebody wrote it


class Speech(TypedDict):
    """What is said in the video."""

    source: str  # "faster-whisper:tiny.en", "subtitles", a file's name ...; "none" where nothing could be listened to
    language: str | None
    utterances: list[UtteranceEntry]
    warnings: list[str]


class Box(TypedDict):
    """A part of the picture, upright, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


class ScreenLineEntry(TypedDict):
    """A row of letters on the screen, between the first and the last second in which it was seen."""

    text: str
    start: float
    end: float
    score: float  # how sure the reader is, 0..1
    box: Box
    confirmed: bool  # read alike twice, as all that is quoted; false where a summary from before does not say


class Screen(TypedDict):
    """What is written on the screen."""

    source: str  # the models that read, and their version
    sha256: dict[str, str]  # of their files
    lines: list[ScreenLineEntry]


class SummaryDocument(TypedDict):
    """summary.json."""

    schema: str
    vtsum_version: str
    created: str  # ISO 8601, UTC
    source: Source
    settings: Settings
    model: Model
    models: list[ModelUsed]  # all that took part
    summary: SummaryVideo
    shots: list[ShotEntry]
    frames: Frames
    title: TitleEntry
    text: list[SentenceEntry]
    chapters: list[ChapterEntry]  # none for two minutes and less
    speech: Speech | None  # null: nobody listened
    screen: Screen | None  # null: nobody read
    broken: bool  # the file could not be decoded to its end
    truncated_at: float | None  # where decoding stopped, when broken
    damaged: list[Span]  # where the decoder concealed or skipped something that it noticed
    warnings: list[str]
    timings: dict[str, float]  # seconds of wall time per stage; "cut" and "text" run at the same time


def _promise(kept: bool, what: str) -> None:
    if not kept:
        raise VTSumError(f"summary.json: {what}")


def validate(document: Any) -> SummaryDocument:
    """Check a decoded summary.json and return it, typed.

    Raises:
        VTSumError: naming the first field that is missing, unknown, of a wrong type, or breaks a promise.
    """
    if isinstance(document, dict) and document.get("schema") != SCHEMA:
        raise VTSumError(f"summary.json: schema must be {SCHEMA!r}, got {said_of(document, 'schema')}")
    check_type(document, SummaryDocument, "summary.json: document")
    checked = typing.cast(SummaryDocument, document)
    duration = checked["source"]["duration"]
    settings = checked["settings"]
    for part in ("source", "summary"):
        lasts = checked[part]["duration"]
        _promise(0 <= lasts <= _LONGEST, f"{part}.duration must be 0 to {_LONGEST:,} s, got {lasts:g}")
    before, played, shown = settings["start"], 0.0, 0.0
    margin = settings["margin"]
    _promise(len(margin) == 2 and min(margin) >= 0, "settings.margin must be two numbers of at least 0")
    for i, shot in enumerate(checked["shots"]):
        where = f"shots[{i}]"
        _promise(shot["index"] == i, f"{where}.index must be {i}, got {shot['index']}")
        _promise(abs(shot["start"] - before) <= _SLACK, f"{where} must start where the one before ended, {before}")
        _promise(shot["start"] < shot["end"], f"{where} must end after its start")
        _promise(shot["chosen"] == (shot["clip"] is not None), f"{where}.clip must be there exactly if chosen")
        before = shot["end"]
        if clip := shot["clip"]:
            meant = clip["asked"] or clip
            low, high = shot["start"] - margin[0] - _SLACK, shot["end"] + margin[1] + _SLACK
            _promise(clip["start"] < clip["end"], f"{where}.clip must end after its start")
            _promise(
                low <= meant["start"] < meant["end"] <= high,
                f"{where}.clip must lie inside the shot and its margin",
            )
            _promise(shown - _SLACK <= clip["start"], f"{where}.clip must begin where the one before ended, or later")
            shown = clip["end"]
            _promise(shown <= duration + _SLACK, f"{where}.clip must lie in the video")
            _promise(clip["summary_start"] >= played - _SLACK, f"{where}.clip must follow the clip before")
            _promise(clip["summary_start"] < clip["summary_end"], f"{where}.clip must last")
            played = clip["summary_end"]
    whole = before <= duration + _SLACK if settings["end"] is not None else abs(before - duration) <= _SLACK
    _promise(not checked["shots"] or whole, "shots must cover the video, or the part of it that was watched")
    _promise(played <= checked["summary"]["duration"] + 0.1, "clips must lie inside the summary")
    ranks = sorted(shot["rank"] for shot in checked["shots"])
    _promise(ranks == list(range(1, len(ranks) + 1)), "ranks must be 1..number of shots")
    frames = checked["frames"]
    _promise(len(frames["time"]) == len(frames["saliency"]), "frames.time and frames.saliency must be equally long")
    _promise(all(0 <= s <= 1 for s in frames["saliency"]), "frames.saliency must lie in 0..1")
    boundary = frames["boundary"]
    _promise(boundary is None or len(boundary) == len(frames["time"]), "frames.boundary must be as long as frames.time")
    _promise(0 < frames["encoded_share"] <= 1, "frames.encoded_share must be above 0 and at most 1")
    for i, sentence in enumerate(checked["text"]):
        origins = ("seen", "read", "heard", "written", "measured")
        _promise(sentence["origin"] in origins, f"text[{i}].origin must be one of {', '.join(origins)}")
        _promise(bool(sentence["times"]), f"text[{i}].times must not be empty")
        _promise(0 <= sentence["confidence"] <= 1, f"text[{i}].confidence must lie in 0..1")
        for span in sentence["times"]:
            _promise(0 <= span["start"] < span["end"] <= duration + _SLACK, f"text[{i}].times must lie in the video")
    before = -_SLACK
    for i, chapter in enumerate(checked["chapters"]):
        _promise(before < chapter["start"] < duration, f"chapters[{i}] must begin after the one before, in the video")
        before = chapter["start"]
    for span in checked["title"]["times"]:
        _promise(0 <= span["start"] <= span["end"] <= duration + _SLACK, "title.times must lie in the video")
    spoken = 0.0
    for i, utterance in enumerate((checked["speech"] or {"utterances": []})["utterances"]):
        starts = [word["start"] for word in utterance["words"]]
        _promise(bool(starts) and starts == sorted(starts), f"speech.utterances[{i}].words must be there and in order")
        _promise(spoken <= starts[0], f"speech.utterances[{i}] must follow the one before")
        spoken = starts[0]
        for word in utterance["words"]:
            _promise(0 <= word["confidence"] <= 1, f"speech.utterances[{i}].words must have confidences in 0..1")
            inside = 0 <= word["start"] <= word["end"] <= duration + _SLACK
            _promise(inside, f"speech.utterances[{i}].words must lie in the video")
    for i, line in enumerate((checked["screen"] or {"lines": []})["lines"]):
        inside = 0 <= line["start"] <= line["end"] <= duration + _SLACK
        _promise(inside, f"screen.lines[{i}] must lie in the video")
    for i, span in enumerate(checked["damaged"]):
        inside = 0 <= span["start"] <= span["end"] <= duration + _SLACK
        _promise(inside, f"damaged[{i}] must lie in the video")
    _promise(checked["broken"] == (checked["truncated_at"] is not None), "truncated_at must be there exactly if broken")
    return checked


def read(path: str | Path) -> SummaryDocument:
    """Read and check a summary.json of this version or the one before.

    Raises:
        VTSumError: it cannot be read, is no JSON, or is not a valid summary of these versions.
    """
    document = read_json(path, dict, "summary.json", _LIMIT)
    if document.get("schema") == BEFORE:
        document = {**document, "schema": SCHEMA, "screen": None}
        if isinstance(document.get("speech"), dict):  # what was guessed was of a recogniser that is no more
            document["speech"] = {k: v for k, v in document["speech"].items() if k != "guess"}
        if isinstance(document.get("settings"), dict):
            document["settings"] = {**document["settings"], "ocr": False}
    return validate(_filled(document))


def filled_lines(lines: Any) -> Any:
    """Lines on the screen; those from before there was a second reading were not confirmed."""
    if not isinstance(lines, list):
        return lines
    return [{"confirmed": False, **line} if isinstance(line, dict) else line for line in lines]


def _filled(document: dict[str, Any]) -> dict[str, Any]:
    """With the fields that came to version 2 later, as they were before."""
    source = document.get("source")
    own = source.get("title") or source.get("name") if isinstance(source, dict) else None
    origin = "file" if isinstance(source, dict) and source.get("title") else "name"
    document = {**_ADDED, "title": {"text": own, "origin": origin, "times": []}, **document}
    if "settings" in document:
        document["settings"] = filled_settings(document["settings"])
    if isinstance(document.get("shots"), list):
        document["shots"] = [_filled_shot(shot) for shot in document["shots"]]
    screen = document.get("screen")
    if isinstance(screen, dict):
        document["screen"] = {**screen, "lines": filled_lines(screen.get("lines"))}
    if isinstance(document["models"], list):
        document["models"] = [{"device": None, **m} if isinstance(m, dict) else m for m in document["models"]]
    return document


def _filled_shot(shot: Any) -> Any:
    clip = shot.get("clip") if isinstance(shot, dict) else None
    return {**shot, "clip": {"asked": None, **clip}} if isinstance(clip, dict) else shot
