"""Making a summary of a video that was analysed: choose, cut, write the text meanwhile, put all files in place."""

from __future__ import annotations

import datetime
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vtsum.enhance.summary_refinement import Budget
from vtsum.errors import Stopped, VTSumError
from vtsum.shown import escaped
from vtsum.summary import schema
from vtsum.summary.about import fits, passages
from vtsum.summary.analysis import FILE, Analysis
from vtsum.summary.chapters import Title, title_of
from vtsum.summary.composing import Text, compose
from vtsum.summary.document import build_document
from vtsum.summary.exports import EXPORTS, export, file_of
from vtsum.summary.exports.times import Clocked
from vtsum.summary.planning import Plan, Refine, make_plan
from vtsum.summary.progress import Clock, ProgressCallback
from vtsum.summary.seeing import RESEARCH, UNCALIBRATED, captioner_at_hand, look, model_describes
from vtsum.summary.spoken import kept_subtitles, summary_cues, summary_subtitles
from vtsum.summary.staging import StagedFolder, writing_failed
from vtsum.summary.text import Moment, describe, text_file
from vtsum.summary.values import FORMATS, coding_of, shape_of
from vtsum.threads import torch_threads

if TYPE_CHECKING:
    from vtsum.model import Summarizer
    from vtsum.protocols import Captioner, Writer
    from vtsum.video import CutResult, VideoInfo

_FILES = {"mp4": "summary.mp4", "txt": "summary.txt", "json": "summary.json", "html": "report.html", "analysis": FILE}


@dataclass(frozen=True)
class Summary:
    """What `summarize` made.

    Attributes:
        output (Path): the folder.
        files (dict[str, Path]): one path for each of the formats asked for; "keyframes" is a folder. None after a dry
            run, whose `data` has no text either.
        data (SummaryDocument): the content of summary.json, also where that was not asked for.
    """

    output: Path
    files: dict[str, Path]
    data: schema.SummaryDocument

    @property
    def duration(self) -> float:
        """Length of the summary in seconds."""
        return self.data["summary"]["duration"]

    @property
    def text(self) -> str:
        """The sentences of the text summary, in order of time."""
        return " ".join(sentence["text"] for sentence in self.data["text"])

    @property
    def shots(self) -> list[schema.ShotEntry]:
        """All shots of the video; those with `chosen` are in the summary."""
        return self.data["shots"]

    @property
    def warnings(self) -> list[str]:
        """What the user should know, one line each."""
        return self.data["warnings"]


@dataclass(frozen=True)
class Run:
    """What a command works with beside its options.

    Attributes:
        source: the video. stays (bool): it stays where it is, and other programs may be told so. folder: the output.
        overwrite, dry_run (bool): as for `summarize`. device: of models that are loaded. timer, tell: who hears how far
            it is.
    """

    source: Path
    stays: bool
    folder: Path
    overwrite: bool
    dry_run: bool
    device: str
    timer: Clock
    tell: ProgressCallback


@dataclass(frozen=True)
class Making:
    """A summary in the making.

    Attributes:
        run: what it is made with. stage: where its files are put together. info: of the video. analysis: what was found
            in it; its settings are this summary's. model: what gave the saliency, and captions where `model_describes`;
            None where it is not needed any more. captioner, writer: asked for by name.
    """

    run: Run
    stage: StagedFolder
    info: VideoInfo
    analysis: Analysis
    model: Summarizer | None
    captioner: Captioner | None
    writer: Writer | None


def choose(analysis: Analysis, budget: Budget, info: VideoInfo, model: Summarizer | None) -> Plan:
    """What the summary shows, by the analysis's settings; `budget_seconds` is written there.

    Args:
        model: the one that the video was watched with, where something is asked about.
    Raises:
        VTSumError: see `make_plan`.
    """
    settings, said, watched = analysis.settings, analysis.said, analysis.watched
    about = settings["about"]
    plan = make_plan(
        watched,
        budget,
        info,
        settings["fps"],
        segmenter=settings["segmenter"],
        refine=cast(Refine, settings["refine"]),
        pauses=said.pauses(watched.duration) if said is not None and said.utterances else (),
        boundary_scores=analysis.boundaries,
        keep=[(span["start"], span["end"]) for span in settings["keep"]],
        drop=[(span["start"], span["end"]) for span in settings["drop"]],
        margin=settings["margin"],
        min_shot=settings["min_shot"],
        about=about,
        told=passages(said, watched.screen) if about else (),
        seen=fits(about, model, watched.event_features) if about and model is not None else None,
    )
    settings["budget_seconds"] = round(plan.budget_seconds, 3)
    return plan


