"""`vtsum models` and `vtsum models get`."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, write
from vtsum.errors import VTSumError
from vtsum.shown import clean, counted, one_line, say

models = typer.Typer(invoke_without_command=True)
app.add_typer(models, name="models", short_help="List the models that serve each part of a summary; get one.")


@models.callback()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects on standard output.")] = False,
) -> None:
    """List, for each part of a summary, the models that can serve it: whether they are at hand, their size on this
    disk, licence and hash, how a summary comes to them, and which command brings them. Nothing is asked of the hub."""
    if context.invoked_subcommand is not None:
        return
    from vtsum.extras import require

    require("video", "models")
    from vtsum.catalogue import catalogue
    from vtsum.model.downloads import size_in_words

    entries = catalogue()
    if as_json:
        found = [dataclasses.asdict(entry) | {"path": entry.path and str(entry.path)} for entry in entries]
        write(json.dumps(found, indent=1))
        return
    part, widest = "", max(len(entry.name) for entry in entries)
    for entry in entries:
        if entry.part != part:
            part = entry.part
            write(part)
        size = "" if entry.size is None else size_in_words(entry.size)
        digests = list(entry.sha256.values())
        digest = digests[0][:12] if len(digests) == 1 else f"{len(digests)} hashes" if digests else ""
        columns = f"  {entry.name:<{widest}}  {entry.state:<9}  {size:>7}  {entry.licence or '':<21}  {digest:<12}"
        write(clean(f"{columns}  {entry.get or entry.use}"))


@models.command(short_help="Fetch a model from the hub into its cache.")
def get(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="OWNER/NAME on the hub, or a short name (small, large-v3, blip, clip)."),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False,
) -> None:
    """Fetch a model: weights in safetensors (Whispers for CTranslate2 as they are), never code. What was fetched before
    is not fetched again, and a download that ended early goes on.

    Where it goes, from which hub and who asks is what the hub's own client reads: HF_HOME, HF_ENDPOINT, HF_TOKEN;
    with HF_HUB_OFFLINE nothing is fetched.
    """
    from vtsum.extras import require

    require("video", "models get")
    from vtsum.catalogue import hub_name, use_of
    from vtsum.model.downloads import cached, fetch, offer, size_in_words

    repository = hub_name(name)
    try:
        wanted = offer(repository)
    except VTSumError as error:
        if (there := cached(repository)) is None:
            raise
        say(f"note: the hub was not asked: {error}")
        if not quiet:
            write(f"{repository} is there already, in {clean(str(there))}")
        return
    if not quiet:
        licence = one_line(wanted.licence or "") or "none named"
        write(f"{repository}: {counted(len(wanted.files), 'file')}, {size_in_words(wanted.size)}, licence: {licence}")
    with Bars({"fetch": "Fetching"}, quiet=quiet) as bars:

        def tell(done: int, whole: int) -> None:
            bars("fetch", done / max(whole, 1), note=f"{size_in_words(done)} of {size_in_words(whole)}")

        folder = fetch(wanted, tell)
    if not quiet:
        write(f"{clean(str(folder))}: {use_of(repository, folder)}")
