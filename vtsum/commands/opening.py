"""`--open`: the page of a summary in the browser of this machine."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from vtsum.errors import VTSumError
from vtsum.shown import clean, say
from vtsum.summary.values import known_formats


def check_opening(formats: str | Sequence[str] | None, command: str, dry_run: bool) -> None:
    """Refuse to open a page that is not asked for; formats: None where they are as before.

    Raises:
        VTSumError: html is not among the formats, or they are none; or nothing is written.
    """
    if dry_run:
        raise VTSumError(f"{command}: --open must be without --dry-run, which makes no page, got both")
    if formats is None:
        return
    names = known_formats(formats, f"{command}: formats")
    if "html" not in names:
        raise VTSumError(f"{command}: --open must come with the format html, got {', '.join(names)}")


def open_page(page: Path | None) -> None:
    """Show a page in the browser, or say why not: a browser in the terminal itself would show no video."""
    if page is None:  # a recut of what was made without
        say("note: --open: no page was made; --format html makes one")
    else:
        open_address(page.resolve().as_uri(), clean(str(page)))


def open_address(address: str, shown: str) -> None:
    """Show what lies at an address in the browser, or say why not, with the address as it is to be `shown`."""
    linux = sys.platform not in ("darwin", "win32")
    if linux and not any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")):
        say(f"note: --open: there is no display here; {shown} is the page")
    elif not webbrowser.open(address):
        say(f"note: --open: no browser was found; {shown} is the page")
