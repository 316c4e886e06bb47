"""The main job: a video in, its summary out."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vtsum.enhance.event_segmentation import METHOD, find_segmenter
from vtsum.enhance.summary_refinement import Budget, parse_budget
from vtsum.errors import Stopped, VTSumError
from vtsum.shown import escaped
from vtsum.summary import schema
from vtsum.summary.composing import compose
from vtsum.summary.document import build_document
from vtsum.summary.listening import CARRIED, DENOISER, LIMIT, RECOGNISER, Listening
from vtsum.summary.planning import Plan, Refine, make_plan
from vtsum.summary.progress import Clock, ProgressCallback, ignore
from vtsum.summary.seeing import (
    CAPTIONERS,
    RESEARCH,
    UNCALIBRATED,
    captioner_at_hand,
    look,
    model_describes,
    named_captioner,
)
from vtsum.summary.spoken import summary_cues, summary_subtitles
from vtsum.summary.staging import StagedFolder, writing_failed
from vtsum.summary.text import Moment, describe, text_file
from vtsum.summary.watching import SAMPLERS, Sampler, Watched, WatchedFrames, watch
from vtsum.threads import quick_switches, torch_threads

if TYPE_CHECKING:
    from vtsum.enhance.screen_text import RapidReader
    from vtsum.enhance.speech import Transcript
    from vtsum.model import Summarizer
    from vtsum.protocols import Captioner, Writer
    from vtsum.video import CutResult, VideoInfo

FORMATS = ("mp4", "txt", "json", "keyframes", "html")
EMBEDDED_SIZE = 128  # pixels; the embedded frame encoder's pictures, known here without its imports
_FPS = (1e-4, 30.0)
_NAME = 100  # bytes of the video's name in that of the folder


@dataclass(frozen=True)
class Summary:
    """What `summarize` made.

    Attributes:
        output (Path): the folder.
        files (dict[str, Path]): one path for each of the formats asked for; "keyframes" is a folder.
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


