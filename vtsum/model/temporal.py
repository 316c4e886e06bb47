"""The temporal transformer: every frame attends to every valid frame, or to those in a window around it.

Source: VideoXum (arXiv 2303.12060) and its released code: pre-norm blocks, LayerNorm eps 1e-6, a final norm.

Frames come padded, [B, T, C], or packed, [total, C], where `cu_seqlens` (int [B + 1]) says where each video starts and
where the last one ends. Padded ones may be a stretch of the videos, whose other frames other ranks hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

from vtsum.model.memory import read_bank

if TYPE_CHECKING:
    from vtsum_kernels.distributed.stretch import Stretch

NORM_EPS = 1e-6
#: Frames that pass a block's MLP at once in inference.
ROWS = 4096


def checkpointed(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, of which the inputs alone are kept; the rest is computed again in the backward pass.

    Only as far as the backward pass needs it: at the very end ZeRO-3 would scatter the last module's weights again,
    which it has just gathered for that module's gradient.
    """
    return checkpoint(function, *args, use_reentrant=False, early_stop=True)


def run(module: nn.Module, *args: Any, recompute: bool) -> Any:
    """`module(*args)`, checkpointed with `recompute` while training."""
    if recompute and module.training and torch.is_grad_enabled():
        return checkpointed(module, *args)
    return module(*args)


def start_small(module: nn.Module) -> None:
    """VideoXum's start of a linear layer: a truncated normal of 0.02, no bias. For `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class Attention(nn.Module):
    """Multi-head self-attention over all frames of a video, through PyTorch's fused kernel.

    Called like `vtsum_kernels.nn.SlidingWindowAttention`, and with its parameters' names.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        key_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        stretch: Stretch | None = None,
    ) -> Tensor:
        # [..., T, 3, H, D] -> three times [..., H, T, D]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(-4, -2).unbind(-3)
        dropout = self.dropout if self.training else 0.0
        if stretch is not None:
            from vtsum_kernels import distributed  # imports what only training needs

            out = distributed.full_attention(
                q, k, v, lengths=stretch.lengths, group=stretch.handle, key_mask=stretch.mask, dropout_p=dropout
            )
        elif cu_seqlens is None:
            mask = None if key_mask is None else key_mask[:, None, None, :]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        else:
            # Video by video within this one call: sharded training wants every rank to call a module equally often.
            parts = []
            for a, b in pairwise(cu_seqlens.tolist()):
                part = q[None, :, a:b], k[None, :, a:b], v[None, :, a:b]
                parts.append(F.scaled_dot_product_attention(*part, dropout_p=dropout)[0])
            out = torch.cat(parts, 1)
        del q, k, v  # of many frames the largest tensors
        return self.proj(out.transpose(-3, -2).flatten(-2))


def _attend(attention: nn.Module, x: Tensor, mask: Tensor | None, cu: Tensor | None, stretch: Stretch | None) -> Tensor:
    found: Tensor
    if stretch is None:
        found = attention(x, mask, cu)
    elif isinstance(attention, Attention):
        found = attention(x, stretch=stretch)
    else:
        found = attention(x, mask, group=stretch.handle, lengths=stretch.lengths)
    return found


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        # Not in a validation, which is no inference to PyTorch: sharded weights want all ranks to call a layer equally
        # often.
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled() or x.shape[-2] <= ROWS:
            return self._rows(x)
        # What lies between would be the largest tensors of all, of hours of video a quarter of the whole job's memory.
        return torch.cat([self._rows(part) for part in x.split(ROWS, -2)], -2)

    def _rows(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return found


class Block(nn.Module):
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: int, dropout: float, window: int | None, memory: MemoryBank | None
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = (
            Attention(dim, num_heads, dropout)
            if window is None
            else SlidingWindowAttention(dim, num_heads, window, dropout=dropout)
        )
        self.memory = memory
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, stretch: Stretch | None = None
    ) -> Tensor:
        x = x + self.drop(_attend(self.attn, self.norm1(x), mask, cu_seqlens, stretch))
        if self.memory is not None:
            x = read_bank(self.memory, x, mask)
        return x + self.drop(self.mlp(self.norm2(x)))


