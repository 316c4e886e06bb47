"""Frame encoders: pictures to embeddings, behind one small interface."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtsum_kernels.integrations import torchvision_free

from vtsum.errors import VTSumError
from vtsum.model import embedded_encoder
from vtsum.model.pretrained import (
    at_work,
    from_pretrained,
    model_from_pretrained,
    told_if_well,
    tower_from_pretrained,
    weights_sha256,
)
from vtsum.protocols import FrameEncoder, Summarizer
from vtsum.reading import read_json

EMBEDDED = Path(__file__).parent.parent / "assets" / "embedded"
"""The model that ships inside the package."""

KNOWN = {
    "blip": "Salesforce/blip-image-captioning-base",
    "blip-large": "Salesforce/blip-image-captioning-large",
    "clip": "openai/clip-vit-base-patch32",
    "clip-large": "openai/clip-vit-large-patch14",
}
"""Short names of transformers checkpoints."""

# What transformers' BLIP and CLIP were trained with, where a checkpoint's preprocessor_config.json is not there to say.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@contextlib.contextmanager
def float32_convolutions(device: torch.device) -> Iterator[None]:
    """On a GPU PyTorch convolves float32 with the 10 bits of TF32, unless told otherwise. The frames' features decide
    what is chosen: they are those of the CPU but for rounding."""
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # a module put in another one's place
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


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

    def __init__(self, state: Mapping[str, Tensor], device: str | torch.device = "cpu") -> None:
        network = embedded_encoder.EmbeddedEncoder()
        problems = network.load_state_dict(dict(state), strict=False)
        missing = [k for k in problems.missing_keys if not k.endswith("num_batches_tracked")]
        if missing or problems.unexpected_keys:
            raise VTSumError(
                f"EmbeddedFrameEncoder: weights must be those of the embedded encoder, missing {missing[:3]}, "
                f"unexpected {problems.unexpected_keys[:3]}"
            )
        self.weights_sha256 = weights_sha256(network.state_dict())
        self.network = network.fuse().to(device)
        self.device = torch.device(device)
        self.dim = embedded_encoder.EMBEDDING_DIM

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        check_images(images, self.image_size)
        # [N, H, W, 3] seen as [N, 3, H, W] already is channels-last: no copy but the conversion to float.
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        with float32_convolutions(self.device):
            return self.network.embed(x).cpu().numpy()


class NetworkFrameEncoder(ABC):
    """A frame encoder on a network that reads normalised pictures.

    Args:
        mean, std: of each colour, for pixels in 0..1.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        image_size: int,
        dim: int,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        device: str | torch.device = "cpu",
    ) -> None:
        self.name = name
        self.network = network.eval().to(device)
        self.image_size = image_size
        self.dim = dim
        self.device = torch.device(device)
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Normalised float [N, 3, S, S] -> [N, dim]."""

    @cached_property
    def weights_sha256(self) -> str:
        return weights_sha256(self.network.state_dict())

    def pixels(self, images: np.ndarray) -> Tensor:
        """uint8 [N, S, S, 3] -> normalised float [N, 3, S, S]."""
        check_images(images, self.image_size)
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return ((x - self.mean) / self.std).contiguous()

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        with at_work(self.name, "encode"), float32_convolutions(self.device):
            return self.features(self.pixels(images)).float().cpu().numpy()


class TransformersFrameEncoder(NetworkFrameEncoder):
    """The vision tower of a BLIP or CLIP checkpoint of transformers.

    The embedding is CLIP's projected one, and of BLIP the class token after the final norm, as BLIP's own code gives it
    (see `vtsum.model.blip_vision`); transformers' `pooler_output` of BLIP has gone through that norm a second time.
    """

    @told_if_well()
    def __init__(self, source: str, name: str | None = None, device: str | torch.device = "cpu") -> None:
        torchvision_free.prepare()
        from transformers import AutoConfig, BlipForConditionalGeneration, CLIPVisionModelWithProjection

        config = from_pretrained(AutoConfig, source, "model")
        self.captioner: Any | None = None
        if config.model_type == "blip":
            self.captioner = (
                model_from_pretrained(BlipForConditionalGeneration, source, "model", whole=True).eval().to(device)
            )
            network = self.captioner.vision_model
            dim = network.config.hidden_size
        elif config.model_type == "clip":
            network = tower_from_pretrained(CLIPVisionModelWithProjection, source, "model")
            dim = network.config.projection_dim
        else:
            raise VTSumError(
                f"load: model must be a BLIP or CLIP checkpoint, got {source!r} of type {config.model_type}"
            )
        mean, std = normalisation(source)
        super().__init__(name or source, network, network.config.image_size, dim, mean, std, device)

    def features(self, pixels: Tensor) -> Tensor:
        out = self.network(pixel_values=pixels)
        return out.image_embeds if hasattr(out, "image_embeds") else out.last_hidden_state[:, 0]


def normalisation(source: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each colour that a checkpoint's pictures are brought to, for pixels in 0..1."""
    path = Path(source) / "preprocessor_config.json"
    if not path.is_file():
        return MEAN, STD
    data = read_json(path, dict, "load", bits=128)
    found = []
    for name, default in (("image_mean", MEAN), ("image_std", STD)):
        values = data.get(name, default)
        if not isinstance(values, Sequence) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise VTSumError(f"load: {name} of {path} must be three numbers, got {values!r:.80}")
        if default is STD:
            check_deviation(values, f"load: {name} of {path}")
        found.append([float(value) for value in values])  # whole numbers may have more bits than torch's
    return found[0], found[1]


