"""`vtsum serve`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from vtsum.commands.app import app, write
from vtsum.commands.opening import open_address


@app.command(short_help="Serve a page on this machine that summarises what is dropped on it.")
def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the videos and their summaries; made if need be.")
    ] = Path("vtsum_videos"),
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes a free one.")] = 0,
    largest: Annotated[int, typer.Option(metavar="GIB", min=1, help="What a video may have at most.")] = 64,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page to this machine alone: drop a video on it, watch its summary being made, tick moments to keep or to
    drop, cut again, download. Its address is printed; Ctrl-C ends it."""
    from vtsum.extras import require

    require("video", "serve")
    require("serve", "serve")
    from vtsum.serving import serve as run

    def ready(address: str) -> None:
        write(address)
        if show:
            open_address(address, address)

    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        run(folder, port=port, largest=largest << 30, ready=ready)
