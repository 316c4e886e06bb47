"""`vtsum env`."""

from __future__ import annotations

from typing import Annotated

import typer

from vtsum.commands.app import app, write


@app.command(short_help="Print what is installed, and the state of the kernels.")
def env(
    report: Annotated[
        bool, typer.Option("--report", help="What a bug report needs, without names of files, users or machines.")
    ] = False,
) -> None:
    """Print what is installed, and which kernels were built, loaded or refused, and why."""
    from vtsum import env

    write(env.public_report() if report else env.report())
