"""VTSum with the original's attention: dense [T, T] scores, what may not be seen pushed away by -1e4.

Source: VideoXum (arXiv 2303.12060) and its released code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vtsum.model.vtsum import VTSum


class DenseAttention(nn.Module):
    """Self-attention through a score for every pair of frames, with the weights of `attention`.

    Args:
        attention: a module with `qkv`, `proj` and `num_heads`.
        window (int | None): frames that each frame may see, itself in the middle; None: all.
    """

    def __init__(self, attention: Any, window: int | None) -> None:
        super().__init__()
        self.qkv: nn.Module = attention.qkv
        self.proj: nn.Module = attention.proj
        self.num_heads: int = attention.num_heads
        self.window = window

    def forward(self, x: Tensor, key_mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        valid = x.new_ones(b, t) if key_mask is None else key_mask.to(x.dtype)
        seen = valid[:, None, None, :]
        if self.window is not None:
            place = torch.arange(t, device=x.device)
            band = ((place[:, None] - place[None, :]).abs() <= self.window // 2).to(x.dtype)
            seen = (band * valid[:, None, :] * valid[:, :, None])[:, None]
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + (1.0 - seen) * -1e4
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def make_dense(model: VTSum) -> VTSum:
    """Replace the model's attention over frames, in place; the weights stay its own."""
    for block in model.temporal.blocks:
        block.attn = DenseAttention(block.attn, None)
    if model.local_attention is not None:
        model.local_attention.attn = DenseAttention(  # type: ignore[assignment]
            model.local_attention.attn, model.config.kernel_size
        )
    return model
