"""`vtsum data`: make, check and import data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, printable, write
from vtsum.errors import VTSumError
from vtsum.shown import counted, one_line, say

data = typer.Typer(
    no_args_is_help=True,
    help="Make, check and import data sets: VideoXum's layout, and the h5 file of vtsum benchmark.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data", short_help="Make, check and import data sets.")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")]


@data.command(short_help="Make a corpus of drawn videos with planted events and ten simulated annotators.")
def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where: a new folder, or a corpus to continue.")],
    train: Annotated[int, typer.Option(metavar="N", help="Videos for training.")] = 64,
    val: Annotated[int, typer.Option(metavar="N", help="Videos for validation.")] = 16,
    test: Annotated[int, typer.Option(metavar="N", help="Videos for testing.")] = 16,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed gives other videos.")] = 0,
    films: Annotated[int, typer.Option(metavar="N", help="Write the first N test videos as DIR/videos/*.mp4 too.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Make a corpus in VideoXum's layout to try training and evaluation on: annotations, features, a vocabulary and a
    tiny CLIP for VT-CLIPScore. A corpus can be continued where it was stopped, and enlarged."""
    from vtsum.extras import require

    require("video", "synth")
    from vtsum.recipes.synthetic import make_corpus

    titles = {"clip": "Training a tiny CLIP", "videos": "Making videos", "films": "Writing MP4s"}
    with Bars(titles, quiet=quiet) as bars:
        made = make_corpus(folder, train=train, val=val, test=test, seed=seed, films=films, progress=bars)
    if not quiet:
        counts = ", ".join(f"{count} {split}" for split, count in made["videos"].items())
        write(f"{counts} videos, {_lasting(made['frames'])}, in {printable(folder)}")


@data.command(short_help="Find every missing or broken file of a data set, by name.")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set's folder, with anno/ and feat/.")],
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="train, val or test; may be repeated. [default: all three]")
    ] = None,
    clip: Annotated[
        bool | None,
        typer.Option(
            "--clip/--no-clip", show_default=False, help="Check feat/vt_clipscore too. [default: if it is there]"
        ),
    ] = None,
    unannotated: Annotated[bool, typer.Option("--unannotated", help="Accept videos without vsum_onehot.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read the files' heads only: NaN and damage within them go unnoticed.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Check annotations and features: missing, empty, cut off or damaged files, wrong shapes, NaN, videos that are
    there twice. One line for each problem; the exit status is 2 if there is any."""
    from vtsum.extras import require

    require("video", "check")
    from vtsum.data.check import check_dataset
    from vtsum.data.videoxum import SPLITS

    with Bars({"heads": "Reading heads", "numbers": "Reading numbers"}, quiet=quiet) as bars:
        report = check_dataset(
            folder, splits=split or SPLITS, clip=clip, unannotated=unannotated, quick=quick, progress=bars
        )
    for problem in report.problems:
        write(one_line(problem))
    if report.problems:
        count = len(report.problems)
        say(f"{counted(count, 'problem')} in {folder}")
        raise typer.Exit(2)
    if quiet:
        return
    for name, facts in report.splits.items():
        write(
            f"{name}: {counted(facts.videos, 'video')}, {_lasting(facts.seconds)}, {counted(facts.frames, 'frame')} "
            f"({facts.shortest} to {facts.longest} a video), {counted(facts.annotators, 'annotator')}"
        )
    widths = f"C {report.width}" + (f", D {report.clip_width}" if report.clip_width else "")
    spare = f"; {report.spare:,} belong to no video" if report.spare else ""
    write(f"{counted(report.files, 'feature file')}, {widths}, all {'heads ' if quick else ''}good{spare}")


@data.command(short_help="Write ActivityNet Captions as VideoXum annotations without human summaries.")
def activitynet(
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS", help="train, val_1 or val_2 (.json or .json.gz).")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Such as DIR/anno/train_videoxum.json.")
    ],
    features: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Feature files; only videos that have one are written. [default: all]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the texts, times and durations of ActivityNet Captions in VideoXum's layout, for training on text alone.

    Nobody marked frames in these videos: there is no vsum_onehot."""
    from vtsum.extras import require

    require("video", "activitynet")
    from vtsum.data.activitynet import load_activitynet_captions, videoxum_entries, write_videoxum_annotations
    from vtsum.files import check_inputs, check_new

    check_inputs("activitynet", output, [captions, features])
    check_new("activitynet", output, overwrite)
    if features is not None and not features.is_dir():
        raise VTSumError(f"activitynet: features must be a folder, got {features}")
    videos = load_activitynet_captions(captions)
    entries = videoxum_entries(videos, features)
    if not entries:
        raise VTSumError(f"activitynet: CAPTIONS must hold videos with text (and features), got none of {len(videos)}")
    check_new("activitynet", output, overwrite)  # somebody may have put it there meanwhile
    write_videoxum_annotations(entries, output)
    if not quiet:
        write(f"{len(entries):,} of {counted(len(videos), 'video')}, in {printable(output)}")


@data.command(short_help="Write what raters said of your own videos as an h5 file for vtsum benchmark.")
def ratings(
    said: Annotated[
        Path,
        typer.Argument(
            metavar="RATINGS",
            help="A .csv with the columns video, rater, start (seconds) and score, which holds until the rater's next; "
            'or a .json, {"VIDEO": {"RATER": [[START, SCORE], ...]}}.',
        ),
    ],
    features: Annotated[Path, typer.Option(metavar="FEATS", help="What vtsum extract made of the videos.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Such as mine.h5.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the field's h5 layout for your own videos: features, shots by KTS, scores, each rater's 15% summary.

    vtsum benchmark tvsum --h5 FILE takes it, and so does other code for that layout. Two raters a video or more."""
    from vtsum.extras import require

    require("eval", "ratings")
    from vtsum.benchmarks.own_data import write_h5
    from vtsum.data.ratings import load_ratings
    from vtsum.files import check_inputs, check_new

    check_inputs("ratings", output, [said, features])
    check_new("ratings", output, overwrite)
    made = write_h5(load_ratings(said), features, output, overwrite=overwrite)
    if made.unrated:
        more = f" and {len(made.unrated) - 3} more" if len(made.unrated) > 3 else ""
        say(f"note: left out, as nobody rated them: {', '.join(made.unrated[:3])}{more}")
    if not quiet:
        least, most = made.raters
        raters = f"{least}" if least == most else f"{least} to {most}"
        write(
            f"{counted(made.videos, 'video')}, {_lasting(made.seconds)}, {counted(made.shots, 'shot')}, "
            f"{raters} raters each, in {printable(output)}"
        )


def _lasting(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
