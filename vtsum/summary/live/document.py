"""summary.json of a stream: what it shows so far."""

from __future__ import annotations

from typing import Any, TypedDict

from vtsum.errors import VTSumError
from vtsum.reading import said_of
from vtsum.summary.typed import check_type

SCHEMA = "vtsum-live/1"
_SLACK = 0.002  # seconds: times are rounded to milliseconds


class LiveSource(TypedDict):
    """Where the pictures come from. Width, height, rate, codec and container are as the source states them."""

    name: str
    kind: str  # "file", "pipe", "address", "pictures"
    width: int
    height: int
    fps: float
    video_codec: str
    container: str


class LiveSettings(TypedDict):
    """What was asked for."""

    budget: str
    budget_seconds: float
    fps: float
    segmenter: str
    memory: str | None
    every: float
    patience: float


class LiveModel(TypedDict):
    """The model that gave the saliency."""

    name: str
    weights_sha256: str


class LiveShots(TypedDict):
    """What became of the shots. `given_up` is the share, at most, of the value of all settled shots that is not in the
    store any more (`vtsum.summary.live.shots`)."""

    settled: int
    kept: int
    given_up: float


class LiveMoment(TypedDict):
    """A moment that the summary shows. Times are seconds of the stream."""

    start: float
    end: float
    shot_start: float
    shot_end: float  # of a shot that goes on: as far as it has come
    settled: bool  # false: the shot's ends, and whether it is shown, may still change by what comes next to it
    saliency: float
    score: float
    keyframe: str | None  # path inside the output folder
    keyframe_time: float


class LiveDocument(TypedDict):
    """summary.json of a stream."""

    schema: str
    vtsum_version: str
    created: str  # ISO 8601, UTC
    source: LiveSource
    settings: LiveSettings
    model: LiveModel
    state: str  # "running"; "stopped": it can be gone on with; "ended": the source has
    frames: int  # that were looked at
    duration: float  # seconds of the stream that they stand for
    summary_duration: float
    file: str | None  # summary.mp4
    shots: LiveShots
    moments: list[LiveMoment]
    warnings: list[str]


def validate_live(document: Any) -> LiveDocument:
    """Check a decoded summary.json of a stream and return it, typed.

    Raises:
        VTSumError: naming the first field that is missing, unknown, of a wrong type, or breaks a promise.
    """
    if isinstance(document, dict) and document.get("schema") != SCHEMA:
        raise VTSumError(f"summary.json: schema must be {SCHEMA!r}, got {said_of(document, 'schema')}")
    check_type(document, LiveDocument, "summary.json: document")
    checked: LiveDocument = document
    before, shown = 0.0, 0.0
    for i, moment in enumerate(checked["moments"]):
        where, (start, end) = f"moments[{i}]", (moment["start"], moment["end"])
        inside = moment["shot_start"] - _SLACK <= start < end <= moment["shot_end"] + _SLACK
        for kept, rule in (
            (before - _SLACK <= start, "begin where the one before ended, or later"),
            (inside, "lie inside its shot"),
            (end <= checked["duration"] + _SLACK, "lie inside the stream"),
        ):
            if not kept:
                raise VTSumError(f"summary.json: {where} must {rule}")
        before, shown = end, shown + end - start
    if abs(shown - checked["summary_duration"]) > _SLACK * (1 + len(checked["moments"])):
        raise VTSumError("summary.json: summary_duration must be the sum of the moments")
    return checked
