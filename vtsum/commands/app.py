"""The typer application that the commands of `vtsum` register with, and what several of them use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Abort

from vtsum.errors import VTSumError
from vtsum.shown import clean, reason
from vtsum.version import __version__

# typer carries click under a private name in newer versions and depends on it in older ones; both derive this from it.
UsageError: type[Any] = typer.BadParameter.__mro__[1]

__all__ = ["Abort", "UsageError", "app", "listed", "number", "printable", "write"]

EXIT_CODES = (
    "Exit status: 0 done; 2 what you can mend, told in one line, of a batch also where a video failed; 70 what nobody "
    "foresaw; 130 Ctrl-C; 129 and 143 a terminal that closed, and kill; 1 whoever read the output went away."
)

app = typer.Typer(
    name="vtsum",
    help="Make a shorter video and a short text out of a long video, on this machine.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vtsum {__version__}")
        raise typer.Exit


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number, got {text!r}") from None


def listed(names: list[str] | None) -> list[str] | None:
    """The names of an option that takes several, one at a time or by commas."""
    return [part.strip() for entry in names for part in entry.split(",")] if names else None


def write(text: str) -> None:
    """Write lines to standard output, clean and as far as its encoding goes; a pipe that was closed is the caller's
    affair, a full disk is told."""
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(map(clean, text.split("\n")))
    try:
        typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VTSumError(f"vtsum: standard output must be writable: {reason(error)}") from None


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Make a shorter video and a short text out of a long video, on this machine."""


def printable(path: Path) -> str:
    """A path as any terminal can show it, on one line."""
    return clean(str(path))
