"""From pictures to what a summary is made of: features, saliency, sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum import plugins
from vtsum.errors import VTSumError
from vtsum.model.blip_captions import blip_caption, join_signs
from vtsum.model.checkpoint import Checkpoint
from vtsum.model.clip_text import ClipText
from vtsum.model.encoders import frame_encoder_of
from vtsum.model.frame_encoder import (
    EMBEDDED,
    KNOWN,
    TransformersFrameEncoder,
    check_finite,
    check_images,
    is_transformers,
    resize,
)
from vtsum.model.pretrained import from_pretrained, tower_from_pretrained
from vtsum.model.spans import gather_spans
from vtsum.model.vtsum import VTSum
from vtsum.protocols import FrameEncoder, Summarizer


@dataclass(frozen=True)
class Caption:
    """A sentence and the mean probability (0..1) a token that the decoder gave it."""

    text: str
    confidence: float


class VTSumSummarizer:
    """A VTSum model with its own frame encoder.

    Args:
        device: where the model runs; the encoder has its own.
    Attributes:
        facts: what the model's config.json says of its training.
    """

    def __init__(
        self, name: str, checkpoint: Checkpoint, encoder: FrameEncoder, *, embedded: bool, device: str = "cpu"
    ) -> None:
        if encoder.dim != checkpoint.model.config.width:
            raise VTSumError(
                f"VTSumSummarizer: the frame encoder's dimension must be the model's width "
                f"{checkpoint.model.config.width}, got {encoder.dim} from {encoder.name!r}"
            )
        self.name = name
        self.device = device
        self.model = checkpoint.model.to(device).fold_()
        self.ridge = checkpoint.ridge
        self.encoder = encoder
        self.weights_sha256 = checkpoint.weights_sha256
        self.facts = checkpoint.facts
        self.embedded = embedded
        self.text_is_guess = embedded
        self.reads_pictures = False
        self.image_size = encoder.image_size

    def encode(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, S, S, 3] RGB -> float32 [N, C]."""
        return self.encoder.encode(images)

    def event_features(self, features: np.ndarray) -> np.ndarray:
        """The columns of `encode`'s output that tell events apart: [T, C] -> [T, C']."""
        return features

    @torch.inference_mode()
    def saliency(self, features: np.ndarray) -> np.ndarray:
        """Features of the frames of one video in order, [T, C] -> float32 [T] in 0..1: by the model's head, and the
        checkpoint's ridge beside it, where it has one (`vtsum.model.ridge_saliency`)."""
        if len(features) == 0:
            return np.zeros(0, np.float32)
        logits = self.model.saliency_logits(self.model.encode(self._one_video(features)))[0]
        if self.ridge is not None:
            return self.ridge.saliency(features, logits.float().cpu().numpy())
        return logits.sigmoid().cpu().numpy()

    @torch.inference_mode()
    def boundaries(self, features: np.ndarray) -> np.ndarray | None:
        """The probability that an event begins at each frame of one video, [T, C] -> float32 [T] in 0..1; None where
        the model has no boundary head."""
        if self.model.boundary_head is None:
            return None
        if len(features) == 0:
            return np.zeros(0, np.float32)
        x = self._one_video(features)
        found = self.model.boundary_logits(x, self.model.encode(x))[0].sigmoid().cpu().numpy()
        check_finite(found, "boundaries", self.name, "summarize")
        return found

    def _one_video(self, features: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(features))[None].to(self.device)

    @torch.inference_mode()
    def describe(
        self, features: np.ndarray, spans: Sequence[tuple[int, int]], key_frames: Sequence[np.ndarray] | None = None
    ) -> list[Caption]:
        """One sentence for each span of frame indices [start, end).

        Args:
            features: [T, C], the whole video.
            key_frames: one picture a span, uint8 [H, W, 3]; models that describe pictures read them, this one does not.
        """
        decoder = self.model.text_decoder
        if decoder is None or not spans:
            return []
        frames = self.model.encode(self._one_video(features))[0]
        gathered, mask = gather_spans(frames, spans)
        texts, ids = decoder.generate(gathered, mask, num_beams=3, max_length=32, repetition_penalty=1.2)
        log_probability = decoder.log_probability(gathered, mask, ids)
        return [
            Caption(join_signs(text), float(p)) for text, p in zip(texts, log_probability.exp().tolist(), strict=True)
        ]


