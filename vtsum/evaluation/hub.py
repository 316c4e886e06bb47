"""A trained model on the Hugging Face hub, with a card that says what was measured of it and under which protocol."""

from __future__ import annotations

import hashlib
import keyword
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError, first_line
from vtsum.evaluation.videoxum_file import read_evaluation
from vtsum.evaluation.videoxum_table import results_table
from vtsum.files import check_no_links
from vtsum.markup import markdown
from vtsum.model.checkpoint import CONFIG, DECODER, FORMAT, VOCABULARY, WEIGHTS
from vtsum.model.files import read_safetensors
from vtsum.model.hub_names import guard
from vtsum.model.tokenizer import check_words
from vtsum.reading import read_json, said_of

CARD = "README.md"
_FILES = (CONFIG, WEIGHTS, VOCABULARY)


def push_to_hub(model: str | Path, name: str, evaluations: Sequence[Path] = (), *, private: bool = False) -> str:
    """Upload a model folder as one commit: config.json, model.safetensors, vocab.txt and a card.

    Args:
        model: a model folder, or a run, whose model/ is meant. name: "owner/repository", made where it is not there.
        evaluations: files of `vtsum evaluate` on these very weights, for the card.
        private: a repository that is made is for its owner alone.
    Returns:
        str: the repository's address.
    Raises:
        VTSumError: a name that no repository has, no model, or one of which a file is something else or a link, an
            evaluation of another one, or a hub that cannot be reached or refuses. But for the last, nothing was sent.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise VTSumError(f"push: name must be OWNER/NAME, got {name!r:.200}") from None
    folder = Path(model)
    if not (folder / CONFIG).is_file() and (folder / "model").is_dir():
        folder /= "model"
    # A stranger's folder may name what is nobody's business: other weights of the user's would be uploaded.
    check_no_links("push", *([folder] if folder != Path(model) else []), *(folder / file for file in _FILES))
    config = read_json(folder / CONFIG, dict, "push")
    if config.get("format") != FORMAT:
        raise VTSumError(f"push: {folder} must be a model of VTSum's ({FORMAT}), got {said_of(config, 'format')}")
    if not isinstance(config.get("model"), dict):
        raise VTSumError(f"push: model of {folder / CONFIG} must be an object, got {said_of(config, 'model')}")
    weights = read_safetensors(folder / WEIGHTS, "push")
    words = any(name.startswith(DECODER) for name in weights)  # without them, nobody could load what was uploaded
    if words or os.path.lexists(folder / VOCABULARY):
        check_words(folder / VOCABULARY, "push")
    with open(folder / WEIGHTS, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    measured = []
    for path in evaluations:
        measured.append(read_evaluation(path))
        if (of := measured[-1]["checkpoint"].get("sha256")) != digest:
            raise VTSumError(
                f"push: {path} must be an evaluation of {folder / WEIGHTS} ({digest}), got one of {of!r:.80}"
            )

    about = card(name, config, measured).encode()

    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_log

    files = [name for name in _FILES if (folder / name).is_file()]
    guard()
    hub_log.set_verbosity_error()  # of what it tries again, and in vain in the end, the refusal tells
    if sys.stderr is None or not sys.stderr.isatty():
        disable_progress_bars()
    try:
        api = HfApi()
        where = api.create_repo(name, private=private, exist_ok=True)
        added = [CommitOperationAdd(file, str(folder / file)) for file in files]
        added.append(CommitOperationAdd(CARD, about))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the hub thinks of the card
            api.create_commit(name, added, commit_message="Upload a model of VTSum's")
    except Exception as error:  # the hub's client and its transport raise a dozen kinds
        raise VTSumError(
            f"push: {name!r:.200} must be a repository of the hub that you may write to (hf auth login), got: "
            f"{first_line(error)}"
        ) from None
    return str(where)


def card(name: str, config: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The model card: how to load the model, what was measured under which protocol, and what it was trained with.

    Args:
        config: the model's config.json. evaluations: contents of evaluation files, none of which may be left out.
    Raises:
        VTSumError: the configuration names a class that can be none.
    """
    of = config.get("class")
    if of and not _is_class(of):  # it stands in a program to be copied
        raise VTSumError(f"push: class of {CONFIG} must be module:Class, got {of!r:.80}")
    imported = f"from {of.split(':')[0]} import {of.split(':')[1]}" if of else "from vtsum.model import VTSum"
    kind = of.split(":")[1] if of else "VTSum"
    tables = [results_table([evaluation], [name]).strip() for evaluation in evaluations]
    facts = config.get("facts")
    training = facts.get("training") if isinstance(facts, dict) else None
    steps = training.get("steps") if isinstance(training, dict) else None
    trained = f"Trained for {steps} steps; config.json has all settings." if type(steps) is int else ""
    parts = [
        "---\nlibrary_name: vtsum\ntags:\n- video-summarization\n- vtsum\n---",
        f"# {name}",
        f"A VTSum model on the frame features of {_shown(config, 'frame_encoder')} (width "
        f"{_shown(config, 'width')}): a saliency for each frame of a video, and a text. {trained}".strip(),
        f'```python\n{imported}\n\nmodel = {kind}.from_pretrained("{name}")\n```',
        "## What was measured",
        *(tables or ["Nothing yet: no evaluation came with these weights."]),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(config: Mapping[str, Any], field: str) -> str:
    return markdown(f"{config['model'].get(field)!s:.200}")


def _is_class(name: Any) -> bool:
    parts = name.split(":") if isinstance(name, str) else ()
    names = [*parts[0].split("."), parts[1]] if len(parts) == 2 else []
    return bool(names) and all(part.isidentifier() and not keyword.iskeyword(part) for part in names)