def check_deviation(values: Sequence[float], where: str) -> None:
    """Refuse what turns pictures around, or takes all that they show away.

    Raises:
        VTSumError: `where` begins the message.
    """
    least, most = 1e-6, 1e6
    if not all(least <= value <= most for value in values):
        raise VTSumError(f"{where} must be from {least:g} to {most:g}, got {values!r:.80}")


def encoded(encoder: FrameEncoder | Summarizer, images: np.ndarray, op: str) -> np.ndarray:
    """What an encoder makes of pictures (uint8 [N, S, S, 3]), float32 [N, C], a copy: its own small arrays lie between
    its large ones and would keep their memory taken, some 2 MiB a batch.

    Raises:
        VTSumError: numbers that are not finite, as damaged weights give them.
    """
    features = np.array(encoder.encode(images), np.float32)
    check_finite(features, "features", encoder.name, op)
    return features


class Encoding:
    """What an encoder makes of a video's pictures, given in order: one that stays, as a slide does, is encoded once.

    Args:
        encoder: whose model is loaded. op: the public function whose name starts the message of a refusal.
    """

    def __init__(self, encoder: FrameEncoder | Summarizer, op: str) -> None:
        self._encoder, self._op = encoder, op
        self._last: tuple[np.ndarray, np.ndarray] | None = None  # a picture and its features, [1, C]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The next pictures, uint8 [N, S, S, 3], N at least 1 -> float32 [N, C].

        Raises:
            VTSumError: as `encoded`.
        """
        last = images[0] if self._last is None else self._last[0]
        changed = np.array([not np.array_equal(*pair) for pair in pairwise([last, *images])])
        changed[0] |= self._last is None
        if changed.all():
            features = encoded(self._encoder, images, self._op)
        else:
            known = [] if self._last is None else [self._last[1]]
            fresh = [encoded(self._encoder, images[changed], self._op)] if changed.any() else []
            features = np.concatenate([*known, *fresh])[np.cumsum(changed) - (0 if known else 1)]
        self._last = images[-1].copy(), features[-1:].copy()
        return features


def check_finite(values: np.ndarray, what: str, name: str, op: str) -> None:
    """Refuse what a model gives that is no number, as damaged weights make it.

    Raises:
        VTSumError: naming the model.
    """
    if not np.isfinite(values).all():
        raise VTSumError(f"{op}: {what} of {name!r} must be finite, got NaN or infinity; are its weights whole?")


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N, H, W, 3] -> uint8 [N, size, size, 3], stretched, each new pixel the mean of what it covers."""
    x = torch.from_numpy(np.require(images, requirements=("C", "W"))).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return x.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def is_transformers(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and "model_type" in read_json(config, dict, "load", bits=128)
