"""What the recipes' commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vtsum.data.tvsum import Split, TVSumVideo, load_tvsum
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import every_fifth
from vtsum.files import check_new, sweep, unfinished
from vtsum.model.checkpoint import CONFIG, VOCABULARY, WEIGHTS
from vtsum.shown import full, last_words, open_streams, reason, say
from vtsum.signals import stopping


def status(work: Callable[[], Any]) -> int:
    """Do the work of a command; its exit status: 2, and one line, after a mistake that the user can mend; 70, and one
    line too, after what nobody foresaw.

    SIGTERM and SIGHUP tidy up as Ctrl-C does.
    """
    open_streams()
    try:
        own = getattr(sys.modules["__main__"], "__spec__", None)
        with stopping(last=own is not None and own.name.startswith(__package__)):
            work()
    except VTSumError as error:
        say(str(error))
        return 2
    except OSError as error:
        if full(error) or error.filename:  # of one that can be told with its file
            return last_words(error)
        say(reason(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except Exception as error:
        return last_words(error)
    return 0


def whole(least: int) -> Callable[[str], int]:
    """For argparse: a whole number of 32 bits, from `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= (number := int(text[:11])) < 2**32:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {2**32 - 1}, got {text!r:.40}")
        return number

    return read


def watched_of(split: Split) -> list[str]:
    """Of the training videos the fifth by which numbers of epochs are chosen: video_1, video_6 ..."""
    return [key for key in split.train if int(key.removeprefix("video_")) % 5 == 1]


def tvsum(op: str, shared: Path) -> list[TVSumVideo]:
    """The annotated videos in a folder of data, enough to learn from, to choose by and to hold out.

    Raises:
        VTSumError: they are not; or see `load_tvsum`.
    """
    path = shared / "tvsum" / "tvsum.h5"
    videos = load_tvsum(path)
    split = every_fifth(videos)
    parts = len(split.train) - len(watched_of(split)), len(watched_of(split)), len(split.test)
    if not all(parts):
        raise VTSumError(
            f"{op}: {path} must have videos to learn from, to choose epochs by (video_1, video_6 ...) and to hold out "
            f"(video_5, video_10 ...), got {', '.join(map(str, parts))} of them"
        )
    return videos


FEATURES = "features.npz"
"""Beside the model that a recipe makes: the embeddings of all frames, kept for the next time."""


def check_model(op: str, out: Path, overwrite: bool) -> None:
    """`check_new` of OUT/model, of the files in it where they may be replaced; a folder in which killed processes have
    left nothing but half-written files is none."""
    model = out / "model"
    sweep(out, [FEATURES])
    names = [CONFIG, VOCABULARY, WEIGHTS]
    if not model.is_symlink() and unfinished(model, names):
        sweep(model, names)
        with suppress(OSError):  # there is more in it
            model.rmdir()
    older = overwrite and model.is_dir() and not model.is_symlink()
    for path in [model / name for name in names] if older else [model]:
        check_new(op, path, overwrite)
