"""A model on disk: a folder with config.json, model.safetensors and vocab.txt.

config.json: {"format": "vtsum-model/1", "model": the fields of VTSumConfig, "facts": what it was trained on and how
well it did, and, of a class of the user's own, "class": "module:Class"}. model.safetensors: the summarizer's weights
under "model.", those of the embedded frame encoder, where the model has one, under "encoder.", and what the shipped
model gives saliency by beside its head under "saliency."; float16 or float32. vocab.txt: the text decoder's
WordPiece list; a model without a text decoder has none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vtsum import plugins
from vtsum.config import VTSumConfig, from_dict, to_dict
from vtsum.errors import VTSumError
from vtsum.files import check_regular, replacing, unfinished
from vtsum.model.files import as_floats, read_safetensors, write_safetensors
from vtsum.model.pretrained import snapshot
from vtsum.model.ridge_saliency import RidgeSaliency
from vtsum.model.tokenizer import load_tokenizer, vocabulary_text
from vtsum.shown import reason

if TYPE_CHECKING:
    from vtsum.model.vtsum import VTSum
from vtsum.reading import read_json, said_of

__all__ = ["Checkpoint", "config_text", "load_checkpoint", "load_tokenizer", "pack", "save_checkpoint"]

_PARTS = ("model.", "encoder.", "saliency.")  # how the names of tensors begin
FORMAT = "vtsum-model/1"
WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"
FILES = (WEIGHTS, CONFIG, VOCABULARY)
DECODER = "model.text_decoder."


@dataclass
class Checkpoint:
    """The model in evaluation mode, the embedded encoder's weights (or none), its facts and its weights' hash; and the
    ridge that gives saliency in place of its head, where there is one."""

    model: VTSum
    encoder_state: dict[str, Tensor]
    facts: dict[str, Any]
    weights_sha256: str
    ridge: RidgeSaliency | None = None


def tied_names(model: VTSum) -> set[str]:
    """Names of weights that are others' under a second name."""
    if model.text_decoder is None:
        return set()
    return {f"text_decoder.lm.{name}" for name in model.text_decoder.lm._tied_weights_keys}


def pack(
    model: VTSum,
    encoder: torch.nn.Module | Mapping[str, Tensor] | None,
    dtype: torch.dtype = torch.float16,
    state_dict: Mapping[str, Tensor] | None = None,
    ridge: RidgeSaliency | None = None,
) -> dict[str, Tensor]:
    """The weights as they lie in model.safetensors; tied weights once."""
    tied = tied_names(model)
    own = model.state_dict() if state_dict is None else state_dict
    state = {f"model.{name}": value for name, value in own.items() if name not in tied}
    if empty := [name for name, value in state.items() if value.numel() == 0]:
        raise VTSumError(
            f"save_pretrained: weights must be whole, got empty {empty[0]}; gather sharded weights into state_dict="
        )
    if isinstance(encoder, torch.nn.Module):
        encoder = encoder.state_dict()
    for name, value in (encoder or {}).items():
        if not name.endswith("num_batches_tracked"):
            state[f"encoder.{name}"] = value
    ridged = {} if ridge is None else {f"saliency.{name}": value for name, value in ridge.state().items()}
    # A copy of each: safetensors takes no two names for one memory.
    return ridged | {
        k: v.detach().cpu().to(dtype if v.is_floating_point() else v.dtype, copy=True) for k, v in state.items()
    }


def config_text(config: VTSumConfig, facts: Mapping[str, Any], of: str | None = None) -> str:
    about = {"format": FORMAT, **({"class": of} if of else {}), "model": to_dict(config), "facts": dict(facts)}
    return json.dumps(about, indent=1) + "\n"


def class_name(kind: type) -> str | None:
    """ "module:Class" of a model's class that is the user's own; None for VTSum itself."""
    return None if kind.__module__.startswith("vtsum.") else f"{kind.__module__}:{kind.__qualname__}"


def _class_to_load(named: Any, kind: type[VTSum], where: Path) -> type[VTSum]:
    """The class of a folder's model. What a folder names is a stranger's word and is not imported: it must be the
    caller's class already, or one that an installed package offers.

    Raises:
        VTSumError: it is neither.
    """
    if named is None or named == class_name(kind):
        return kind
    if isinstance(named, str) and plugins.is_installed("architecture", named):
        found: type[VTSum] = plugins.find_class("architecture", named, kind)
        return found
    raise VTSumError(
        f"load_checkpoint: {where} is a model of the class {named!r:.200}, which is code: name it yourself if you "
        "trust it (--architecture of vtsum train and evaluate, or from_pretrained of the class)"
    )


