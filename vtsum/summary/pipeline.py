"""The main job: a video in, its summary out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from vtsum.devices import device_of, gpu_left_unused, memory_told
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.summary.analysis import Analysis, HeardAgain, ModelFacts, ReaderFacts
from vtsum.summary.declaring import taken, with_options
from vtsum.summary.listening import CARRIED, RECOGNISER, Listening
from vtsum.summary.making import Making, Run, Summary, choose, finish
from vtsum.summary.naming import fields_of, filled, short
from vtsum.summary.options import Options
from vtsum.summary.progress import Clock, ProgressCallback, ignore
from vtsum.summary.seeing import CAPTIONERS, named_captioner
from vtsum.summary.staging import StagedFolder, check_output
from vtsum.summary.values import coding_of
from vtsum.summary.watching import WatchedFrames, watch
from vtsum.summary.writing import named_writer
from vtsum.threads import import_whole, quick_switches
from vtsum.video.part import Part

if TYPE_CHECKING:
    from vtsum.enhance.screen_text import RapidReader
    from vtsum.model import Summarizer

EMBEDDED_SIZE = 128  # pixels; the embedded frame encoder's pictures, known here without its imports


@with_options(Options)
@memory_told("summarize", "take smaller models")
def summarize(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> Summary:
    """Summarise a video file: a shorter video, a short text, and a page that shows both.

    The file's pictures are decoded once for the analysis, and its sound once; only features are kept of the frames, so
    memory does not grow with the pictures. The output folder appears whole at the end, or not at all.

    Args:
        path: the video, anything that PyAV reads: a file, "-" (standard input), a pipe, or an address on the web
            (http, https) or in an object store (s3, gs, az). What is no file becomes one in the system's temporary
            folder meanwhile (`vtsum.video.incoming`).
        output: folder for the results; None: `<name of the video>_summary` in the current folder. In a text {stem}
            stands for the video's name, {budget} for what was asked for, {date} for today's; a path object is taken as
            it is.
        budget: "15%" of the video, "30s", "2min", "1:30", or "12frames" (sampled frames).
        model: "embedded", another model's name or folder, or a loaded model (`vtsum.model.load`).
            For model, segmenter and speech "module:Class" names a part of the user's own (`vtsum.plugins`).
        fps (float): frames sampled a second, 0.0001 to 30.
        formats: any of "mp4", "txt", "json", "keyframes", "html", and those of `vtsum.summary.exports.export`; of these
            one that has nothing to hold, as subtitles where nobody speaks, is a warning.
        keep, drop: stretches that the summary shows whole, or nothing of: "0:10-0:20, 1:02:03-1:02:30", or pairs of
            seconds. What is kept counts towards the budget.
        clock (str): the times of subtitles and chapters among the exports, "summary" or "source".
        overwrite (bool): replace an older summary. A folder that holds anything else, or an input, is never replaced.
        dry_run (bool): find out what the summary would show, and write nothing.
        sampler: which sampled frames the encoder sees: "coverage", "uniform" or "all" (`vtsum.summary.watching.watch`).
        segmenter: what finds the events, one of `vtsum.enhance.event_segmentation.METHODS` or the user's own.
        refine: what chooses among the shots: "dpp", "knapsack" or "none" (`vtsum.summary.planning.make_plan`).
        speech (str | None): who listens, a recogniser's name (`vtsum.enhance.speech.make_recogniser`) or the user's
            own; None: nobody.
        transcript: the user's own transcript, a file (`vtsum.enhance.speech.read_transcript`), taken instead of
            listening.
        denoiser (str | None): what cleans the words heard: "embedded", the folder or hub name of a
            sequence-to-sequence checkpoint (BART), or None.
        speech_limit (float | None): seconds of voice that a recogniser listens to at most, above 0, spread evenly over
            the video; None: to all of it.
        captioner: who describes the pictures: "auto", the model, or, where it cannot, as the embedded one, the best
            image-text-to-text checkpoint in the hub's cache; "blip", the folder or hub name of such a checkpoint, or
            one of the user's own; "none", nobody; "embedded", the model in any case, for research. Where nothing is
            heard or read either, the text tells what was measured.
        writer (str | None): who writes the text: the folder or hub name of an instruct checkpoint, or one of the user's
            own; a sentence that what is heard and read does not bear out is not taken. None: the text is extracted.
        ocr (bool): read words on the screen, if what `vtsum[ocr]` brings is installed; else a warning says so.
        offline_default (bool): "auto" takes nothing from this machine's caches, and computes on the CPU: the same
            summary wherever the same packages are installed.
        device (str): where everything that is loaded by name computes (model, recogniser, denoiser, captioner, writer):
            "auto", a GPU where there is one that can be used, else the CPU; "cpu", "cuda", "cuda:1", ... A loaded model
            stays where it is, and what is the user's own knows by itself. What decides what is shown computes in
            float32 everywhere.
        progress: called with (stage, fraction 0..1), from several threads; stages are the keys of
            `vtsum.summary.progress.STAGES`.
        options: these and the others, each declared in `vtsum.summary.options`.
    Returns:
        Summary: paths of the files, and the content of summary.json.
    Raises:
        VTSumError: one line that names what is wrong: the file, an option, the device, the output folder.
    """
    timer = Clock()
    tell = progress or ignore
    asked = taken(Options, options, "summarize")
    coding_of(asked, "summarize")  # a mistake is told before the work
    if asked["end"] is not None and asked["end"] <= asked["start"]:
        raise VTSumError(f"summarize: end must be after start, {asked['start']:g} s, got {asked['end']:g} s")
    where = "cpu" if asked["device"] == "auto" and asked["offline_default"] else str(asked["device"])
    if where not in ("auto", "cpu"):
        device_of(where, "summarize")
    from vtsum.video.incoming import as_file, comes_from_elsewhere, name_of

    name = Path(name_of(path))
    usual = Path.cwd() / f"{short(name.stem) or 'video'}_summary"
    folder = usual if output is None else filled(output, fields_of(asked["budget"], name), "summarize")
    fetched = comes_from_elsewhere(path)
    if fetched:
        check_output(folder, overwrite)
        tell("fetch", 0.0)
    with as_file(path, "summarize", lambda share: tell("fetch", share)) as source:
        if fetched:
            tell("fetch", 1.0)
        return _summarise(Run(source, not fetched, folder, overwrite, dry_run, where, timer, tell), asked)


def _summarise(run: Run, asked: Mapping[str, Any]) -> Summary:
    source, where, timer, tell = run.source, run.device, run.timer, run.tell
    wanted, fps, model, speech = asked["budget"], asked["fps"], asked["model"], asked["speech"]
    transcript, denoiser, captioner, writer = (
        asked[name] for name in ("transcript", "denoiser", "captioner", "writer")
    )
    offline_default = asked["offline_default"]
    part = (asked["start"], asked["end"])
    from vtsum.video import probe
    from vtsum.video.kept import check_kept

    with timer("probe"):
        info = probe(source)
        if asked["tracks"] == "all":
            check_kept(source, "summarize")
        if info.stated_duration is not None:
            # Refuses a budget longer than the video, and a part beyond it, before the work.
            wanted.seconds(_length(part, info.stated_duration), fps)
    inputs = [source, transcript, model if isinstance(model, str | os.PathLike) else None, denoiser]
    inputs.append(speech.partition(":")[2] if speech else None)  # the folder of whisper:FOLDER
    inputs += [None if captioner in CAPTIONERS else captioner, writer]
    reader, unread = _reader() if asked["ocr"] else (None, [])
    listener = CARRIED if offline_default and speech == RECOGNISER else speech
    with StagedFolder(run.folder, run.overwrite, inputs, dry=run.dry_run) as stage:
        describer = named_captioner(captioner, where)
        author = named_writer(writer, where)
        with Listening(
            source, info, listener, transcript, denoiser, asked["speech_limit"], where, tell, part
        ) as listening:
            with timer("read"):
                # Importing what a model needs takes seconds: the pictures are decoded meanwhile, where their size is
                # known before.
                ahead = (
                    WatchedFrames(source, info, fps, EMBEDDED_SIZE, tell, reader, part) if model == "embedded" else None
                )
                try:
                    with quick_switches():
                        import_whole("vtsum.model")  # somebody listens meanwhile, and may import its parts
                        loaded = load_model(model, text=captioner == "embedded", device=where)
                    watched = watch(
                        source, info, loaded, fps, tell, sampler=asked["sampler"], ahead=ahead, reader=reader, part=part
                    )
                    watched.warnings.extend(unread)
                    if where == "auto" and (why := gpu_left_unused()):
                        watched.warnings.append(f"the GPU was not used: {why}")
                finally:
                    if ahead is not None:
                        ahead.close()
            with timer("listen"):  # what is left of it
                said = listening.said(watched.duration)
                if said is not None and said.again is not None:
                    said = dataclasses.replace(said, again=HeardAgain(said.again))
                if where.startswith("cuda") and said and ("speech", "cpu") in {(m[0], m[3]) for m in said.models}:
                    watched.warnings.append("what is said was listened to on the CPU: CTranslate2 cannot use the GPU")
        with timer("shots"):
            tell("shots", 0.0)
            settings = cast(
                schema.Settings,
                {
                    **asked,
                    "budget": wanted.text,
                    "budget_seconds": 0.0,
                    "model": loaded.name,
                    "transcript": None if transcript is None else Path(os.fsdecode(os.fspath(transcript))).name,
                    "device": str(asked["device"]),
                },
            )
            analysis = Analysis(
                source.name,
                info.size_bytes,
                settings,
                watched,
                said,
                loaded.boundaries(watched.features),
                ModelFacts.of(loaded),
                None if reader is None else ReaderFacts.of(reader),
            )
            plan = choose(analysis, wanted, info, loaded)
            tell("shots", 1.0)
        making = Making(run, stage, info, analysis, loaded, describer, author)
        return finish(making, plan)


def _reader() -> tuple[RapidReader | None, list[str]]:
    """Who reads words on the screen; where nobody can, why."""
    from vtsum.enhance.screen_text.reader import RapidReader

    try:
        return RapidReader(), []
    except VTSumError as error:
        return None, [f"words on the screen were not read: {str(error).removeprefix('words on the screen: ')}"]


def _length(part: Part, duration: float) -> float:
    """Seconds of a part of a video.

    Raises:
        VTSumError: it lies beyond the video's end.
    """
    start, end = part
    if start >= duration:
        raise VTSumError(f"summarize: start must lie in the video of {duration:.1f} s, got {start:g} s")
    return min(duration, duration if end is None else end) - start


def load_model(model: str | os.PathLike[str] | Summarizer, *, text: bool = True, device: str = "auto") -> Summarizer:
    """A model by name or path (`text`: of `vtsum.model.load`) on that device; a loaded one as it is."""
    if not isinstance(model, str | os.PathLike):
        return model
    from vtsum.model import load

    return load(os.fspath(model), text=text, device=device_of(device, "summarize"))