class FullSizeSummarizer:
    """A full-size encoder finds the events, and BLIP writes the sentences; saliency is the embedded model's.

    Neither checkpoint was trained to say what matters in a video, so each frame is encoded twice, and the embedded
    model's features stand behind the full-size ones in the same array.
    """

    def __init__(self, name: str, base: VTSumSummarizer, encoder: TransformersFrameEncoder, source: str) -> None:
        self.name = name
        self.base = base
        self.device = base.device
        self.full = encoder
        self.model = base.model
        self.encoder = encoder
        self.facts = base.facts
        self.embedded = False
        self.text_is_guess = encoder.captioner is None
        self.reads_pictures = encoder.captioner is not None
        self.reads_words = encoder.captioner is None  # CLIP's pictures and texts are in one space
        self.image_size = encoder.image_size
        digest = hashlib.sha256(base.weights_sha256.encode())
        for key, value in sorted(encoder.network.state_dict().items()):
            digest.update(key.encode() + value.float().cpu().numpy().tobytes())
        self.weights_sha256 = digest.hexdigest()
        self._processor: Any | None = None
        self._source = source

    def encode(self, images: np.ndarray) -> np.ndarray:
        check_images(images, self.image_size)
        small = resize(images, self.base.image_size)
        return np.concatenate([self.full.encode(images), self.base.encode(small)], axis=1)

    def event_features(self, features: np.ndarray) -> np.ndarray:
        return features[:, : self.full.dim]

    def saliency(self, features: np.ndarray) -> np.ndarray:
        return self.base.saliency(features[:, self.full.dim :])

    def boundaries(self, features: np.ndarray) -> np.ndarray | None:
        return self.base.boundaries(features[:, self.full.dim :])

    def text_features(self, text: str) -> np.ndarray:
        """A text in the space of CLIP's `event_features`, float32 [C'], its end cut off where CLIP reads no more."""
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        network = tower_from_pretrained(CLIPTextModelWithProjection, self._source, "model", "about")
        words = from_pretrained(AutoTokenizer, self._source, "CLIP's tokenizer", "about")
        limit = network.config.max_position_embeddings
        return ClipText(network, words, limit, self.weights_sha256, self.device, self.name, "about").encode(text)[0]

    @torch.inference_mode()
    def describe(
        self, features: np.ndarray, spans: Sequence[tuple[int, int]], key_frames: Sequence[np.ndarray] | None = None
    ) -> list[Caption]:
        if self.full.captioner is None:
            return self.base.describe(features[:, self.full.dim :], spans)
        if not spans:
            return []
        if key_frames is None or len(key_frames) != len(spans):
            raise VTSumError(
                f"describe: key_frames must hold one picture a span ({len(spans)}) for {self.name!r}, "
                f"got {0 if key_frames is None else len(key_frames)}"
            )
        if self._processor is None:
            from transformers import AutoTokenizer

            self._processor = from_pretrained(AutoTokenizer, self._source, "model")
        out = []
        for picture in key_frames:
            pixels = self.full.pixels(resize(picture[None], self.image_size))
            out.append(Caption(*blip_caption(self.full.captioner, self._processor, pixels)))
        return out


def load(name_or_path: str = "embedded", *, text: bool = True, device: str = "cpu") -> Summarizer:
    """A summarizer by name or path.

    Args:
        name_or_path: "embedded"; "blip", "blip-large", "clip", "clip-large"; a folder written by VTSum's training; or
            the folder or hub name of a transformers BLIP or CLIP checkpoint; or one of the user's own
            (`vtsum.plugins`).
        text (bool): False where no caption of the embedded model will be asked for: it is loaded without its decoder.
        device: where it runs, as PyTorch calls it (`vtsum.devices.device_of`); a user's own model knows by itself.
    Raises:
        VTSumError: an unknown name, or a checkpoint that is missing or broken.
    """
    if name_or_path == "embedded":
        return _from_folder("embedded", EMBEDDED, device, embedded=True, text=text)
    folder = Path(name_or_path)
    if folder.is_dir() and not is_transformers(folder):
        return _from_folder(name_or_path, folder, device, embedded=False)
    source = KNOWN.get(name_or_path, name_or_path)
    if name_or_path not in KNOWN and not folder.is_dir() and "/" not in name_or_path:
        own: Summarizer | None = plugins.find("model", name_or_path)
        if own is not None:
            return own
        names = ", ".join(["embedded", *KNOWN])
        raise VTSumError(
            f"load: model must be one of {names}, a folder, a hub name or module:Class, got {name_or_path!r}"
        )
    encoder = TransformersFrameEncoder(source, name_or_path, device)  # first: here things go wrong
    base = _from_folder("embedded", EMBEDDED, device, embedded=True, text=text)
    return FullSizeSummarizer(name_or_path, base, encoder, source)


def _from_folder(name: str, folder: Path, device: str, *, embedded: bool, text: bool = True) -> VTSumSummarizer:
    checkpoint = VTSum.load_checkpoint(folder, text=text)
    encoder = frame_encoder_of(checkpoint.model.config.frame_encoder, checkpoint.encoder_state, device)
    return VTSumSummarizer(name, checkpoint, encoder, embedded=embedded, device=device)