class TemporalTransformer(nn.Module):
    """`depth` pre-norm transformer blocks over the frames and a final norm.

    forward(x, mask, cu_seqlens): x [B, T, C] with mask bool [B, T] (True: a real frame) or None, or x [total, C] with
    cu_seqlens -> x's shape. Rows of padding hold numbers without meaning; nothing may read them. With a stretch, x and
    mask are this rank's.

    Args:
        window: None, or an odd number of frames that each frame attends to, itself in the middle.
        make_memory: gives each block a memory bank of its own.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        depth: int,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        window: int | None = None,
        make_memory: Callable[[], MemoryBank] | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio, dropout, window, make_memory and make_memory()) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.recompute = False
        self.apply(start_small)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        stretch: Stretch | None = None,
    ) -> Tensor:
        # A graph that is captured serves any mask: it cannot look. Nor may one rank decide for all.
        if mask is not None and stretch is None and not torch.compiler.is_compiling() and bool(torch.all(mask)):
            mask = None  # without a mask PyTorch takes its flash kernel
        for block in self.blocks:
            x = run(block, x, mask, cu_seqlens, stretch, recompute=self.recompute)
        return self.norm(x)


class LocalAttention(nn.Module):
    """x + attention(norm(x)) over a window of `kernel_size` frames, itself in the middle; no MLP."""

    def __init__(self, dim: int, num_heads: int, kernel_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SlidingWindowAttention(dim, num_heads, kernel_size)
        self.apply(start_small)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        stretch: Stretch | None = None,
    ) -> Tensor:
        return x + _attend(self.attn, self.norm1(x), mask, cu_seqlens, stretch)


class PositionEmbedding(nn.Module):
    """Learned positions; above `max_positions` frames they are resized (bicubic), as in VideoXum's code.

    Args:
        start: "normal", N(0, 1); else small.
        over: "video" or "batch"; see `VTSumConfig.positions_over`.
    """

    def __init__(self, max_positions: int, dim: int, start: str = "text", over: str = "video") -> None:
        super().__init__()
        self.over = over
        self.weight = nn.Parameter(torch.zeros(max_positions, dim))
        if start == "normal":
            nn.init.normal_(self.weight)
        else:
            nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(
        self, lengths: int | Sequence[int], mask: Tensor | None = None, stretch: Stretch | None = None
    ) -> Tensor:
        """[T, C] for videos of T frames, or [B, T, C] where the lengths in `mask`, bool [B, T], ask for it; for packed
        videos of several lengths, one after the other, [total, C]. With a stretch its own frames' alone."""
        if stretch is not None:
            return self._part(stretch)
        if isinstance(lengths, int | torch.SymInt):
            if mask is None or self.over == "batch" or lengths <= self.weight.shape[0]:
                return self._table(lengths)
            # A video ends with its last real frame.
            ends = (mask * torch.arange(1, lengths + 1, device=mask.device)).amax(1).tolist()
            return torch.stack([F.pad(self._table(t), (0, 0, 0, lengths - t)) for t in ends])
        if self.over == "batch":
            return torch.cat([self._table(max(lengths))[:t] for t in lengths])
        return torch.cat([self._table(t) for t in lengths])

    def _part(self, stretch: Stretch) -> Tensor:
        first, end, total, mask = stretch.first, stretch.end, stretch.total, stretch.mask
        if mask is None or self.over == "batch" or total <= self.weight.shape[0]:
            return self._table(total)[first:end]
        ends = (mask * torch.arange(1, total + 1, device=mask.device)).amax(1).tolist()
        parts = [self._table(t)[first:end] for t in ends]
        return torch.stack([F.pad(part, (0, 0, 0, end - first - len(part))) for part in parts])

    def _table(self, t: int) -> Tensor:
        if t <= self.weight.shape[0]:
            return self.weight[:t]
        table = self.weight.T[None, :, :, None]  # [1, C, positions, 1]
        return F.interpolate(table, size=(t, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
