"""Putting the content of summary.json together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtsum.shown import cleaned
from vtsum.summary.planning import Plan
from vtsum.summary.schema import (
    SCHEMA,
    Box,
    ClipEntry,
    ModelUsed,
    Screen,
    Settings,
    ShotEntry,
    Span,
    Speech,
    SummaryDocument,
    UtteranceEntry,
    WordEntry,
)
from vtsum.summary.text import clock_time
from vtsum.summary.watching import Watched
from vtsum.version import __version__
from vtsum.video.part import first_frame

if TYPE_CHECKING:
    from vtsum.enhance.speech import Transcript
    from vtsum.protocols import Captioner, Writer
    from vtsum.summary.analysis import Analysis, ModelFacts, ReaderFacts
    from vtsum.summary.composing import Text
    from vtsum.video import CutResult, VideoInfo

_ALIKE = 0.5  # likeness to a better shot from which the reason mentions it


def build_document(
    info: VideoInfo,
    analysis: Analysis,
    plan: Plan,
    cut: CutResult | None,
    text: Text,
    captioner: Captioner | None = None,
    writer: Writer | None = None,
) -> SummaryDocument:
    """Return summary.json's content, its words clean (`vtsum.shown`) and the names of files as they are; `created` and
    `timings` are still to be filled in."""
    from vtsum.video.damage import damage_warning, join_spans

    watched, said, settings, model = analysis.watched, analysis.said, analysis.settings, analysis.model
    name, reader = analysis.name, analysis.reader
    watched_until = round(max(plan.shots[-1][1] / plan.rate, 1e-3), 3)
    duration = watched_until if settings["end"] is None else max(watched_until, round(info.duration, 3))
    formats = settings["formats"]
    copied = cut is not None and settings["stream_copy"]
    clips = _clips(plan, cut, watched_until, copied, pictures="keyframes" in formats or "html" in formats)
    made = cut.duration if cut else sum(len(c) for c in plan.clips.values()) / plan.rate
    damaged = join_spans([*watched.damaged, *(cut.damaged if cut else [])], duration)
    warnings = [*watched.warnings, *plan.warnings, *text.notes]
    if damaged:
        warnings.insert(0, damage_warning(damaged))
    if len(clips) < len(plan.clips):
        warnings.append(f"{len(plan.clips) - len(clips)} chosen shots could not be decoded for the summary")
    if said is not None and (not said.utterances or settings["transcript"] is not None):
        warnings += said.warnings
    warnings += _cut_warnings(settings, cut) + _moved(clips)
    boundary = plan.boundary_scores
    document: SummaryDocument = {
        "schema": SCHEMA,
        "vtsum_version": __version__,
        "created": "",
        "source": {
            "name": name,
            "title": info.title,
            "size_bytes": info.size_bytes,
            "container": info.container,
            "video_codec": info.video_codec,
            "audio_codec": info.audio_codec,
            "has_audio": info.has_audio,
            "width": info.width,
            "height": info.height,
            "rotation": info.rotation,
            "fps": round(float(info.fps), 4),
            "duration": duration,
        },
        "settings": settings,
        "model": {
            "name": model.name,
            "weights_sha256": model.weights_sha256,
            "embedded": model.embedded,
            "text_is_guess": model.text_is_guess,
        },
        "models": _models(model, said, reader, captioner, writer),
        "summary": {
            "file": "summary.mp4" if "mp4" in formats else None,
            "duration": round(made, 3),
            "share": round(made / duration, 4),
            "has_audio": cut.has_audio if cut else info.has_audio,
            "width": cut.width if cut else info.width,
            "height": cut.height if cut else info.height,
        },
        "shots": [_shot(plan, i, clips.get(i), watched_until) for i in range(len(plan.shots))],
        "frames": {
            "time": _times(watched, settings["fps"]),
            "saliency": [round(float(s), 4) for s in watched.saliency],
            "encoded_share": round(watched.encoded_share, 4),
            "boundary": None if boundary is None else [round(float(p), 4) for p in boundary],
        },
        "title": {
            "text": text.title.text,
            "origin": text.title.origin,
            "times": [] if text.title.span is None else [_within(text.title.span, duration)],
        },
        "text": [
            {
                "text": sentence.text,
                "origin": sentence.origin,
                "confidence": round(sentence.confidence, 4),
                "guess": sentence.origin == "seen" and captioner is None and model.text_is_guess,
                "times": [_within(span, duration) for span in sentence.times],
                "shots": list(sentence.shots),
            }
            for sentence in text.sentences
        ],
        "chapters": [
            {"start": round(chapter.start, 3), "title": chapter.title.text, "origin": chapter.title.origin}
            for chapter in text.chapters
        ],
        "speech": None if said is None else _speech(said, duration),
        "screen": None if reader is None else _screen(watched, reader, duration),
        "broken": watched.broken_at is not None,
        "truncated_at": None if watched.broken_at is None else round(watched.broken_at, 3),
        "damaged": [{"start": round(start, 3), "end": round(end, 3)} for start, end in damaged],
        "warnings": warnings,
        "timings": {},
    }
    made_fit: SummaryDocument = cleaned(document)
    made_fit["source"]["name"] = _name(name)
    if text.title.origin == "name":
        made_fit["title"]["text"] = _name(name)
    if settings["transcript"] is not None:
        made_fit["settings"]["transcript"] = _name(settings["transcript"])
    return made_fit


def _cut_warnings(settings: Settings, cut: CutResult | None) -> list[str]:
    """What is to be said of how summary.mp4 was made."""
    found = []
    if cut is not None and cut.softer:
        pieces = "1 piece is" if cut.softer == 1 else f"{cut.softer} pieces are"
        found.append(f"{pieces} softer than {settings['loudness']:g} LUFS: their peaks, or noise, leave no room")
    if settings["encoder"] != "libx264" and "mp4" in settings["formats"]:
        found.append(f"summary.mp4 is encoded by {settings['encoder']}: not every player shows that")
    return found


def _moved(clips: dict[int, ClipEntry]) -> list[str]:
    """What cutting at key frames cost in exactness."""
    pairs = [(clip["asked"], clip) for clip in clips.values() if clip["asked"] is not None]
    if not pairs:
        return []
    far = max(max(abs(clip["start"] - span["start"]), abs(clip["end"] - span["end"])) for span, clip in pairs)
    asked, made = (sum(each[n]["end"] - each[n]["start"] for each in pairs) for n in (0, 1))
    pieces = "1 piece" if len(pairs) == 1 else f"{len(pairs)} pieces"
    return [
        f"cut at key frames without encoding: the edges of {pieces} lie up to {far:.1f} s from where they were asked "
        f"for, {made:.1f} s are shown for {asked:.1f} s"
    ]


def _times(watched: Watched, fps: float) -> list[float]:
    first = first_frame(watched.start, fps)
    return [round(max((first + i) / fps, watched.start), 3) for i in range(len(watched.saliency))]


def _name(text: str) -> str:
    """A file's name as it is, for bytes that are no UTF-8 a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _within(span: tuple[float, float], duration: float) -> Span:
    start, end = span
    return {"start": round(start, 3), "end": round(max(min(end, duration), start + 0.001), 3)}