def summarize(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    budget: str | Budget = "15%",
    model: str | os.PathLike[str] | Summarizer = "embedded",
    fps: float = 1.0,
    formats: Sequence[str] = FORMATS,
    overwrite: bool = False,
    sampler: Sampler = "coverage",
    segmenter: str = METHOD,
    refine: Refine = "dpp",
    speech: str | None = RECOGNISER,
    transcript: str | os.PathLike[str] | None = None,
    denoiser: str | None = DENOISER,
    speech_limit: float | None = LIMIT,
    captioner: str = "auto",
    writer: str | None = None,
    ocr: bool = True,
    offline_default: bool = False,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Summarise a video file: a shorter video, a short text, and a page that shows both.

    The file's pictures are decoded once for the analysis, and its sound once; only features are kept of the frames, so
    memory does not grow with the pictures. The output folder appears whole at the end, or not at all.

    Args:
        path: the video, anything that PyAV reads.
        output: folder for the results; None: `<name of the video>_summary` in the current folder.
        budget: "15%" of the video, "30s", "2min", "1:30", or "12frames" (sampled frames).
        model: "embedded", another model's name or folder, or a loaded model (`vtsum.model.load`).
            For model, segmenter and speech "module:Class" names a part of the user's own (`vtsum.plugins`).
        fps (float): frames sampled a second, 0.0001 to 30.
        formats: any of "mp4", "txt", "json", "keyframes", "html".
        overwrite (bool): replace an older summary. A folder that holds anything else, or an input, is never replaced.
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
        offline_default (bool): "auto" takes nothing from this machine's caches, and listens on the CPU: the same
            summary wherever the same packages are installed.
        progress: called with (stage, fraction 0..1), from several threads; stages are the keys of
            `vtsum.summary.progress.STAGES`.
    Returns:
        Summary: paths of the files, and the content of summary.json.
    Raises:
        VTSumError: one line that names what is wrong: the file, an option, the output folder.
    """
    clock = Clock()
    tell = progress or ignore
    wanted = parse_budget(budget)
    chosen_formats = check_formats(formats)
    if not _FPS[0] <= fps <= _FPS[1]:
        raise VTSumError(f"summarize: fps must be {_FPS[0]:g} to {_FPS[1]:g}, got {fps:g}")
    if speech_limit is not None and not speech_limit > 0:
        raise VTSumError(f"summarize: speech_limit must be above 0 seconds, or None, got {speech_limit:g}")
    for name, value, known in (
        ("sampler", sampler, SAMPLERS),
        ("refine", refine, get_args(Refine)),
    ):
        if value not in known:
            raise VTSumError(f"summarize: {name} must be one of {', '.join(known)}, got {value!r}")
    find_segmenter(segmenter, "summarize: segmenter")
    from vtsum.video import probe

    with clock("probe"):
        source = Path(os.fsdecode(os.fspath(path)))
        info = probe(source)
        if info.stated_duration is not None:
            wanted.seconds(info.stated_duration, fps)  # refuses a budget longer than the video before the work
    folder = Path(output) if output is not None else Path.cwd() / f"{_short(source.stem) or 'video'}_summary"
    inputs = [source, transcript, model if isinstance(model, str | os.PathLike) else None, denoiser]
    inputs.append(speech.partition(":")[2] if speech else None)  # the folder of whisper:FOLDER
    inputs += [None if captioner in CAPTIONERS else captioner, writer]
    reader, unread = _reader() if ocr else (None, [])
    listener = CARRIED if offline_default and speech == RECOGNISER else speech
    with StagedFolder(folder, overwrite, inputs) as stage:
        describer = named_captioner(captioner)
        author = None if writer is None else _writer(writer)
        with Listening(source, info, listener, transcript, denoiser, speech_limit, tell) as listening:
            with clock("read"):
                # Importing what a model needs takes seconds: the pictures are decoded meanwhile, where their size is
                # known before.
                ahead = WatchedFrames(source, info, fps, EMBEDDED_SIZE, tell, reader) if model == "embedded" else None
                try:
                    with quick_switches():
                        loaded = load_model(model, text=captioner == "embedded")
                    watched = watch(source, info, loaded, fps, tell, sampler=sampler, ahead=ahead, reader=reader)
                    watched.warnings.extend(unread)
                finally:
                    if ahead is not None:
                        ahead.close()
            with clock("listen"):  # what is left of it
                said = listening.said(watched.duration)
        with clock("shots"):
            tell("shots", 0.0)
            pauses = said.pauses(watched.duration) if said is not None and said.utterances else ()
            boundaries = loaded.boundaries(watched.features)
            plan = make_plan(
                watched,
                wanted,
                info,
                fps,
                segmenter=segmenter,
                refine=refine,
                pauses=pauses,
                boundary_scores=boundaries,
            )
            tell("shots", 1.0)
        settings: schema.Settings = {
            "budget": wanted.text,
            "budget_seconds": round(plan.budget_seconds, 3),
            "model": loaded.name,
            "fps": fps,
            "formats": chosen_formats,
            "sampler": sampler,
            "segmenter": segmenter,
            "refine": refine,
            "speech": speech,
            "transcript": None if transcript is None else Path(os.fsdecode(os.fspath(transcript))).name,
            "denoiser": denoiser,
            "captioner": captioner,
            "speech_limit": speech_limit,
            "ocr": ocr,
            "writer": writer,
            "offline_default": offline_default,
        }
        try:
            data = _write(
                stage, source, info, loaded, watched, said, plan, settings, clock, tell, reader, describer, author
            )
        except OSError as error:
            raise writing_failed(folder, error) from None
        except VTSumError as error:
            # The cutter names the temporary folder, which is gone by the time the user reads of it.
            raise VTSumError(str(error).replace(str(stage.path), str(stage.final))) from None
        stage.commit()
        final = stage.final
    names = {"mp4": "summary.mp4", "txt": "summary.txt", "json": "summary.json", "html": "report.html"}
    return Summary(final, {name: final / names.get(name, name) for name in chosen_formats}, data)


def _reader() -> tuple[RapidReader | None, list[str]]:
    """Who reads words on the screen; where nobody can, why."""
    from vtsum.enhance.screen_text.reader import RapidReader

    try:
        return RapidReader(), []
    except VTSumError as error:
        return None, [f"words on the screen were not read: {error}"]


def _short(name: str) -> str:
    """A name of at most 100 bytes: one may be as long as the file system allows, with nothing to spare."""
    kept = os.fsencode(name)
    return name if len(kept) <= _NAME else kept[:_NAME].decode(errors="ignore")


def _writer(name: str) -> Writer:
    from vtsum.model.writers import make_writer

    return make_writer(name)


def load_model(model: str | os.PathLike[str] | Summarizer, *, text: bool = True) -> Summarizer:
    """A model by name or path (`text`: of `vtsum.model.load`); a loaded one as it is."""
    if not isinstance(model, str | os.PathLike):
        return model
    from vtsum.model import load

    return load(os.fspath(model), text=text)


def check_formats(formats: Sequence[str]) -> list[str]:
    """The formats asked for, in canonical order.

    Raises:
        VTSumError: an unknown one, or none at all.
    """
    names = [formats] if isinstance(formats, str) else list(formats)
    for name in names:
        if name not in FORMATS:
            raise VTSumError(f"summarize: format must be among {', '.join(FORMATS)}, got {name!r}")
    if not names:
        raise VTSumError(f"summarize: format must name at least one of {', '.join(FORMATS)}, got none")
    return [name for name in FORMATS if name in names]


def _write(
    stage: StagedFolder,
    source: Path,
    info: VideoInfo,
    model: Summarizer,
    watched: Watched,
    said: Transcript | None,
    plan: Plan,
    settings: schema.Settings,
    clock: Clock,
    tell: ProgressCallback,
    reader: RapidReader | None,
    captioner: Captioner | None,
    writer: Writer | None,
) -> schema.SummaryDocument:
    """Cut, write the text meanwhile, and put all files into the staged folder."""
    formats = settings["formats"]
    captioned = model_describes(settings["captioner"], model)
    reads_pictures = captioned and model.reads_pictures
    wants_pictures = reads_pictures or bool({"keyframes", "html"} & set(formats))
    cut_result: CutResult | None = None
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        job = None
        try:
            if wants_pictures or "mp4" in formats:
                job = pool.submit(_cut, stage.path, source, watched, plan, wants_pictures, stop, clock, tell)
            if reads_pictures and job is not None:
                cut_result = job.result()
            with clock("text"):
                tell("text", 0.0)
                captions = []
                if captioned:
                    with torch_threads(count=1):  # the other cores are cutting
                        captions = describe(model, watched.features, _moments(plan, cut_result))
                    if settings["captioner"] == "embedded" and model.text_is_guess and captions:
                        watched.warnings.append(RESEARCH)
                asked = captioner is not None
                captioner = captioner or captioner_at_hand(settings["captioner"], model, settings["offline_default"])
                spans = [(i, clip.start / plan.rate, clip.end / plan.rate) for i, clip in sorted(plan.clips.items())]
                if captioner is not None:
                    try:
                        captions = look(captioner, source, _moments(plan, None), spans, said)
                        if captions and not asked:
                            watched.warnings.append(UNCALIBRATED.format(captioner.name))
                    except VTSumError as error:
                        if asked:
                            raise
                        captioner = None
                        watched.warnings.append(f"the pictures were not described: {error}")
                text = compose(source, info, watched, said, plan, captions, settings["fps"], writer)
                tell("text", 1.0)
            if job is not None:
                cut_result = job.result()
        except BaseException:
            stop.set()  # the pool waits for its thread: let it end soon
            raise
    data = build_document(
        source.name, info, model, watched, said, plan, cut_result, text, settings, reader, captioner, writer
    )
    if "mp4" in formats and data["speech"] and (cues := summary_cues(data)):
        from vtsum.video.subtitled import add_subtitles

        add_subtitles(stage.path / "summary.mp4", cues, data["speech"]["language"])
    if "html" in formats:
        from vtsum.summary.report import write_report

        with clock("page"):
            tell("page", 0.0)
            write_report(stage.path / "report.html", data, stage.path)
            tell("page", 1.0)
    data["created"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    data["timings"] = clock.timings()
    if "txt" in formats:
        (stage.path / "summary.txt").write_text(text_file(data), encoding="utf-8")
    if "json" in formats:
        content = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1)
        (stage.path / "summary.json").write_text(escaped(content) + "\n", encoding="utf-8")
    if "mp4" in formats and (subtitles := summary_subtitles(data)) is not None:
        (stage.path / "summary.vtt").write_text(subtitles, encoding="utf-8")
    if "mp4" not in formats:
        (stage.path / "summary.mp4").unlink(missing_ok=True)
    if "keyframes" not in formats:
        for picture in (stage.path / "keyframes").glob("*.jpg"):
            picture.unlink()
        if (stage.path / "keyframes").is_dir():
            (stage.path / "keyframes").rmdir()
    return data


def _moments(plan: Plan, cut: CutResult | None) -> list[Moment]:
    """The chosen shots that may get a sentence; with their key frames where those were cut before."""
    pictures = {} if cut is None else {shot.index: shot.keyframe for shot in cut.shots}
    moments = []
    for n, i in enumerate(sorted(plan.clips)):
        if cut is None or pictures.get(n) is not None:
            moments.append(Moment(i, plan.frames[i], plan.span(i), float(plan.scores[i]), pictures.get(n)))
    return moments


def _cut(
    folder: Path,
    source: Path,
    watched: Watched,
    plan: Plan,
    pictures: bool,
    stop: threading.Event,
    clock: Clock,
    tell: ProgressCallback,
) -> CutResult:
    """Write summary.mp4 and, if wanted, the key frames, in one pass over the chosen parts of the source."""
    from vtsum.video import cut

    tell("cut", 0.0)
    order = sorted(plan.clips)
    segments = [(plan.clips[i].start / plan.rate, plan.clips[i].end / plan.rate) for i in order]
    whole = max(sum(end - start for start, end in segments), 1e-3)

    def note(done: float) -> None:
        if stop.is_set():
            raise Stopped
        tell("cut", min(done / whole, 0.99))

    with clock("cut"):
        result = cut(
            source,
            segments,
            folder / "summary.mp4",
            keyframe_dir=folder / "keyframes" if pictures else None,
            keyframe_times=[plan.peaks[i] for i in order] if pictures else None,
            duration=watched.duration,
            largest=watched.largest,
            on_progress=note,
        )
    tell("cut", 1.0)
    return result
