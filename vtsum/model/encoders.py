"""Frame encoders by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vtsum import plugins
from vtsum.errors import VTSumError
from vtsum.model.blip_vision import BlipCheckpointFrameEncoder
from vtsum.model.files import as_floats, read_safetensors
from vtsum.model.frame_encoder import (
    EMBEDDED,
    KNOWN,
    EmbeddedFrameEncoder,
    TransformersFrameEncoder,
    is_transformers,
)
from vtsum.model.timm_encoder import PREFIX, TimmFrameEncoder
from vtsum.model.vtsum import VTSum
from vtsum.protocols import FrameEncoder


def load_frame_encoder(name: str, device: str | torch.device = "cpu") -> FrameEncoder:
    """A frame encoder by name or path.

    Args:
        name: "embedded"; "blip", "blip-large", "clip", "clip-large"; the folder or hub name of a transformers BLIP or
            CLIP checkpoint; BLIP's original .pth; "timm:NAME", any backbone of timm with its pretrained weights, or
            "timm:NAME@PATH" with those of a file or folder; a model folder of VTSum, for the encoder that it names; or
            one of the user's own (`vtsum.plugins`).
        device: where it runs.
    Raises:
        VTSumError: an unknown name, or weights that are missing or broken.
    """
    if not name.startswith(PREFIX) and not Path(name).exists() and (own := plugins.find("encoder", name)) is not None:
        return own
    return _built_in(name, device)


def _built_in(name: str, device: str | torch.device, through: tuple[str, ...] = ()) -> FrameEncoder:
    """`load_frame_encoder` without the user's own: a model's config.json, which may be a stranger's, can name these.

    through: the model folders that led here, each naming the next; one that leads back to itself has no end.
    """
    if name == "embedded":
        return embedded_frame_encoder(EMBEDDED, device)
    if name.startswith(PREFIX):
        return TimmFrameEncoder(name, device=device)
    path = Path(name)
    if path.is_file():
        return BlipCheckpointFrameEncoder(path, device=device)
    if path.is_dir() and not is_transformers(path):
        folder = os.path.realpath(path)
        if folder in through:
            raise VTSumError(f"load_frame_encoder: {name} must name a frame encoder, got a model that names itself")
        checkpoint = VTSum.load_checkpoint(path, text=False)
        return frame_encoder_of(
            checkpoint.model.config.frame_encoder, checkpoint.encoder_state, device, (*through, folder)
        )
    if name not in KNOWN and not path.is_dir() and "/" not in name:
        names = ", ".join(["embedded", *KNOWN])
        raise VTSumError(
            f"load_frame_encoder: name must be one of {names}, timm:NAME, a folder, a file, a hub name or module:Class "
            f"of your own, got {name!r}"
        )
    return TransformersFrameEncoder(KNOWN.get(name, name), name, device)


def embedded_frame_encoder(folder: Path, device: str | torch.device = "cpu") -> EmbeddedFrameEncoder:
    """The embedded encoder of a model folder, without the rest of the model."""
    path, prefix = folder / "model.safetensors", "encoder."
    own = {k: v for k, v in read_safetensors(path, "load_frame_encoder").items() if k.startswith(prefix)}
    return EmbeddedFrameEncoder(
        {k.removeprefix(prefix): as_floats(k, v, f"load_frame_encoder: {path}") for k, v in own.items()}, device
    )


def frame_encoder_of(
    name: str, state: Mapping[str, Tensor], device: str | torch.device = "cpu", through: tuple[str, ...] = ()
) -> FrameEncoder:
    """The encoder `name` that a model was trained on; `state`: the embedded encoder's weights, where the model has
    weights of its own for it; `through`: see `_built_in`."""
    if name == "embedded" and state:
        return EmbeddedFrameEncoder(state, device)
    return _built_in(name, device, through)