def _models(
    model: ModelFacts,
    said: Transcript | None,
    reader: ReaderFacts | None,
    captioner: Captioner | None,
    writer: Writer | None,
) -> list[ModelUsed]:
    used: list[tuple[str, str, dict[str, str], str | None]] = [
        ("saliency", model.name, {"weights": model.weights_sha256}, model.device)
    ]
    if said is not None:
        used += said.models
    if reader is not None:
        used.append(("screen", reader.name, reader.sha256, "cpu"))
    if captioner is not None:
        used.append(("captions", captioner.name, dict(captioner.sha256), _device(captioner)))
    if writer is not None:
        used.append(("text", writer.name, dict(writer.sha256), _device(writer)))
    return [{"part": part, "name": name, "sha256": digests, "device": device} for part, name, digests, device in used]


def _device(part: object) -> str | None:
    """Where a part computes, if it says so."""
    device = getattr(part, "device", None)
    return None if device is None else str(device)


def _speech(said: Transcript, duration: float) -> Speech:
    utterances: list[UtteranceEntry] = []
    for utterance in said.utterances:
        words: list[WordEntry] = [
            {
                "text": w.text,
                "start": round(min(w.start, duration), 3),
                "end": round(min(w.end, duration), 3),
                "confidence": round(w.confidence, 4),
            }
            for w in utterance.words
        ]
        utterances.append({"start": words[0]["start"], "end": max(w["end"] for w in words), "words": words})
    return {
        "source": said.source,
        "language": said.language,
        "utterances": utterances,
        "warnings": list(said.warnings),
    }


