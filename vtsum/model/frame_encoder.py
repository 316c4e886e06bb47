"""Frame encoders: pictures to embeddings, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vtsum.errors import VTSumError
from vtsum.model import embedded_encoder, torchvision_free

# What transformers' BLIP and CLIP were trained with, where a checkpoint's preprocessor_config.json is not there to say.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class FrameEncoder(Protocol):
    """`encode(images)`: uint8 [N, S, S, 3] RGB with S = `image_size` -> float32 [N, `dim`]."""

    name: str
    image_size: int
    dim: int

    def encode(self, images: np.ndarray) -> np.ndarray: ...


def check_images(images: np.ndarray, size: int) -> None:
    """uint8 [N, size, size, 3] or an error that says what was found."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise VTSumError(
            f"encode: images must be uint8 [N, {size}, {size}, 3], got {images.dtype} {list(images.shape)}"
        )


class EmbeddedFrameEncoder:
    """The small network inside the package."""

    name = "embedded"
    image_size = embedded_encoder.IMAGE_SIZE

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        network = embedded_encoder.EmbeddedEncoder()
        problems = network.load_state_dict(dict(state), strict=False)
        missing = [k for k in problems.missing_keys if not k.endswith("num_batches_tracked")]
        if missing or problems.unexpected_keys:
            raise VTSumError(
                f"EmbeddedFrameEncoder: weights must be those of the embedded encoder, missing {missing[:3]}, "
                f"unexpected {problems.unexpected_keys[:3]}"
            )
        self.network = network.fuse()
        self.dim = embedded_encoder.EMBEDDING_DIM

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        check_images(images, self.image_size)
        # [N, H, W, 3] seen as [N, 3, H, W] already is channels-last: no copy but the conversion to float.
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        return self.network.embed(x).numpy()


def from_pretrained(kind: Any, source: str, what: str) -> Any:
    """`kind.from_pretrained(source)` from a folder, the local cache or the hub; one clear line if it cannot be had."""
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise VTSumError(
            f"load: {what} must be a transformers checkpoint in a folder, in the local cache or on the hub, "
            f"got {source!r}: {reason}"
        ) from None


class TransformersFrameEncoder:
    """The vision tower of a BLIP or CLIP checkpoint of transformers; the embedding is its pooled output."""

    def __init__(self, source: str) -> None:
        torchvision_free.prepare()
        from transformers import AutoConfig, BlipForConditionalGeneration, CLIPVisionModelWithProjection

        config = from_pretrained(AutoConfig, source, "model")
        self.name = config.model_type
        self.captioner: Any | None = None
        if config.model_type == "blip":
            self.captioner = from_pretrained(BlipForConditionalGeneration, source, "model").eval()
            self.network = self.captioner.vision_model
            vision = config.vision_config
            self.dim = vision.hidden_size
        elif config.model_type == "clip":
            self.network = from_pretrained(CLIPVisionModelWithProjection, source, "model").eval()
            vision = self.network.config
            self.dim = vision.projection_dim
        else:
            raise VTSumError(
                f"load: model must be a BLIP or CLIP checkpoint, got {source!r} of type {config.model_type}"
            )
        self.image_size = vision.image_size
        self.mean, self.std = _normalisation(source)

    def pixels(self, images: np.ndarray) -> Tensor:
        """uint8 [N, S, S, 3] -> normalised float [N, 3, S, S]."""
        check_images(images, self.image_size)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        return ((x - self.mean) / self.std).contiguous()

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        out = self.network(pixel_values=self.pixels(images))
        pooled = out.image_embeds if hasattr(out, "image_embeds") else out.pooler_output
        return pooled.float().numpy()


def _normalisation(source: str) -> tuple[Tensor, Tensor]:
    mean, std = MEAN, STD
    path = Path(source) / "preprocessor_config.json"
    if path.is_file():
        import json

        data = json.loads(path.read_text(encoding="utf-8"))
        mean, std = data.get("image_mean", mean), data.get("image_std", std)
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
