"""Another summary of a video that was analysed before: of another length, of other formats, without watching again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from vtsum.devices import memory_told
from vtsum.errors import VTSumError
from vtsum.files import plain
from vtsum.plugins import check_vouched
from vtsum.summary.analysis import FILE, Analysis, stored_name
from vtsum.summary.declaring import changed, declared, taken, with_options
from vtsum.summary.making import Making, Run, Summary, choose, finish
from vtsum.summary.naming import fields_of, filled
from vtsum.summary.options import Choice
from vtsum.summary.progress import Clock, ProgressCallback, ignore
from vtsum.summary.schema import Settings
from vtsum.summary.seeing import model_describes, named_captioner
from vtsum.summary.staging import StagedFolder
from vtsum.summary.values import coding_of
from vtsum.summary.writing import named_writer

if TYPE_CHECKING:
    from vtsum.enhance.summary_refinement import Budget
    from vtsum.model import Summarizer
    from vtsum.video import VideoInfo

_NEAR = 0.5  # seconds by which what a file states may differ from what was watched


@with_options(Choice, defaults=False)
@memory_told("recut", "take smaller models")
def recut(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    video: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    **options: Unpack[Choice],
) -> Summary:
    """Summarise a video again from what was found the first time: it takes about as long as cutting does.

    What is chosen is, bit for bit, what `summarize` would choose with these options. A part of the user's own
    ("module:Class") that the analysis alone names is not imported: an analysis may be a stranger's.

    Args:
        folder: what `summarize` wrote, with analysis.npz in it, or that file.
        output: folder for the results, as for `summarize`; None: `<folder>_recut` beside it.
        video: the video, a file or what else `summarize` takes; None: the file of that name in the folder, beside it or
            in the current folder.
        overwrite, dry_run, progress: as for `summarize`.
        options: those of `vtsum.summary.options.Choice`, as for `summarize`; left out or None: as the first time.
    Returns:
        Summary: as `summarize` returns it.
    Raises:
        VTSumError: one line that names what is wrong: the analysis, the video, an option, the output folder.
    """
    timer = Clock()
    tell = progress or ignore
    changes = changed(Choice, options, "recut")
    place = Path(os.fsdecode(os.fspath(folder)))
    stored = place if place.is_file() else place / FILE
    if not stored.exists() and place.is_dir():
        raise VTSumError(f"recut: {plain(place)} must hold {FILE}, as vtsum summarize -f analysis writes it, got none")
    analysis = Analysis.load(stored)
    settings = analysis.settings
    named = cast(dict[str, Any], settings)
    for kind in ("model", "captioner", "writer", "segmenter"):
        if kind not in changes:
            check_vouched(kind, named[kind] or "", plain(stored))
    chosen = taken(Choice, {**{name: named[name] for name in declared(Choice)}, **changes}, "recut")
    coding_of(chosen, "recut")
    wanted = chosen["budget"]
    settings.update(cast(Settings, {**chosen, "budget": wanted.text}))
    from vtsum.video.incoming import as_file, comes_from_elsewhere

    found = _source(analysis, stored.parent) if video is None else video
    with as_file(found, "recut") as source:
        beside = stored.parent if stored.parent.name not in ("", "..") else stored.parent.resolve()  # ".", "/"
        usual = beside.parent / f"{beside.name}_recut"
        target = usual if output is None else filled(output, fields_of(wanted, source), "recut")
        where = "cpu" if settings["device"] == "auto" and settings["offline_default"] else settings["device"]
        stays = not comes_from_elsewhere(found)
        return _recut(Run(source, stays, target, overwrite, dry_run, where, timer, tell), analysis, wanted, stored)


def _recut(run: Run, analysis: Analysis, wanted: Budget, stored: Path) -> Summary:
    from vtsum.video import probe
    from vtsum.video.kept import check_kept

    settings, source = analysis.settings, run.source
    with run.timer("probe"):
        info = probe(source)
        if settings["tracks"] == "all":
            check_kept(source, "recut")
    if info.size_bytes != analysis.size_bytes:
        raise VTSumError(
            f"recut: {plain(source)} must be the video that was summarised, of {analysis.size_bytes:,} bytes, "
            f"got {info.size_bytes:,}"
        )
    _check_length(analysis, info)
    analysis = dataclasses.replace(analysis, name=source.name)
    with StagedFolder(run.folder, run.overwrite, [source, stored], dry=run.dry_run) as stage:
        captioner = named_captioner(settings["captioner"], run.device)
        writer = named_writer(settings["writer"], run.device)
        with run.timer("shots"):
            run.tell("shots", 0.0)
            model = _model(analysis, run.device)
            plan = choose(analysis, wanted, info, model)
            run.tell("shots", 1.0)
        return finish(Making(run, stage, info, analysis, model, captioner, writer), plan)


def _check_length(analysis: Analysis, info: VideoInfo) -> None:
    """Refuse an analysis of another length than the video's: shots behind its end would show the last picture.

    Only where the file states another length, too, as a damaged one may, is it decoded to know.
    """
    from vtsum.video import FrameSampler

    length, cut_off = analysis.watched.duration, analysis.settings["end"] is not None

    def fits(claim: float) -> bool:  # of a part that ends before the video does, only so much is known
        return claim >= length - _NEAR if cut_off else abs(claim - length) <= _NEAR

    if any(fits(claim) for claim in (info.duration, info.stated_duration) if claim is not None):
        return
    sampler = FrameSampler(info.path, fps=analysis.settings["fps"], size=(16, 16))
    for _ in sampler:
        pass
    if not fits(sampler.duration):
        raise VTSumError(
            f"recut: {plain(info.path)} must be the video that was summarised, of {length:.1f} s, "
            f"got {sampler.duration:.1f} s"
        )


def _source(analysis: Analysis, folder: Path) -> Path:
    places = [folder, folder.resolve().parent, Path.cwd()]
    for place in places:
        if (place / analysis.name).is_file():
            return place / analysis.name
    for place in places if "\ufffd" in analysis.name else []:
        with contextlib.suppress(OSError):  # a folder that may not be listed
            alike = [path for path in place.iterdir() if stored_name(path.name) == analysis.name and path.is_file()]
            if len(alike) == 1:
                return alike[0]
    raise VTSumError(
        f"recut: {plain(analysis.name)} must lie beside {plain(folder)} or be named by --video, got neither"
    )


def _model(analysis: Analysis, device: str) -> Summarizer | None:
    """The model, where the sentences about pictures are its own, or it tells which pictures fit what is asked about."""
    describes = model_describes(analysis.settings["captioner"], analysis.model.text_is_guess)
    if not describes and not (analysis.model.reads_words and analysis.settings["about"]):
        return None
    from vtsum.devices import device_of
    from vtsum.model import load

    model = load(analysis.settings["model"], device=device_of(device, "recut"))
    if model.weights_sha256 != analysis.model.weights_sha256:
        raise VTSumError(
            f"recut: {analysis.settings['model']} must be the model that the video was analysed with, got other weights"
        )
    return model