def _screen(watched: Watched, reader: ReaderFacts, duration: float) -> Screen:
    return {
        "source": reader.name,
        "sha256": reader.sha256,
        "lines": [
            {
                "text": line.text,
                "start": round(min(line.start, duration), 3),
                "end": round(min(line.end, duration), 3),
                "score": round(line.score, 4),
                "box": _box(line.box),
                "confirmed": line.confirmed,
            }
            for line in watched.screen
        ],
    }


def _box(sides: tuple[float, float, float, float]) -> Box:
    left, top, right, bottom = (round(min(max(side, 0.0), 1.0), 4) for side in sides)
    return {"left": left, "top": top, "right": right, "bottom": bottom}


def _clips(plan: Plan, cut: CutResult | None, duration: float, copied: bool, pictures: bool) -> dict[int, ClipEntry]:
    """What the summary shows of each chosen shot: as it was cut, or as planned where nothing was cut."""
    order = sorted(plan.clips)
    clips: dict[int, ClipEntry] = {}
    played = 0.0
    by_segment = {done.index: done for done in cut.shots} if cut is not None else {}
    for n, i in enumerate(order):
        clip = plan.clips[i]
        start, end = clip.start / plan.rate, clip.end / plan.rate
        shown = (start, end, played, played + end - start)
        keyframe = None
        if cut is not None:
            if n not in by_segment:
                continue
            done = by_segment[n]
            low, high = plan.span(i)
            low, high = min(low, start), max(high, end)  # beyond the shot lies a margin
            if copied:
                low, high = 0.0, duration  # key frames lie where they lie
            # The cut is snapped to real frames, which may lie up to one beside the shot's own edge.
            shown = (min(max(done.start, low), high), max(min(done.end, high), low), done.out_start, done.out_end)
            keyframe = f"keyframes/{done.keyframe.name}" if done.keyframe is not None and pictures else None
        played = shown[3]
        first, last, out_first, out_last = (round(t, 3) for t in shown)
        if last <= first or out_last <= out_first:  # a damaged file's clip may last no millisecond
            continue
        clips[i] = {
            "start": first,
            "end": min(last, duration),
            "summary_start": out_first,
            "summary_end": out_last,
            "asked": {"start": round(start, 3), "end": min(round(end, 3), duration)} if copied else None,
            "keyframe": keyframe,
            "keyframe_time": round(min(max(plan.peaks[i], first), last), 3),
        }
    return clips


def _shot(plan: Plan, i: int, clip: ClipEntry | None, duration: float) -> ShotEntry:
    start, end = plan.span(i)
    return {
        "index": i,
        "start": round(start, 3),
        "end": min(round(end, 3), duration),
        "saliency": round(float(plan.saliency[i]), 4),
        "liveliness": round(float(plan.lively[i]), 4),
        "score": round(float(plan.scores[i]), 4),
        "rank": plan.ranks[i],
        "chosen": clip is not None,
        "reason": _reason(plan, i, clip is not None),
        "clip": clip,
    }


def _reason(plan: Plan, i: int, chosen: bool) -> str:
    """Why a shot is in the summary or not, in words that anybody knows: interest is saliency, movement liveliness."""
    parts = [
        f"interest {plan.saliency[i]:.2f}",
        f"movement {plan.lively[i]:.2f}",
        f"rank {plan.ranks[i]} of {len(plan.shots)}",
    ]
    if plan.words[i]:
        parts.append(f"heard or read there: {', '.join(f'“{word}”' for word in plan.words[i])}")
    if plan.near[i]:
        parts.append("pictures among the nearest to what is asked about")
    if plan.like[i] >= _ALIKE and plan.twin[i] >= 0:
        other = int(plan.twin[i])
        shown = ", which is in the summary" if not chosen and other in plan.clips else ""
        new = f"{100 * plan.novelty[i]:.0f}% new"
        parts.append(f"{new}, much like the shot at {clock_time(plan.span(other)[0])}{shown}")
    if not chosen:
        out = "left out as asked" if i in plan.dropped else "left out for shots worth more of the budget"
        parts.append("not decodable at the cut" if i in plan.clips else out)
    else:
        clip = plan.clips[i]
        seconds = len(clip) / plan.rate
        parts.append(
            {
                "whole": "fits the budget",
                "trimmed": f"its best {seconds:.1f} s fit the budget",
                "filler": f"its best {seconds:.1f} s fill the rest of the budget",
                "kept": "kept as asked",
            }[clip.part]
        )
    return ", ".join(parts)
