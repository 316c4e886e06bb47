"""VT-CLIPScore: how well the generated text fits the chosen frames, by a CLIP model.

Source: Lin et al., "VideoXum", arXiv 2303.12060; the fine-tuned CLIP is that of its repository (vt_clip.pth).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vtsum_kernels.integrations import torchvision_free

from vtsum.errors import VTSumError, first_line
from vtsum.model.checkpoint import Uninitialised
from vtsum.model.clip_text import ClipText
from vtsum.model.files import as_floats, read_pt
from vtsum.model.pretrained import at_work, check_config, from_pretrained, tower_from_pretrained
from vtsum.reading import named

ORIGINAL_LIMIT = 256
"""Tokens that the original fine-tuned CLIP reads; beyond its own positions they are interpolated."""
_HEAD_DIM = 64
# OpenAI's names of the text tower -> transformers', anchored.
_NAMES = (
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^(transformer\.resblocks\.\d+)\.ln_(\d)\.", r"\1.layer_norm\2."),
    (r"^(transformer\.resblocks\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"^(transformer\.resblocks\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
    (r"^(transformer\.resblocks\.\d+)\.attn\.out_proj\.", r"\1.self_attn.out_proj."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
)
_OTHERS = re.compile(r"^(visual\.|logit_scale$|input_resolution$|context_length$|vocab_size$)")


def vt_clipscore(vision: np.ndarray, text: np.ndarray, frames: np.ndarray) -> float:
    """Cosine (-1..1) of the mean of the chosen frames' features with a text's features.

    Args:
        vision: [T, D], as they are: lengths weigh in the mean. text: [D]. frames: indices of the chosen frames.
    """
    if vision.ndim != 2 or text.shape != vision.shape[1:]:
        raise VTSumError(
            f"vt_clipscore: vision must be [T, D] and text [D], got {list(vision.shape)} and {list(text.shape)}; "
            "the features must come from the CLIP that encodes the text"
        )
    mean = vision[frames].mean(axis=0, dtype=np.float64)
    norms = float(np.linalg.norm(mean)) * float(np.linalg.norm(text.astype(np.float64)))
    return float(mean @ text.astype(np.float64)) / norms if norms else 0.0


def load_clip_text(
    source: str | Path, tokenizer: str | Path | None = None, device: torch.device | str = "cpu"
) -> ClipText:
    """The text encoder for VT-CLIPScore.

    Args:
        source: a folder with a CLIP model of transformers, or the original vt_clip.pth, {"model": weights under
            OpenAI's names}. Of the latter up to 256 tokens are read, of the former as many as it has positions.
        tokenizer: a folder with the tokenizer's files (vocab.json and merges.txt, or tokenizer.json).
            [default: the folder itself, or the one the file lies in]
    Raises:
        VTSumError: a file that is missing, broken or of another kind.
    """
    source = Path(source)
    torchvision_free.prepare()
    from transformers import CLIPTextModelWithProjection

    network: Any
    if source.is_dir():
        folder = source
        weights = sorted(path for kind in ("*.safetensors", "*.bin") for path in source.glob(kind))
        if not (source / "config.json").is_file() or not weights:
            raise VTSumError(
                f"load_clip_text: {source} must hold a CLIP model of transformers, got no config or weights"
            )
        network = tower_from_pretrained(
            CLIPTextModelWithProjection, source, "a CLIP", "load_clip_text", local_files_only=True
        )
        limit = network.config.max_position_embeddings
    elif source.is_file():
        folder, weights = source.parent, [source]
        state = _read(source)
        with at_work(source, "load_clip_text"):  # of weights in sizes that are no CLIP's
            network = from_openai(state, str(source))
        limit = max(ORIGINAL_LIMIT, network.config.max_position_embeddings)
    else:
        raise VTSumError(f"load_clip_text: clip must be a CLIP folder or a .pth file, got {source}, which is not there")
    digest = hashlib.sha256()
    for path in weights:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    words = _tokenizer(Path(tokenizer) if tokenizer is not None else folder)
    return ClipText(network, words, limit, digest.hexdigest(), device, source, "evaluate")


def from_openai(state: Mapping[str, Tensor], name: str = "weights") -> nn.Module:
    """transformers' CLIPTextModelWithProjection with the text tower of weights under OpenAI's names.

    Raises:
        VTSumError: names that are missing or unexpected.
    """
    torchvision_free.prepare()
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if _OTHERS.match(key):
            continue
        value = as_floats(key, value, f"load_clip_text: {name}")
        for pattern, replacement in _NAMES:
            key = re.sub(pattern, replacement, key)
        if match := re.fullmatch(r"(.+)\.attn\.in_proj_(weight|bias)", key):
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{match[1]}.self_attn.{part}_proj.{match[2]}"] = rows
        else:
            renamed[key] = value.T.contiguous() if key == "text_projection.weight" else value
    try:
        vocabulary, width = renamed["text_model.embeddings.token_embedding.weight"].shape
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=renamed["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            projection_dim=renamed["text_projection.weight"].shape[0],
            num_hidden_layers=len({k.split(".")[3] for k in renamed if k.startswith("text_model.encoder.layers.")}),
            num_attention_heads=max(1, width // _HEAD_DIM),
            max_position_embeddings=renamed["text_model.embeddings.position_embedding.weight"].shape[0],
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,  # the highest id, as CLIP's vocabulary has it
        )
    except KeyError as error:
        raise VTSumError(f"load_clip_text: {name} must hold CLIP's text tower, got no {error}") from None
    # Nothing is made of sizes and layers that are only named: the tensors that the file holds become the network's.
    check_config({"num_hidden_layers": config.num_hidden_layers}, f"load_clip_text: {name}")
    with torch.device("meta"), Uninitialised():
        network = CLIPTextModelWithProjection(config)
    try:
        problems = network.load_state_dict(renamed, strict=False, assign=True)
    except RuntimeError as error:
        raise VTSumError(f"load_clip_text: {name} must hold one CLIP's weights: {first_line(error)}") from None
    if problems.missing_keys or problems.unexpected_keys:
        raise VTSumError(
            f"load_clip_text: {name} must hold CLIP's text tower, missing {problems.missing_keys[:3]}, "
            f"unexpected {problems.unexpected_keys[:3]}"
        )
    network.text_model.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # in no file
    return network


def _read(path: Path) -> Mapping[str, Tensor]:
    data = read_pt(path, "load_clip_text")
    state = data.get("model", data) if isinstance(data, Mapping) else data
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise VTSumError(f"load_clip_text: {path} must hold weights by name, got {named(state)}")
    return state


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, CLIPTokenizer

    whole = (folder / "tokenizer.json").is_file()
    if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise VTSumError(
            f"load_clip_text: {folder} must hold CLIP's tokenizer: vocab.json and merges.txt, or tokenizer.json "
            "(they come with any CLIP of transformers); --clip_tokenizer names another folder"
        )
    configured = (folder / "tokenizer_config.json").is_file() or (folder / "config.json").is_file()
    kind = AutoTokenizer if configured else CLIPTokenizer
    return from_pretrained(kind, folder, "CLIP's tokenizer", "load_clip_text", local_files_only=True)