def finish(making: Making, plan: Plan) -> Summary:
    """Make all files of a summary and put its folder in place; of a dry run, tell what it would show.

    Raises:
        VTSumError: the source cannot be read, or a file cannot be written.
    """
    stage, settings = making.stage, making.analysis.settings
    if stage.dry:
        return Summary(stage.final, {}, _foreseen(making, plan))
    try:
        data = _write(making, plan)
    except OSError as error:
        raise writing_failed(stage.final, error) from None
    except VTSumError as error:
        # The cutter names the temporary folder, which is gone by the time the user reads of it.
        raise VTSumError(str(error).replace(str(stage.path), str(stage.final))) from None
    stage.commit()
    files = {name: stage.final / _file_of(name, settings["clock"]) for name in settings["formats"]}
    return Summary(stage.final, {name: path for name, path in files.items() if path.exists()}, data)


def _foreseen(making: Making, plan: Plan) -> schema.SummaryDocument:
    """The content of summary.json before anything is cut and any text is written."""
    settings, own = making.analysis.settings, making.info.title
    named = Title(settings["title"], "given") if settings["title"] else title_of(own, making.run.source.name, (), ())
    data = build_document(making.info, making.analysis, plan, None, Text(named, [], [], []))
    data["summary"]["file"] = None
    return _stamped(data, making.run.timer)


def _stamped(data: schema.SummaryDocument, timer: Clock) -> schema.SummaryDocument:
    data["created"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    data["timings"] = timer.timings()
    return data


def _file_of(name: str, clock: str) -> str:
    """Where in a summary's folder a format is."""
    return _FILES.get(name) or (name if name in FORMATS else file_of(name, clock))


def _write(making: Making, plan: Plan) -> schema.SummaryDocument:
    """Cut, write the text meanwhile, and put all files into the staged folder."""
    analysis, folder, source, info = making.analysis, making.stage.path, making.run.source, making.info
    watched, said, settings, model = analysis.watched, analysis.said, analysis.settings, making.model
    captioner, timer, tell = making.captioner, making.run.timer, making.run.tell
    formats = settings["formats"]
    captioned = model_describes(settings["captioner"], analysis.model.text_is_guess)
    reads_pictures = captioned and analysis.model.reads_pictures
    wants_pictures = reads_pictures or bool({"keyframes", "html"} & set(formats))
    notes: list[str] = []
    cut_result: CutResult | None = None
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        job = None
        try:
            if wants_pictures or "mp4" in formats:
                job = pool.submit(_cut, making, plan, wants_pictures, stop)
            if reads_pictures and job is not None:
                cut_result = job.result()
            with timer("text"):
                tell("text", 0.0)
                captions = []
                if captioned:
                    assert model is not None
                    with torch_threads(count=1):  # the other cores are cutting
                        captions = describe(model, watched.features, _moments(plan, cut_result))
                    if settings["captioner"] == "embedded" and model.text_is_guess and captions:
                        notes.append(RESEARCH)
                asked = captioner is not None
                captioner = captioner or captioner_at_hand(
                    settings["captioner"], analysis.model.text_is_guess, settings["offline_default"], making.run.device
                )
                spans = [(i, clip.start / plan.rate, clip.end / plan.rate) for i, clip in sorted(plan.clips.items())]
                if captioner is not None:
                    try:
                        captions = look(captioner, source, _moments(plan, None), spans, said)
                        if captions and not asked:
                            notes.append(UNCALIBRATED.format(captioner.name))
                    except VTSumError as error:
                        if asked:
                            raise
                        captioner = None
                        notes.append(f"the pictures were not described: {error}")
                text = compose(
                    source,
                    info,
                    watched,
                    said,
                    plan,
                    captions,
                    settings["fps"],
                    making.writer,
                    settings["title"],
                    settings["about"],
                )
                text.notes[:0] = notes
                tell("text", 1.0)
            if job is not None:
                cut_result = job.result()
        except BaseException:
            stop.set()  # the pool waits for its thread: let it end soon
            raise
    if "analysis" in formats:  # with what was heard again for the text
        analysis.save(folder / FILE)
    data = build_document(info, analysis, plan, cut_result, text, captioner, making.writer)
    if "mp4" in formats:
        from vtsum.video.tracks import Track, add_tracks

        cues, chapters = summary_cues(data), Clocked(data, "summary").chapters()
        tracks = [Track(cues, data["speech"]["language"] if data["speech"] else None)] if cues else []
        if settings["tracks"] == "all":
            kept = kept_subtitles(source, data)
            tracks = [*kept, *tracks] if said is None or said.source != "subtitles" else kept
        if tracks or chapters or settings["title"]:
            add_tracks(folder / "summary.mp4", tracks, chapters, settings["title"])
    for name in formats:
        if name in EXPORTS:
            try:
                export(data, [name], folder, clock=settings["clock"], video=source if making.run.stays else None)
            except VTSumError as error:
                data["warnings"].append(f"{name} was not written: {str(error).removeprefix('export: ')}")
    if "html" in formats:
        from vtsum.summary.report import write_report

        with timer("page"):
            tell("page", 0.0)
            write_report(folder / "report.html", data, folder)
            tell("page", 1.0)
    _stamped(data, timer)
    if "txt" in formats:
        (folder / "summary.txt").write_text(text_file(data), encoding="utf-8")
    if "json" in formats:
        content = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1)
        (folder / "summary.json").write_text(escaped(content) + "\n", encoding="utf-8")
    if "mp4" in formats and (subtitles := summary_subtitles(data)) is not None:
        (folder / "summary.vtt").write_text(subtitles, encoding="utf-8")
    if "mp4" not in formats:
        (folder / "summary.mp4").unlink(missing_ok=True)
    if "keyframes" not in formats:
        for picture in (folder / "keyframes").glob("*.jpg"):
            picture.unlink()
        if (folder / "keyframes").is_dir():
            (folder / "keyframes").rmdir()
    return data