def save_checkpoint(
    model: VTSum,
    folder: Path,
    facts: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model folder; everything lies under temporary names before the first file takes its place.

    Raises:
        VTSumError: `folder` is a file or holds another model, facts that are no plain data, or weights that are not
            whole.
    """
    try:
        config = config_text(model.config, facts, class_name(type(model)))
    except TypeError as error:
        raise VTSumError(f"save_pretrained: facts must be plain data for JSON, got: {error}") from None
    older = check_model_place(folder, (WEIGHTS, CONFIG) if model.text_decoder is None else FILES)
    its_words = older and model.text_decoder is None and _has_words(folder / WEIGHTS)
    weights = pack(model, model.encoder_state, dtype, state_dict)
    with replacing(folder) as temporary:
        write_safetensors(weights, temporary(WEIGHTS))
        if model.text_decoder is not None:
            temporary(VOCABULARY).write_text(vocabulary_text(model.text_decoder.tokenizer), encoding="utf-8")
        temporary(CONFIG).write_text(config, encoding="utf-8")
    if its_words:
        (folder / VOCABULARY).unlink(missing_ok=True)


def check_model_place(folder: Path, names: Sequence[str] = FILES) -> bool:
    """Whether an older model lies where these files of another one are to be written.

    Raises:
        VTSumError: what lies there is none, and would be lost or be in the way.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise VTSumError(f"save_pretrained: folder must be a folder or new, got the file {folder}")
    finish(folder)
    if (config := folder / CONFIG).is_file() and not os.access(config, os.R_OK):  # it may be an older model's
        raise VTSumError(f"save_pretrained: {config} must be a file that may be read: Permission denied")
    older = _is_model(config)
    there = [name for name in names if os.path.lexists(folder / name)]
    others = there
    if older:  # one without a text decoder wrote no words: those are somebody else's
        others = [VOCABULARY] if VOCABULARY in there and _has_words(folder / WEIGHTS) is False else []
    if others:
        raise VTSumError(
            f"save_pretrained: folder must be new or a model of VTSum's, got {folder} with another {others[0]}"
        )
    try:
        for name in there:
            check_regular(folder / name)
        if older and _has_words(folder / WEIGHTS):  # its words are removed where the new one has none
            check_regular(folder / (name := VOCABULARY))
    except OSError as error:
        raise VTSumError(f"save_pretrained: {folder / name} must be a file to replace: {reason(error)}") from None
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise VTSumError(f"save_pretrained: folder {folder} must be writable: Permission denied")
    return older


def finish(folder: Path) -> None:
    """Give a new model its configuration where a process was killed as its files took their places, that one last:
    without it they are anybody's."""
    if os.path.lexists(folder / WEIGHTS) and not os.path.lexists(folder / CONFIG):
        for path in filter(_is_model, unfinished(folder, [CONFIG])):
            os.replace(path, folder / CONFIG)


def _has_words(weights: Path) -> bool | None:
    """Whether weights are a text decoder's, too; None where that cannot be told."""
    try:
        check_regular(weights)
        with safe_open(weights, "pt") as file:
            return any(name.startswith(DECODER) for name in file.keys())  # noqa: SIM118  # it is no dictionary
    except (OSError, SafetensorError):
        return None


def _is_model(config: Path) -> bool:
    """Whether a file is a configuration that `save_checkpoint` wrote."""
    try:
        check_regular(config)
        data = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


class Uninitialised(TorchFunctionMode):
    """Draws no start weights: on the meta device that would import torch's compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") == "normal_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _check_there(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        found = "something else than a file as" if os.path.lexists(folder / name) else "no"
        raise VTSumError(
            f"load_checkpoint: {folder} must hold {CONFIG}, {WEIGHTS} and {VOCABULARY}, got {found} {name}"
        )


def _check_sizes(
    config: VTSumConfig, tokenizer: Any, state: Mapping[str, Tensor], folder: Path, kind: type[VTSum]
) -> None:
    """Refuse sizes that the weights do not have before memory is taken for them: each by itself, then all together."""
    longest = max((size for value in state.values() for size in value.shape), default=0)
    text = config.text if any(name.startswith(DECODER) for name in state) else None
    sizes = {
        "width": (config.width, longest),
        "mlp_ratio": (config.mlp_ratio, longest),
        "memory_slots": (config.memory_slots, longest),
        "max_positions": (config.max_positions, longest),
        "depth": (config.depth, len(state)),
    }
    if text is not None:
        numbers = {name: value for name, value in vars(text).items() if type(value) is int}
        sizes |= {f"text.{name}": (value, longest) for name, value in numbers.items()}
        sizes["text.num_layers"] = (text.num_layers, len(state))
    for name, (value, most) in sizes.items():
        if value > most:
            raise VTSumError(f"load_checkpoint: {name} of {folder / CONFIG} must fit its weights, got {value}")
    with torch.device("meta"), Uninitialised():
        stated = sum(value.numel() for value in kind(config, tokenizer).parameters())
    held = sum(value.numel() for name, value in state.items() if name.startswith("model."))
    if stated > held:
        raise VTSumError(
            f"load_checkpoint: sizes of {folder / CONFIG} must fit its weights, got {stated:,} numbers for {held:,}"
        )


def load_checkpoint(source: str | Path, kind: type[VTSum], *, text: bool = True) -> Checkpoint:
    """Load a model folder, or a hub repository with the same files; weights come as safetensors alone, so that no code
    of theirs is ever run.

    Args:
        kind: what is made; `VTSum.load_checkpoint` hands itself over, so that this module need not know it.
        text (bool): False leaves out the text decoder, and with it the import of transformers.
    Raises:
        VTSumError: a file missing or broken, another format, weights that do not fit the configuration.
    """
    folder = Path(source)
    if not folder.exists() and isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/")):
        folder = snapshot(source, [CONFIG, WEIGHTS, VOCABULARY])
    for name in (CONFIG, WEIGHTS):
        _check_there(folder, name)
    data = read_json(folder / CONFIG, dict, "load_checkpoint")
    if data.get("format") != FORMAT:
        raise VTSumError(
            f"load_checkpoint: format of {folder / CONFIG} must be {FORMAT!r}, got {said_of(data, 'format')}"
        )
    if unknown := [name for name in data if name not in ("format", "class", "model", "facts")]:
        raise VTSumError(
            f"load_checkpoint: {folder / CONFIG} must hold format, class, model and facts alone, got {unknown[0]!r:.80}"
        )
    kind = _class_to_load(data.get("class"), kind, folder / CONFIG)
    for name, part in (("model", data.get("model")), ("facts", data.get("facts", {}))):
        if not isinstance(part, dict):
            raise VTSumError(f"load_checkpoint: {name} of {folder / CONFIG} must be an object, got {part!r:.80}")
    try:
        config = from_dict(VTSumConfig, data["model"])
    except VTSumError as error:
        raise VTSumError(f"load_checkpoint: {folder / CONFIG}: {error}") from None
    state = read_safetensors(folder / WEIGHTS, "load_checkpoint")
    if not text:
        state = {name: value for name, value in state.items() if not name.startswith(DECODER)}
    tokenizer = None
    if any(name.startswith(DECODER) for name in state):
        _check_there(folder, VOCABULARY)
        tokenizer = load_tokenizer(folder / VOCABULARY)
    _check_sizes(config, tokenizer, state, folder, kind)
    model = kind(config, tokenizer)
    where = f"load_checkpoint: {folder / WEIGHTS}"
    if others := sorted(name for name in state if not name.startswith(_PARTS)):
        raise VTSumError(f"{where} must hold tensors named {'*, '.join(_PARTS)}* alone, got {others[:5]}")
    state = {name: as_floats(name, value, where) for name, value in state.items()}
    weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    try:
        problems = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise VTSumError(f"load_checkpoint: weights of {folder} must fit its config, got {reason}") from None
    missing = [name for name in problems.missing_keys if name not in tied_names(model)]
    if missing or problems.unexpected_keys:
        raise VTSumError(
            f"load_checkpoint: weights of {folder} must fit its config, "
            f"missing {missing[:5]}, unexpected {problems.unexpected_keys[:5]}"
        )
    if model.text_decoder is not None:
        model.text_decoder.lm.tie_weights()
    model.encoder_state = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    ridge = None
    if ridged := {k.removeprefix("saliency."): v for k, v in state.items() if k.startswith("saliency.")}:
        try:
            ridge = RidgeSaliency.from_state(ridged)
            if ridge.mean.size != config.width:
                raise ValueError(f"saliency.mean must be as wide as the model, {config.width}, got {ridge.mean.size}")
        except ValueError as error:
            raise VTSumError(f"load_checkpoint: weights of {folder} must fit its config, got: {error}") from None
    with (folder / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(model.eval(), model.encoder_state, data.get("facts", {}), digest, ridge)
