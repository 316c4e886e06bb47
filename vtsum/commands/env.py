"""`vtsum env`."""

from __future__ import annotations

from vtsum.commands.app import app, write


@app.command(short_help="Print what is installed, and the state of the kernels.")
def env() -> None:
    """Print what is installed, and which kernels were built, loaded or refused, and why."""
    from vtsum.env import report

    write(report())
