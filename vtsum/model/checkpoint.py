"""A model on disk: a folder with config.json, model.safetensors and vocab.txt.

config.json: {"format": "vtsum-model/1", "model": the fields of VTSumConfig, "facts": what it was trained on and how
well it did}. model.safetensors: the summarizer's weights under "model.", those of the embedded frame encoder, where the
model has one, under "encoder."; float16 or float32. vocab.txt: the text decoder's WordPiece list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vtsum.config import VTSumConfig, from_dict, to_dict
from vtsum.errors import VTSumError
from vtsum.model import torchvision_free
from vtsum.model.vtsum import VTSum

FORMAT = "vtsum-model/1"
WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"


@dataclass
class Checkpoint:
    """The model in evaluation mode, the embedded encoder's weights (or none), its facts and its weights' hash."""

    model: VTSum
    encoder_state: dict[str, Tensor]
    facts: dict[str, Any]
    weights_sha256: str


def load_tokenizer(vocabulary: Path) -> Any:
    """transformers' BertTokenizer on a word list; [DEC], which starts a sentence, is added where the list lacks it."""
    if not vocabulary.is_file():
        raise VTSumError(f"load_tokenizer: vocabulary must be a file, got {vocabulary}")
    torchvision_free.prepare()
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(vocab=str(vocabulary))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def pack(model: VTSum, encoder: torch.nn.Module | None, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The weights as they lie in model.safetensors; tied weights once."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    parts: list[tuple[str, torch.nn.Module]] = [("model.", model)]
    if encoder is not None:
        parts.append(("encoder.", encoder))
    for prefix, module in parts:
        for name, value in module.state_dict().items():
            if value.data_ptr() in seen or name.endswith("num_batches_tracked"):
                continue
            seen.add(value.data_ptr())
            state[prefix + name] = value.to(dtype) if value.is_floating_point() else value
    return state


def config_text(config: VTSumConfig, facts: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, "model": to_dict(config), "facts": dict(facts)}, indent=1) + "\n"


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Load a model folder; weights come as safetensors alone, so that no code of theirs is ever run.

    Raises:
        VTSumError: a file missing or broken, another format, weights that do not fit the configuration.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        if not (folder / name).is_file():
            raise VTSumError(f"load_checkpoint: {folder} must hold {CONFIG}, {WEIGHTS} and {VOCABULARY}, got no {name}")
    try:
        data = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise VTSumError(f"load_checkpoint: {folder / CONFIG} must be JSON, got: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise VTSumError(f"load_checkpoint: format of {folder / CONFIG} must be {FORMAT!r}, got {found!r}")
    config = from_dict(VTSumConfig, data["model"])
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise VTSumError(f"load_checkpoint: {folder / WEIGHTS} must be a safetensors file, got: {error}") from None
    model = VTSum(config, load_tokenizer(folder / VOCABULARY))
    weights = {k.removeprefix("model."): v.float() for k, v in state.items() if k.startswith("model.")}
    problems = model.load_state_dict(weights, strict=False)
    tied = set(getattr(model.text_decoder.lm, "_tied_weights_keys", {}) if model.text_decoder is not None else ())
    missing = [k for k in problems.missing_keys if k.removeprefix("text_decoder.lm.") not in tied]
    if missing or problems.unexpected_keys:
        raise VTSumError(
            f"load_checkpoint: weights of {folder} must fit its config, "
            f"missing {missing[:5]}, unexpected {problems.unexpected_keys[:5]}"
        )
    if model.text_decoder is not None:
        model.text_decoder.lm.tie_weights()
    encoder = {k.removeprefix("encoder."): v.float() for k, v in state.items() if k.startswith("encoder.")}
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return Checkpoint(model.eval(), encoder, data.get("facts", {}), digest)
