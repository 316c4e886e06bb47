"""BLIP's vision transformer from BLIP's own checkpoint files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vtsum_kernels.integrations import torchvision_free

from vtsum.errors import VTSumError
from vtsum.model.files import as_floats
from vtsum.model.frame_encoder import NetworkFrameEncoder

PREFIX = "visual_encoder."
HEAD_DIM = 64
NAMES = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.mlp\.fc([12])\.", r"encoder.layers.\1.mlp.fc\2."),
    (r"norm\.", "post_layernorm."),
)
"""How BLIP's names begin, after the prefix, and transformers'."""


def vision_model(state: Mapping[str, Tensor], num_heads: int | None = None) -> Any:
    """transformers' BlipVisionModel with the `visual_encoder.*` weights among `state`; sizes are read from them.

    Args:
        num_heads: None: the width / 64, as in BLIP's ViT-B and ViT-L.
    Raises:
        VTSumError: weights that are missing, unexpected or of another shape.
    """
    torchvision_free.prepare()
    from transformers import BlipVisionConfig, BlipVisionModel

    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(PREFIX):
            rest = name.removeprefix(PREFIX)
            ours = (re.sub(f"^{theirs}", new, rest) for theirs, new in NAMES if re.match(theirs, rest))
            weights[next(ours, rest)] = as_floats(name, value, "load_frame_encoder")
    try:
        width, _, patch, _ = weights["embeddings.patch_embedding.weight"].shape
        grid = round((weights["embeddings.position_embedding"].shape[1] - 1) ** 0.5)
        hidden = weights["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise VTSumError(f"load_frame_encoder: weights must hold BLIP's {PREFIX}*, got no {error}") from None
    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=len({name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}),
        num_attention_heads=num_heads or width // HEAD_DIM,
        image_size=grid * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    model = BlipVisionModel(config)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise VTSumError(f"load_frame_encoder: weights must be those of BLIP's {PREFIX}*, got {reason}") from None
    return model.eval()


class BlipCheckpointFrameEncoder(NetworkFrameEncoder):
    """The vision transformer of BLIP's model_base*.pth or model_large*.pth; the embedding is the class token after the
    final norm.

    VideoXum publishes its features, [T, 768] at one frame a second, but not the code that made them. What is known: its
    models start from BLIP's model_base_capfilt_large.pth, name a 224-pixel ViT-B/16, and read one vector of the
    transformer's width a frame. That fits the class token, which BLIP itself uses as the picture's embedding.

    Args:
        path: the .pth file.
    Raises:
        VTSumError: a file that is missing, broken or without such weights.
    """

    def __init__(self, path: str | Path, device: str | torch.device = "cpu") -> None:
        from vtsum.model.videoxum_checkpoint import read_weights

        network = vision_model(read_weights(path))
        super().__init__(str(path), network, network.config.image_size, network.config.hidden_size, device=device)

    def features(self, pixels: Tensor) -> Tensor:
        return self.network(pixel_values=pixels).last_hidden_state[:, 0]
