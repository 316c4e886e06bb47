"""ActivityNet Captions: sentences with the span each speaks of.

Source: Krishna et al., "Dense-captioning events in videos", ICCV 2017. VideoXum takes its text side from here.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtsum.data.feature_files import array_header, check_id, feature_file
from vtsum.data.rules import LONGEST, is_duration, misshapen, spans_in
from vtsum.errors import VTSumError
from vtsum.files import plain, write_text
from vtsum.reading import LIMIT, as_said, named, parse_json, read_at_most, read_file
from vtsum.shown import reason


@dataclass(frozen=True)
class ActivityNetVideo:
    """One video's text: `sentences[i]` speaks of `timestamps[i]` (start and end in seconds, within 0 to `duration`)."""

    id: str
    duration: float
    timestamps: tuple[tuple[float, float], ...]
    sentences: tuple[str, ...]


def load_activitynet_captions(path: str | Path) -> list[ActivityNetVideo]:
    """Every video of one ActivityNet Captions file, in the file's order.

    Stray spaces in sentences are removed, sentences that are empty are left out with their times, spans written
    backwards are turned round, and times are clipped to the video.

    Args:
        path: train, val_1 or val_2 as published, .json or .json.gz.
    Raises:
        VTSumError: the file is missing or broken, an id could not name a file, or an entry lacks a field, has unequal
        numbers of both, or times that are none.
    """
    path = Path(path)
    raw = read_file(path, "load_activitynet_captions")
    where = f"load_activitynet_captions: {path}"
    if path.suffix == ".gz":
        try:
            raw = read_at_most(gzip.GzipFile(fileobj=io.BytesIO(raw)), LIMIT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise VTSumError(f"{where} must be a whole gzip file, got: {error}") from None
        if len(raw) > LIMIT:
            raise VTSumError(f"{where} must unpack to at most {LIMIT} bytes, got more")
    content = parse_json(raw, dict, where)
    return [_video(check_id(video, f"{where}: an id"), entry, path) for video, entry in content.items()]


def videoxum_entries(
    videos: Sequence[ActivityNetVideo], features: str | os.PathLike[str] | None = None
) -> list[dict[str, Any]]:
    """Entries of a VideoXum annotation file with texts and times, and without `vsum` and `vsum_onehot`.

    Videos without a word are left out. A sentence that ends in none of the signs that VideoXum turns into spaces gets a
    full stop, since VideoXum joins sentences without a space.

    Args:
        features: folder of feature files; videos without one are left out, and `sampled_frames` is its number of rows.
            None: all videos, at one frame a second.
    Raises:
        VTSumError: a feature file is broken.
    """
    entries = []
    for video in videos:
        sentences = [s if s[-1] in '.!"()*#:;~' else f"{s}." for s in video.sentences]
        if not any(char.isalnum() for sentence in sentences for char in sentence):
            continue
        frames = max(1, math.ceil(video.duration))
        if features is not None:
            path = feature_file(features, video.id)
            if not path.exists():
                continue
            shape, dtype = array_header(path, "features")
            if problem := misshapen(path, "features", shape, dtype, None):
                raise VTSumError(problem)
            frames = shape[0]
        entries.append(
            {
                "video_id": video.id,
                "duration": video.duration,
                "sampled_frames": frames,
                "timestamps": [list(span) for span in video.timestamps],
                "tsum": sentences,
            }
        )
    return entries


def write_videoxum_annotations(entries: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write an annotation file through a temporary name; its folder is made if need be.

    Raises:
        VTSumError: it cannot be written.
    """
    try:
        write_text(path, json.dumps(entries) + "\n")
    except OSError as error:
        raise VTSumError(f"write_videoxum_annotations: {plain(path)} must be writable: {reason(error)}") from None


def _video(video: str, entry: Any, path: Path) -> ActivityNetVideo:
    where = f"load_activitynet_captions: {path}: {video}"
    if not (isinstance(entry, Mapping) and {"duration", "timestamps", "sentences"} <= entry.keys()):
        found = sorted(entry) if isinstance(entry, Mapping) else named(entry)
        raise VTSumError(f"{where} must have duration, timestamps and sentences, got {found!s:.80}")
    given, spans, sentences = entry["duration"], spans_in(entry["timestamps"]), entry["sentences"]
    if not is_duration(given):
        raise VTSumError(
            f"{where}: duration must be a number of seconds above 0, up to {LONGEST:,}, got {as_said(given, 60)}"
        )
    if spans is None:
        found = entry["timestamps"]
        raise VTSumError(
            f"{where}: timestamps must be pairs of seconds, none beyond {LONGEST:,} either way, got "
            f"{as_said(found, 60)}"
        )
    if not (isinstance(sentences, list) and all(isinstance(sentence, str) for sentence in sentences)):
        raise VTSumError(f"{where}: sentences must be a list of texts, got {as_said(sentences, 60)}")
    if len(spans) != len(sentences):
        raise VTSumError(f"{where} must have a sentence for each span, got {len(spans)} and {len(sentences)}")
    duration, kept = float(given), []
    for (start, end), sentence in zip(spans, sentences, strict=True):
        text = " ".join(sentence.split())
        if text:
            start, end = sorted((min(max(start, 0.0), duration), min(max(end, 0.0), duration)))
            kept.append(((start, end), text))
    return ActivityNetVideo(video, duration, tuple(span for span, _ in kept), tuple(text for _, text in kept))
