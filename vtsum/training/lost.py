"""A rank that is lost, by the errors of those that waited for it."""

from __future__ import annotations

from pathlib import Path

from vtsum.errors import VTSumError

# How gloo and NCCL tell that another process has ended.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
# And that it says nothing any more.
_SILENT = ("Timed out waiting", "before timing out", "No route to host", "Connection timed out")


def lost(error: RuntimeError, minutes: float, run: Path) -> VTSumError | None:
    """What to tell of another rank that is lost; None where the error is about something else.

    Args:
        minutes: that ranks wait for one that is silent. run: the training's folder.
    """
    if any(words in str(error) for words in _LOST):
        found = "another one is gone (its own message says why)"
    elif any(words in str(error) for words in _SILENT):
        found = f"another one said nothing for {minutes:g} minutes or cannot be reached"
    else:
        return None
    return VTSumError(
        f"train: all ranks must live, {found}; its last checkpoint is whole, go on with --resume --output_dir {run}"
    )
