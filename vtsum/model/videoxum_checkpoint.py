"""Weights in the original projects' own names: VideoXum's, BLIP's, and those of the extension with a memory.

Sources: jylins/videoxum (VTSum-BLIP), salesforce/BLIP, and a student project whose MemoryAugmentedTransformer wraps
VideoXum's model as `base`.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vtsum.config import TextConfig, VTSumConfig, from_dict
from vtsum.errors import VTSumError
from vtsum.model.files import as_floats, read_pt
from vtsum.model.tokenizer import add_enc, load_tokenizer

if TYPE_CHECKING:
    from vtsum.model.vtsum import VTSum

NAMES = (
    ("position_embeddings.", "position_embeddings."),
    ("tt.", "temporal."),
    ("local_atten_head.", "local_attention."),
    ("vsum_head.0.", "saliency_head."),
    ("text_decoder.", "text_decoder.lm."),
    ("memory_bank", "memory.memory"),
    ("memory_fusion.weight", "memory.join_weight"),
    ("memory_fusion.bias", "memory.join_bias"),
)
"""How the original's names begin, and ours."""

PARTS = {
    "position_embeddings": "the position embeddings",
    "temporal": "the temporal transformer",
    "memory": "the memory bank",
    "local_attention": "the local attention",
    "saliency_head": "the saliency head",
    "boundary_head": "the boundary head",
    "text_decoder": "the text decoder",
}
TT_FILE = "vtsum_tt"
"""The published TT model was trained with a local attention and is evaluated without it: its file may hold one."""
TEXT_POSITIONS = "text_decoder.bert.embeddings.position_embeddings.weight"
HEAD_DIM = 64


