"""The words' side of a CLIP: texts as features in the space of its pictures."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vtsum.errors import VTSumError
from vtsum.model.pretrained import at_work


class ClipText:
    """A CLIP text encoder.

    Args:
        source: the checkpoint's name in errors. op: what it is for there.
    Attributes:
        dim: D of its features. limit: tokens it reads; the rest of a longer text is cut off. sha256: of its weights.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        limit: int,
        sha256: str,
        device: torch.device | str,
        source: str | os.PathLike[str],
        op: str,
    ) -> None:
        self.network = network.to(device).eval()
        self.tokenizer = tokenizer
        self.limit = limit
        self.sha256 = sha256
        self.device = device
        self.source, self.op = source, op
        self.dim = int(self.network.text_projection.weight.shape[0])
        self._end = self.network.text_model.eos_token_id

    @torch.inference_mode()
    def encode(self, text: str) -> tuple[np.ndarray, bool]:
        """Features of a text, float32 [D], and whether its end was cut off.

        One text at a time: in the published evaluation a text of more than 77 tokens changes the positions, and with
        them the features, of all others in its batch; here a text's features are its own.

        Raises:
            VTSumError: the checkpoint's parts do not fit one another, or it makes no numbers of the text.
        """
        with at_work(self.source, self.op):
            features, cut = self._features(text)
            if not np.isfinite(features).all():
                raise ValueError("features of a text that are no numbers (NaN or infinity); are its weights whole?")
            return features, cut

    def _features(self, text: str) -> tuple[np.ndarray, bool]:
        ids = self.tokenizer(text).input_ids
        cut = len(ids) > self.limit
        ids = [*ids[: self.limit - 1], ids[-1]] if cut else ids
        if self._end != 2 and self._end not in ids:  # 2: an old configuration; the highest id is the end then
            raise VTSumError(
                f"{self.op}: the tokenizer of {os.fspath(self.source)!r} must end texts with token {self._end}, "
                f"got {ids[-1]}"
            )
        embeddings = self.network.text_model.embeddings
        own = embeddings.position_embedding
        positions = torch.arange(len(ids), device=self.device)[None]
        try:
            if len(ids) > own.num_embeddings:
                embeddings.position_embedding = _stretched(own, len(ids))
            out = self.network(input_ids=torch.tensor([ids], device=self.device), position_ids=positions)
        finally:
            embeddings.position_embedding = own
        return out.text_embeds[0].float().cpu().numpy(), cut


def _stretched(positions: nn.Embedding, length: int) -> nn.Embedding:
    """Position embeddings resized bicubically along the text."""
    weight = positions.weight.T[None, :, :, None]
    longer = F.interpolate(weight, (length, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
    return nn.Embedding.from_pretrained(longer.contiguous())
