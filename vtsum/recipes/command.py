"""What the recipes' commands share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.files import check_new, sweep, unfinished
from vtsum.model.checkpoint import CONFIG, VOCABULARY, WEIGHTS
from vtsum.shown import last_words, say
from vtsum.signals import stopping


def status(work: Callable[[], Any]) -> int:
    """Do the work of a command; its exit status: 2, and one line, after a mistake that the user can mend; 70, and one
    line too, after what nobody foresaw.

    SIGTERM and SIGHUP tidy up as Ctrl-C does.
    """
    try:
        with stopping():
            work()
    except (VTSumError, OSError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except Exception as error:
        return last_words(error)
    return 0


FEATURES = "features.npz"
"""Beside the model that a recipe makes: the embeddings of all frames, kept for the next time."""


def check_model(op: str, out: Path, overwrite: bool) -> None:
    """`check_new` of OUT/model; a folder in which killed processes have left nothing but half-written files is none."""
    model = out / "model"
    sweep(out, [FEATURES])
    names = [CONFIG, VOCABULARY, WEIGHTS]
    if not model.is_symlink() and unfinished(model, names):
        sweep(model, names)
        with suppress(OSError):  # there is more in it
            model.rmdir()
    check_new(op, model, overwrite)