def _moments(plan: Plan, cut: CutResult | None) -> list[Moment]:
    """The chosen shots that may get a sentence; with their key frames where those were cut before."""
    pictures = {} if cut is None else {shot.index: shot.keyframe for shot in cut.shots}
    moments = []
    for n, i in enumerate(sorted(plan.clips)):
        if cut is None or pictures.get(n) is not None:
            moments.append(Moment(i, plan.frames[i], plan.span(i), float(plan.scores[i]), pictures.get(n)))
    return moments


def _cut(making: Making, plan: Plan, pictures: bool, stop: threading.Event) -> CutResult:
    """Write summary.mp4 and, if wanted, the key frames, in one pass over the chosen parts of the source."""
    from vtsum.video import cut
    from vtsum.video.copying import copy

    tell, folder, watched = making.run.tell, making.stage.path, making.analysis.watched
    settings = making.analysis.settings
    tell("cut", 0.0)
    order = sorted(plan.clips)
    segments = [(plan.clips[i].start / plan.rate, plan.clips[i].end / plan.rate) for i in order]
    whole = max(sum(end - start for start, end in segments), 1e-3)

    def note(done: float) -> None:
        if stop.is_set():
            raise Stopped
        tell("cut", min(done / whole, 0.99))

    target, keyframes = folder / "summary.mp4", folder / "keyframes" if pictures else None
    times, all_sound = [plan.peaks[i] for i in order], settings["tracks"] == "all"
    with making.run.timer("cut"):
        if settings["stream_copy"]:
            result = copy(
                making.run.source,
                segments,
                target,
                keyframe_dir=keyframes,
                keyframe_times=times,
                all_sound=all_sound,
                on_progress=note,
            )
        else:
            result = cut(
                making.run.source,
                segments,
                target,
                keyframe_dir=keyframes,
                keyframe_times=times if pictures else None,
                duration=watched.duration,
                largest=watched.largest,
                coding=coding_of(settings, "cut"),
                loudness=settings["loudness"],
                all_sound=all_sound,
                crop=shape_of(settings["crop"]),
                on_progress=note,
            )
    tell("cut", 1.0)
    return result
