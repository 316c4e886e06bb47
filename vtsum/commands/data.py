"""`vtsum data`: make, check and import data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.commands.app import app, printable, write
from vtsum.commands.bars import CountedBars

data = typer.Typer(
    no_args_is_help=True,
    help="Make, check and import data sets in VideoXum's layout.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data", short_help="Make, check and import data sets in VideoXum's layout.")

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
    from vtsum.data.synthetic import make_corpus

    titles = {"clip": "Training a tiny CLIP", "videos": "Making videos", "films": "Writing MP4s"}
    with CountedBars(titles, quiet=quiet) as bars:
        made = make_corpus(folder, train=train, val=val, test=test, seed=seed, films=films, progress=bars)
    if not quiet:
        counts = ", ".join(f"{count} {split}" for split, count in made["videos"].items())
        write(f"{counts} videos, {made['frames'] / 3600:.1f} hours, in {printable(folder)}")
