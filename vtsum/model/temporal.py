"""The temporal transformer: every frame attends to every valid frame.

Source: VideoXum (arXiv 2303.12060) and its released code: pre-norm blocks, LayerNorm eps 1e-6, a final norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused kernel."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        bias = None if mask is None else mask[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0)
        return self.proj(out.transpose(1, 2).reshape(b, t, c))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x), mask))
        return x + self.drop(self.mlp(self.norm2(x)))


class TemporalTransformer(nn.Module):
    """`depth` pre-norm transformer blocks over the frames and a final norm.

    forward(x, mask): x [B, T, C], mask bool [B, T] (True: a real frame) or None -> [B, T, C]. Rows of padding hold
    numbers without meaning; nothing may read them.
    """

    def __init__(self, dim: int, num_heads: int, depth: int, mlp_ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None and bool(torch.all(mask)):
            mask = None  # without a mask PyTorch takes its flash kernel
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class PositionEmbedding(nn.Module):
    """Learned positions; above `max_positions` frames they are resized (bicubic), as in VideoXum's code."""

    def __init__(self, max_positions: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(max_positions, dim))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, t: int) -> Tensor:
        """[T, C] for T frames."""
        if t <= self.weight.shape[0]:
            return self.weight[:t]
        table = self.weight.T[None, :, :, None]  # [1, C, positions, 1]
        return F.interpolate(table, size=(t, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
