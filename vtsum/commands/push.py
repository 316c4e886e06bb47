"""`vtsum push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.commands.app import app, write
from vtsum.shown import clean


@app.command(short_help="Upload a trained model to the Hugging Face hub.")
def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run, whose model/ is meant.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made where it is not there.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(metavar="EVAL.json", help="A file of vtsum evaluate on this model, for the card; repeatable."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A repository that is made is yours alone.")] = False,
) -> None:
    """Upload weights (safetensors), configuration, vocabulary and a card, which says what the evaluations measured and
    under which protocol.

    config.json, which goes along, holds the settings of the training with the paths of your data. Who you are is what
    the hub's own client knows (hf auth login, HF_TOKEN), and which hub (HF_ENDPOINT).
    """
    from vtsum.extras import require

    require("video", "push")
    from vtsum.evaluation.hub import push_to_hub

    write(clean(push_to_hub(model, name, evaluation or (), private=private)))
