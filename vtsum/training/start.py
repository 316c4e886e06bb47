"""The parts that a run starts from: the training videos, the tokenizer and the model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from vtsum import plugins
from vtsum.config import VTSumConfig
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.model.checkpoint import CONFIG, VOCABULARY
from vtsum.model.tokenizer import load_tokenizer
from vtsum.training.settings import Given, build

HEAD_SIZE = 64
# What may differ from a pretrained folder's own configuration without changing its weights.
_FREE = {"dropout", "loss_type", "loss_mean", "label_smoothing", "max_text_length", "temporal_window"}
_FREE |= {"lambda_vsum", "lambda_tsum", "lambda_boundary", "positions_over"}
_FREE_TEXT = {"dropout", "prompt"}


def training_videos(given: Given) -> VideoXumDataset:
    """The training split that the settings name.

    Raises:
        VTSumError: no corpus was named, or its annotations or folders are missing or broken.
    """
    s = given.settings_without_model()
    if s.data is None and None in (s.ann_root, s.video_embeddings_root):
        raise VTSumError("train: data must be given (--data DIR), or both ann_root and video_embeddings_root, got none")
    return VideoXumDataset(
        s.data,
        ann_root=s.ann_root,
        video_embeddings_root=s.video_embeddings_root,
        max_frames=s.max_video_length,
    )


def fingerprint(videos: VideoXumDataset) -> str:
    """A hash of which videos there are, how long, in which order: the same corpus elsewhere has the same."""
    text = "\n".join(f"{name} {length}" for name, length in zip(videos.video_ids, videos.lengths, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_of(given: Given) -> Any:
    """The tokenizer that the settings name: --tokenizer, else the pretrained folder's, else DATA/vocab.txt.

    Raises:
        VTSumError: none of them is there.
    """
    named = given.values.get("tokenizer")
    if named is not None:
        return load_tokenizer(named)
    for place in (given.values.get("pretrained"), given.values.get("data")):
        if place is not None and (Path(place) / VOCABULARY).is_file():
            return load_tokenizer(Path(place) / VOCABULARY)
    raise VTSumError(
        f"train: tokenizer must be given (--tokenizer vocab.txt) where the data has no {VOCABULARY}, got none"
    )


def make_model(given: Given, videos: VideoXumDataset, tokenizer: Any) -> VTSum:
    """The model to train, from scratch or pretrained; sizes that were left out follow from the data and the tokenizer.

    Args:
        videos: to train on, whose features say the width.
    Raises:
        VTSumError: the settings contradict the data or the pretrained weights.
    """
    width = videos.width
    asked, pretrained = given.model, given.values.get("pretrained")
    named = given.values.get("architecture")
    kind: type[VTSum] = VTSum if named is None else plugins.find_class("architecture", named, VTSum)
    if pretrained is None:
        model = kind(_fitting(_sizes(asked, width, tokenizer), tokenizer, kind), tokenizer)
    elif (Path(pretrained) / CONFIG).is_file():
        model = _from_folder(Path(pretrained), asked, kind)
    elif Path(pretrained).is_file():
        text = dict(asked.pop("text", {}))
        heads = text.pop("num_heads", None)
        model = kind.from_videoxum(pretrained, tokenizer=tokenizer, text_num_heads=heads, text=text, **asked)
    else:
        raise VTSumError(f"train: pretrained must be a model folder or a .pth file, got {pretrained}")
    if model.config.width != width:
        videos.check_width()  # a single file may be to blame
        raise VTSumError(f"train: model.width must be the width of the features, {width}, got {model.config.width}")
    return model


def _sizes(asked: dict[str, Any], width: int, tokenizer: Any) -> VTSumConfig:
    made = dict(asked)
    made.setdefault("width", width)
    if "num_heads" not in made and made["width"] % HEAD_SIZE == 0:
        made["num_heads"] = made["width"] // HEAD_SIZE
    text = dict(made.get("text", {}))
    text.setdefault("vocab_size", len(tokenizer))
    if text["vocab_size"] < len(tokenizer):
        raise VTSumError(
            f"train: model.text.vocab_size must be at least the tokenizer's {len(tokenizer)}, got {text['vocab_size']}"
        )
    made["text"] = text
    config: VTSumConfig = build(VTSumConfig, made)
    return config


def _fitting(config: VTSumConfig, tokenizer: Any, kind: type[VTSum]) -> VTSumConfig:
    """The configuration, where this machine's memory has room for its weights."""
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with torch.device("meta"):
            needed = 4 * sum(value.numel() for value in kind(config, tokenizer).parameters())
        found = f"weights of {needed:,} bytes"
    except (RuntimeError, TypeError):  # more than can be counted
        needed, found = room + 1, "more weights than can be counted"
    if needed > room:
        raise VTSumError(f"train: sizes under model must fit into this machine's {room:,} bytes of memory, got {found}")
    return config


def _from_folder(folder: Path, asked: dict[str, Any], kind: type[VTSum]) -> VTSum:
    model = kind.from_pretrained(folder)
    if model.text_decoder is None:
        raise VTSumError(f"train: pretrained must be a model with a text decoder, got {folder} without one")
    wanted: VTSumConfig = build(VTSumConfig, asked, model.config)
    text = asked.get("text", {})
    for name, value in [*asked.items(), *((f"text.{k}", v) for k, v in text.items())]:
        if name == "text":
            continue
        nested, key = name.startswith("text."), name.removeprefix("text.")
        own = getattr(model.config.text if nested else model.config, key)
        # A pretrained model may get a boundary head, which then starts fresh.
        added = name == "boundary_head" and value
        if value != own and not added and key not in (_FREE_TEXT if nested else _FREE):
            raise VTSumError(f"train: model.{name} must be {own!r}, as the pretrained {folder} has it, got {value!r}")
    if wanted == model.config:
        return model
    made = type(model)(wanted, model.text_decoder.tokenizer)
    made.load_state_dict(model.state_dict(), strict=made.boundary_head is None or model.boundary_head is not None)
    made.encoder_state = model.encoder_state
    return made
