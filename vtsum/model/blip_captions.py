"""BLIP's sentences on pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vtsum_kernels.integrations import torchvision_free

from vtsum.devices import device_of
from vtsum.model.chat import checkpoint_folder
from vtsum.model.frame_encoder import normalisation, resize
from vtsum.model.image_text import OP, SeenCaption
from vtsum.model.pretrained import (
    ScoresAreNumbers,
    at_work,
    files_sha256,
    from_pretrained,
    model_from_pretrained,
    told_if_well,
)
from vtsum.protocols import Seen


class BlipCaptioner:
    """A BLIP captioning checkpoint, which describes one picture of each shot; `device`: as for `Chat`."""

    pictures = 1

    @told_if_well()
    def __init__(self, source: str, device: str = "auto") -> None:
        torchvision_free.prepare()
        from transformers import AutoTokenizer, BlipForConditionalGeneration

        folder = checkpoint_folder(source, OP)
        self.name = source
        self.device = device_of(device, OP)
        self.sha256 = files_sha256(folder)
        self._tokenizer = from_pretrained(AutoTokenizer, folder, OP, OP)
        network = model_from_pretrained(BlipForConditionalGeneration, folder, OP, OP, whole=True, use_safetensors=True)
        self._network = network.eval().to(self.device)
        self._mean, self._std = (np.array(values, np.float32) for values in normalisation(os.fspath(folder)))
        self._size = self._network.config.vision_config.image_size

    def describe(self, scenes: Sequence[Seen]) -> list[SeenCaption]:
        """See `Captioner`."""
        with at_work(self.name, OP):
            return [
                SeenCaption(*blip_caption(self._network, self._tokenizer, self._pixels(scene.pictures[0])), None)
                for scene in scenes
            ]

    def _pixels(self, picture: np.ndarray) -> Any:
        x = (resize(picture[None], self._size) / np.float32(255) - self._mean) / self._std
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().to(self.device)


def blip_caption(network: Any, tokenizer: Any, pixels: Any) -> tuple[str, float]:
    """BLIP's sentence on a picture [1, 3, S, S], and the mean probability of its tokens."""
    with torch.inference_mode():
        made = network.generate(
            pixel_values=pixels,
            num_beams=3,
            num_return_sequences=1,
            max_new_tokens=30,
            logits_processor=[ScoresAreNumbers()],
            output_scores=True,
            return_dict_in_generate=True,
        )
    text = tokenizer.decode(made.sequences[0], skip_special_tokens=True)
    return join_signs(text), float(made.sequences_scores[0].exp())


def join_signs(text: str) -> str:
    """A decoder's words without the spaces that its tokenizer sets around signs."""
    for sign in (" .", " ,", " ;", " :", " '", " - "):
        text = text.replace(sign, sign.strip())
    return " ".join(text.replace("' s ", "'s ").split())
