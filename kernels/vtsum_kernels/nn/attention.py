"""The module over `sliding_window_attention`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..sliding_window_attention import sliding_window_attention
from ..sliding_window_attention.call import bias_length, check_border


class SlidingWindowAttention(nn.Module):
    """Multi-head self-attention of each frame to the frames in a window around it.

    Args:
        dim (int): C, divisible by num_heads.
        num_heads (int): H.
        window_size (int | tuple[int, int]), causal, dilation, border: as `sliding_window_attention` takes them.
        qkv_bias (bool): whether the input projection has a bias.
        relative_bias (bool): learn a bias a head and distance, starting at 0; wants a finite window.
        dropout (float): the share of weights dropped while training.
        sinks (bool): learn a logit a head, starting at 0, that takes part in each row's softmax and belongs to no key.
    Raises:
        ValueError: if dim is not divisible by num_heads, or an option is not valid.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int | tuple[int, int],
        qkv_bias: bool = True,
        causal: bool = False,
        *,
        dilation: int = 1,
        border: str = "truncate",
        relative_bias: bool = False,
        dropout: float = 0.0,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        checks.is_positive_int(name, "num_heads", num_heads)
        checks.is_positive_int(name, "dim", dim)
        if dim % num_heads:
            checks.fail(name, "dim", f"divisible by num_heads = {num_heads}", dim)
        left, right = checks.window(name, window_size, causal)
        checks.is_positive_int(name, "dilation", dilation)
        if not 0.0 <= dropout < 1.0:
            checks.fail(name, "dropout", "at least 0 and less than 1", dropout)
        shift = check_border(name, border, left, right, causal)
        if relative_bias and min(left, right) < 0:
            checks.fail(name, "window_size", "finite on both sides where there is a bias", (left, right))
        self.num_heads = num_heads
        self.window_size = window_size
        self.causal = causal
        self.dilation = dilation
        self.border = border
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        entries = torch.zeros(num_heads, bias_length(left, right, shift)) if relative_bias else None
        self.relative_bias = None if entries is None else nn.Parameter(entries)
        self.sinks = nn.Parameter(torch.zeros(num_heads)) if sinks else None

    def forward(
        self,
        x: Tensor,
        key_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        *,
        group: Any = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """x [B, T, C], key_mask bool [B, T], True = valid, or lengths [B]; with cu_seqlens [N + 1], packed
        sequences [total, C] and a mask [total]. Returns x's shape.

        group: x is this rank's stretch of a sequence on the ranks of a process group (or a DeviceMesh of one
        dimension; torch.distributed.group.WORLD: on all processes), `lengths` how many frames each has; see
        `vtsum_kernels.distributed`. Parameters get the gradients of this rank's rows.

        Rows of padded frames hold values nobody should read.

        Raises:
            ValueError: a group with cu_seqlens, or lengths without a group; what the op refuses.
        """
        name = type(self).__name__
        if group is not None and cu_seqlens is not None:
            checks.fail(name, "cu_seqlens", "None with a group", type(cu_seqlens).__name__)
        if group is None and lengths is not None:
            checks.fail(name, "lengths", "None without a group", list(lengths))
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # [..., T, 3, H, D]
        q, k, v = qkv.unbind(-3)
        if cu_seqlens is None:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        attend: Callable[..., Tensor] = sliding_window_attention
        where: dict[str, Any] = {"cu_seqlens": cu_seqlens}
        if group is not None:
            from ..distributed import sliding_window_attention as attend

            where = {"group": group, "lengths": lengths}
        out = attend(
            q,
            k,
            v,
            self.window_size,
            dilation=self.dilation,
            causal=self.causal,
            key_mask=key_mask,
            bias=self.relative_bias,
            border=self.border,
            dropout_p=self.dropout if self.training else 0.0,
            sinks=self.sinks,
            **where,
        )
        if cu_seqlens is None:
            out = out.transpose(1, 2)
        del qkv, q, k, v  # of many frames the largest tensors
        return self.proj(out.flatten(-2))

    def extra_repr(self) -> str:
        return (
            f"num_heads={self.num_heads}, window_size={self.window_size}, causal={self.causal}, "
            f"dilation={self.dilation}, border={self.border}, dropout={self.dropout}"
        )
