"""VTSum: from frame embeddings to saliency and sentences.

After VideoXum's VTSum-BLIP (arXiv 2303.12060): position embeddings before and after a temporal transformer, local
attention over a sliding window of frames, a linear saliency head and a causal text decoder, both reading the local
attention's output. Between the two attentions stands a learnable memory bank, where the configuration asks for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

from vtsum.config import VTSumConfig
from vtsum.errors import VTSumError
from vtsum.model.temporal import NORM_EPS, PositionEmbedding, TemporalTransformer
from vtsum.model.text_decoder import TextDecoder


@dataclass
class VTSumOutput:
    """loss = lambda_vsum * loss_vsum + lambda_tsum * loss_tsum; what was not asked for is None."""

    saliency_logits: Tensor
    frames: Tensor
    loss: Tensor | None = None
    loss_vsum: Tensor | None = None
    loss_tsum: Tensor | None = None
    text_logits: Tensor | None = None
    decoder_targets: Tensor | None = None


class LocalAttention(nn.Module):
    """x + attention(norm(x)) over a window of `kernel_size` frames, itself in the middle; no MLP."""

    def __init__(self, dim: int, num_heads: int, kernel_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SlidingWindowAttention(dim, num_heads, kernel_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x + self.attn(self.norm1(x), key_padding_mask=mask)


class VTSum(nn.Module):
    """The cross-modal summarizer on frame embeddings.

    Args:
        config: sizes; see `VTSumConfig`.
        tokenizer: a transformers tokenizer with [DEC], [SEP] and [PAD]; None leaves the text decoder out.
    """

    def __init__(self, config: VTSumConfig, tokenizer: Any | None = None) -> None:
        super().__init__()
        self.config = config
        dim = config.width
        self.position_embeddings = PositionEmbedding(config.max_positions, dim)
        self.drop = nn.Dropout(config.dropout)
        self.temporal = TemporalTransformer(dim, config.num_heads, config.depth, config.mlp_ratio, config.dropout)
        self.memory = MemoryBank(config.memory_slots, dim) if config.memory_slots else None
        self.local_attention = (
            LocalAttention(dim, config.num_heads, config.kernel_size) if config.kernel_size is not None else None
        )
        self.saliency_head = nn.Linear(dim, 1)
        self.text_decoder = (
            TextDecoder(config.text, dim, tokenizer, config.label_smoothing) if tokenizer is not None else None
        )

    def encode(self, video_embeddings: Tensor, video_mask: Tensor | None = None) -> Tensor:
        """[B, T, C] -> [B, T, C]: what the saliency head and the text decoder read."""
        if video_embeddings.ndim != 3 or video_embeddings.shape[2] != self.config.width:
            raise VTSumError(
                f"VTSum: video_embeddings must be [B, T, {self.config.width}], got {list(video_embeddings.shape)}"
            )
        if video_mask is not None:
            if video_mask.shape != video_embeddings.shape[:2]:
                raise VTSumError(
                    f"VTSum: video_mask must be [B, T] = {list(video_embeddings.shape[:2])}, "
                    f"got {list(video_mask.shape)}"
                )
            video_mask = video_mask.bool()
        position = self.position_embeddings(video_embeddings.shape[1])
        x = self.temporal(self.drop(video_embeddings + position), video_mask) + position
        if self.memory is not None:
            x = self.memory(x, mask=video_mask)
        if self.local_attention is not None:
            x = self.local_attention(x, video_mask)
        return x

    def saliency_logits(self, frames: Tensor) -> Tensor:
        """Frames as `encode` gives them, [B, T, C] -> [B, T]."""
        return self.saliency_head(frames)[..., 0]

    def forward(
        self,
        video_embeddings: Tensor,
        video_mask: Tensor,
        vsum_labels: Tensor | None = None,
        tsum_labels: list[str] | None = None,
        *,
        max_text_length: int = 32,
    ) -> VTSumOutput:
        """Losses where labels are given.

        Args:
            video_embeddings: [B, T, C].
            video_mask: bool or 0/1 [B, T], 1 for a real frame.
            vsum_labels: [B, A, T] in 0..1, one row an annotator; padded frames 0.
            tsum_labels: B sentences.
        """
        frames = self.encode(video_embeddings, video_mask)
        out = VTSumOutput(self.saliency_logits(frames), frames)
        if vsum_labels is not None:
            out.loss_vsum = self.video_loss(out.saliency_logits, video_mask, vsum_labels)
        if tsum_labels is not None:
            if self.text_decoder is None:
                raise VTSumError("VTSum: tsum_labels must be None for a model without a text decoder, got sentences")
            text = self.text_decoder.batch(tsum_labels, max_text_length, frames.device)
            out.loss_tsum, out.text_logits = self.text_decoder(frames, video_mask, text)
            out.decoder_targets = text.targets
        losses = [
            weight * loss
            for weight, loss in ((self.config.lambda_vsum, out.loss_vsum), (self.config.lambda_tsum, out.loss_tsum))
            if loss is not None
        ]
        out.loss = torch.stack(losses).sum() if losses else None
        return out

    @staticmethod
    def video_loss(logits: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Binary cross entropy against each annotator, the mean over B * A * T; padded frames count as 0 in the sum."""
        logits = logits[:, None, :].expand_as(labels)
        loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        return (loss * mask[:, None, :].to(loss.dtype)).mean()