@dataclass
class LoadReport:
    """What became of a checkpoint's weights.

    missing: names of ours that keep their fresh start. unexpected: names of the checkpoint that were not used. started:
    sentences on what was started otherwise.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """The report in words; empty where every weight found its place."""
        parts = Counter(PARTS[name.split(".")[0]] for name in self.missing)
        out = [
            f"freshly initialised, for the checkpoint has no weights of it: {part} ({n})" for part, n in parts.items()
        ]
        groups = Counter(name.split(".")[0] for name in self.unexpected)
        hints = {
            "visual_encoder": "; load_frame_encoder reads it from the same file",
            "local_atten_head": "; the TT model has none, kernel_size=5 reads them",
        }
        out += [f"not used: {name} ({n} weights{hints.get(name, '')})" for name, n in groups.items()]
        return "\n".join(out + self.started)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of an original .pth: {"model": weights} with whatever plain data beside it, or the weights alone.

    "module." before every name, as distributed training leaves it, is dropped. Nothing but tensors and plain data is
    unpickled, so no code of the file is ever run.

    Raises:
        VTSumError: the file is missing, is no such file, or holds something else.
    """
    if not Path(path).is_file():
        raise VTSumError(f"from_videoxum: checkpoint must be a file, got {path}")
    data = read_pt(path, "from_videoxum")
    state = data.get("model", data) if isinstance(data, dict) else data
    named = isinstance(state, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not named or not state:
        found_type = type(state).__name__ if not isinstance(state, Mapping) else f"the keys {list(state)[:5]}"
        raise VTSumError(f'from_videoxum: {path} must hold weights, by name or under "model", got {found_type}')
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def our_name(original: str) -> str | None:
    """Our name of an original's weight; None for one that the summarizer has no place for."""
    for theirs, ours in NAMES:
        if original.startswith(theirs):
            return ours + original[len(theirs) :]
    return None


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _shape(state: Mapping[str, Tensor], name: str, path: str | Path) -> torch.Size:
    if name not in state:
        raise VTSumError(f"from_videoxum: {path} must hold VideoXum's or BLIP's weights, got no {name}")
    return state[name].shape


def sizes(state: Mapping[str, Tensor], path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of VTSumConfig and of its TextConfig that the weights themselves say."""
    words = _shape(state, "text_decoder.bert.embeddings.word_embeddings.weight", path)
    layer = "text_decoder.bert.encoder.layer.0"
    text = {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "num_layers": _count(state, r"text_decoder\.bert\.encoder\.layer\.(\d+)\."),
        "intermediate_size": _shape(state, f"{layer}.intermediate.dense.weight", path)[0],
        "max_positions": _shape(state, TEXT_POSITIONS, path)[0],
    }
    width = _shape(state, f"{layer}.crossattention.self.key.weight", path)[1]
    found: dict[str, Any] = {"width": width}
    if "position_embeddings.weight" in state:
        found["max_positions"] = state["position_embeddings.weight"].shape[0]
    elif text["hidden_size"] == width:
        found["max_positions"] = text["max_positions"]
    if blocks := _count(state, r"tt\.blocks\.(\d+)\."):
        hidden = _shape(state, "tt.blocks.0.mlp.fc1.weight", path)[0]
        found |= {"depth": blocks, "mlp_ratio": hidden // width}
    if "memory_bank" in state:
        found |= {"memory_slots": len(state["memory_bank"]), "memory_form": "student", "memory_position": "before"}
    return found, text


def _heads(argument: str, asked: int | None, width: int) -> int:
    if asked is None:
        if width % HEAD_DIM:
            raise VTSumError(
                f"from_videoxum: {argument} must be given where the width is no multiple of {HEAD_DIM}, got {width}"
            )
        return width // HEAD_DIM
    return asked


def configure(
    state: Mapping[str, Tensor],
    path: str | Path,
    kernel_size: int | str | None,
    text_num_heads: int | None,
    num_heads: int | None,
    changes: Mapping[str, Any],
) -> VTSumConfig:
    """The configuration that the weights ask for, with the caller's changes where the weights leave a choice."""
    found, found_text = sizes(state, path)
    text_changes = dict(changes.get("text", {}))
    if kernel_size == "auto":
        trained_without = any(name.startswith("tt.") for name in state)
        has = any(name.startswith("local_atten_head.") for name in state)
        without = (trained_without and not has) or Path(path).stem == TT_FILE
        kernel_size = None if without else VTSumConfig.kernel_size
    elif isinstance(kernel_size, str):
        raise VTSumError(f'from_videoxum: kernel_size must be an odd number, None or "auto", got {kernel_size!r}')
    found |= {"kernel_size": kernel_size, "num_heads": _heads("num_heads", num_heads, found["width"])}
    found_text["num_heads"] = _heads("text_num_heads", text_num_heads, found_text["hidden_size"])
    for given, read in ((changes, found), (text_changes, found_text)):
        if wrong := [name for name in given if name in read and given[name] != read[name]]:
            name = wrong[0]
            raise VTSumError(
                f"from_videoxum: {name} must be left out or be the checkpoint's {read[name]}, got {given[name]}"
            )
    known = {f.name for f in fields(TextConfig)}
    if unknown := sorted(set(text_changes) - known):
        raise VTSumError(f"from_videoxum: keys of text must be among {sorted(known)}, got {unknown}")
    longest = min(128, found_text["max_positions"])
    free = {"frame_encoder": "blip", "memory_slots": 0, "max_text_length": longest}
    values = {**free, **changes, **found, "text": {**text_changes, **found_text}}
    return from_dict(VTSumConfig, values)


def _check_whole(missing: list[str], present: set[str], path: str | Path) -> None:
    """A part of which some weights are there and some are not is a broken file, not another kind of model."""
    for part in PARTS:
        lost = [name for name in missing if name.split(".")[0] == part]
        if lost and any(name.split(".")[0] == part for name in present):
            raise VTSumError(
                f"from_videoxum: {path} must hold all weights of {PARTS[part]}, got none for {lost[0]}"
                + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
            )


def from_videoxum(
    kind: type[VTSum],
    checkpoint: str | Path,
    tokenizer: Any,
    kernel_size: int | str | None = "auto",
    text_num_heads: int | None = None,
    num_heads: int | None = None,
    **config: Any,
) -> VTSum:
    """A model from vtsum_tt.pth, vtsum_tt_ca.pth, BLIP's model_base*.pth, or the memory extension's checkpoint.

    Sizes are read from the weights. Of BLIP's own checkpoints the text decoder is taken, and the position embeddings
    start as a copy of its; with position_start="normal" from N(0, 1), as they did for VideoXum, whose code copies them
    only where the checkpoint's path has "pretrained" in it, and its released path has not. What the checkpoint lacks is
    freshly initialised; what was missing and what was not used is logged, and kept in `model.loading`.

    Args:
        kind: what is made; `VTSum.from_videoxum` hands itself over, so that this module need not know it.
        tokenizer: as `load_tokenizer` takes it: BERT's uncased word list, for the published weights.
        kernel_size: window of the local attention, or None to leave it out; "auto": 5, except for a checkpoint that was
            trained without it, and for a file named vtsum_tt.pth: the TT model, which the released code evaluates
            without the local attention that its command trains.
        text_num_heads, num_heads: of the text decoder and of the other attentions; None: the width / 64.
        config: other fields of VTSumConfig; `memory_slots` is 0 and `max_text_length` 128, the original's, unless
            given. `text` takes a dict of fields of TextConfig.
    Returns:
        VTSum: in evaluation mode.
    Raises:
        VTSumError: a file that is missing, broken or no checkpoint; weights of another shape; an incomplete part; a
            tokenizer of another vocabulary; fields that contradict the weights.
    """
    state = read_weights(checkpoint)
    state = {name.removeprefix("base."): value for name, value in state.items()}
    made = configure(state, checkpoint, kernel_size, text_num_heads, num_heads, config)
    words = load_tokenizer(tokenizer)
    if len(words) == made.text.vocab_size - 1:
        add_enc(words)
    if len(words) != made.text.vocab_size:
        raise VTSumError(
            f"from_videoxum: tokenizer must have the checkpoint's {made.text.vocab_size} words, [DEC] and [ENC] "
            f"included, got {len(words)}"
        )
    model = kind(made, words)
    own = model.state_dict()
    report = LoadReport()
    if "position_embeddings.weight" not in state:
        if made.position_start == "normal":
            report.started.append("the position embeddings start from N(0, 1)")
        elif state[TEXT_POSITIONS].shape == own["position_embeddings.weight"].shape:
            state["position_embeddings.weight"] = state[TEXT_POSITIONS]
            report.started.append("the position embeddings start as a copy of the text decoder's")
        else:
            report.started.append("the position embeddings start afresh: the text decoder's have another width")
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        new = our_name(name)
        if new is None or (new not in own and not name.endswith("position_ids")):
            report.unexpected.append(name)
        elif new in own:
            if value.shape != own[new].shape:
                raise VTSumError(
                    f"from_videoxum: {name} must be {list(own[new].shape)}, got {list(value.shape)} in {checkpoint}"
                )
            weights[new] = as_floats(name, value, f"from_videoxum: {checkpoint}")
    tied = {f"text_decoder.lm.{name}" for name in model.text_decoder.lm._tied_weights_keys}  # type: ignore[union-attr]
    report.missing = [name for name in own if name not in weights and name not in tied]
    _check_whole(report.missing, set(weights), checkpoint)
    model.load_state_dict(weights, strict=False)
    model.text_decoder.lm.tie_weights()  # type: ignore[union-attr]
    model.loading = report
    if described := report.describe():
        logging.getLogger(__name__).warning("%s: %s", checkpoint, described.replace("\n", "; "))
    return model.eval()
