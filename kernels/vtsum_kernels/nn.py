"""Thin modules over the ops."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import checks
from .memory_retrieval import memory_attention, memory_fuse
from .sliding_window_attention import sliding_window_attention
from .sliding_window_attention.call import bias_length, check_border

#: Where a learned temperature starts for cosine similarity. 1 / sqrt(C) keeps every logit so near 0 that the softmax
#: stays uniform and the bank is never read selectively; 16 spreads cosines of random vectors enough to learn from.
INITIAL_COSINE_SCALE = 16.0
MAX_SCALE = 100.0


def _linear_init(out_dim: int, in_dim: int) -> Tensor:
    """The start of torch.nn.Linear's weight."""
    return torch.empty(out_dim, in_dim).uniform_(-(in_dim**-0.5), in_dim**-0.5)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


class SlidingWindowAttention(nn.Module):
    """Multi-head self-attention of each frame to the frames in a window around it.

    Args:
        dim (int): C, divisible by num_heads.
        num_heads (int): H.
        window_size (int | tuple[int, int]), causal, dilation, border: as `sliding_window_attention` takes them.
        qkv_bias (bool): whether the input projection has a bias.
        relative_bias (bool): learn a bias a head and distance, starting at 0; wants a finite window.
        dropout (float): the share of weights dropped while training.
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

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """x [B, T, C], key_padding_mask bool [B, T], True = valid, or lengths [B]; with cu_seqlens [N + 1], packed
        sequences [total, C] and a mask [total]. Returns x's shape.

        Rows of padded frames hold values nobody should read.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # [..., T, 3, H, D]
        q, k, v = qkv.unbind(-3)
        if cu_seqlens is None:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = sliding_window_attention(
            q,
            k,
            v,
            self.window_size,
            dilation=self.dilation,
            causal=self.causal,
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
            bias=self.relative_bias,
            border=self.border,
            dropout_p=self.dropout if self.training else 0.0,
        )
        if cu_seqlens is None:
            out = out.transpose(1, 2)
        return self.proj(out.flatten(-2))

    def extra_repr(self) -> str:
        return (
            f"num_heads={self.num_heads}, window_size={self.window_size}, causal={self.causal}, "
            f"dilation={self.dilation}, border={self.border}, dropout={self.dropout}"
        )


class MemoryUsage(NamedTuple):
    """How a bank was used in the last forward.

    mass [H, S]: sum over valid frames of the weight each slot got. perplexity: of the mean weights, 1 (one slot takes
    all) to S (uniform), the mean over heads. dead: slots that got less than a hundredth of an even share in every head.
    """

    mass: Tensor
    perplexity: float
    dead: int


class MemoryBank(nn.Module):
    """A bank of learnable slots that every frame reads, and the layer that joins what was read to the frame.

        h = norm(x);  m = softmax(scale * cos(h, memory)) memory;  y = x + update(h, m)

    The update is Linear([h, m]) for fuse="concat", sigmoid(Linear([h, m])) * m for "gate", m for "add". The published
    form is normalize=True, temperature=1 / sqrt(C), fuse="concat", residual=False, norm=False.

    Args:
        num_slots (int): S. dim (int): C. num_heads (int): H, dividing C.
        query_proj (bool): a learned projection of h before it is compared with the slots.
        normalize (bool): cosine similarity in place of the plain product.
        temperature (str | float): the factor of the scores; "learned" starts at 16 for cosine, 1 / sqrt(C / H) else.
        fuse (str): "concat", "gate" or "add".
        residual (bool): add x to the update. norm (bool): LayerNorm before the retrieval.
    Raises:
        ValueError: for a value outside those.
    """

    def __init__(
        self,
        num_slots: int,
        dim: int,
        num_heads: int = 1,
        query_proj: bool = False,
        normalize: bool = True,
        temperature: str | float = "learned",
        fuse: str = "concat",
        residual: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value in (("num_slots", num_slots), ("dim", dim), ("num_heads", num_heads)):
            checks.is_positive_int(name, argument, value)
        if dim % num_heads:
            checks.fail(name, "dim", f"divisible by num_heads = {num_heads}", dim)
        if fuse not in ("concat", "gate", "add"):
            checks.fail(name, "fuse", '"concat", "gate" or "add"', repr(fuse))
        self.num_heads = num_heads
        self.normalize = normalize
        self.fuse = fuse
        self.residual = residual
        self.norm = nn.LayerNorm(dim) if norm else None
        self.memory = nn.Parameter(torch.empty(num_slots, dim))
        nn.init.normal_(self.memory, std=dim**-0.5)  # rows of about unit norm
        # Parameters of this very module, not of Linear children: sharded training (ZeRO-3) gathers a parameter when
        # its own module's forward runs, and the folded products use these without calling a child's forward.
        self.query_weight: nn.Parameter | None = None
        self.join_weight: nn.Parameter | None = None
        self.join_bias: nn.Parameter | None = None
        if query_proj:
            self.query_weight = nn.Parameter(_linear_init(dim, dim))
        if fuse != "add":
            self.join_weight = nn.Parameter(_linear_init(dim, 2 * dim))
            self.join_bias = nn.Parameter(torch.zeros(dim))
        # One element rather than none: sharded optimisers partition parameters along their first dimension.
        self.log_scale: nn.Parameter | None = None
        self.scale: float | None = None
        if temperature == "learned":
            start = INITIAL_COSINE_SCALE if normalize else (dim // num_heads) ** -0.5
            self.log_scale = nn.Parameter(torch.tensor([math.log(start)]))
        elif isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and math.isfinite(temperature):
            self.scale = float(temperature)
        else:
            checks.fail(name, "temperature", '"learned" or a finite float', repr(temperature))
        self.mass: Tensor
        self.register_buffer("mass", torch.zeros(num_heads, num_slots), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, return_balance_loss: bool = False) -> Any:
        """x [B, T, C]; mask bool [B, T], True = valid. Returns [B, T, C], 0 (with gradient 0) at padded frames.

        With `return_balance_loss`, a tuple of it and a scalar: sum over slots of S * (mean weight)^2 - 1, averaged over
        heads; 0 when the slots are used evenly, S - 1 when one takes all. It is returned here, rather than computed
        from the bank later, because sharded training and activation checkpointing silently lose gradients of
        parameters used outside their module's forward.
        """
        valid = None if mask is None else mask.unsqueeze(-1)
        if valid is not None:
            x = x.masked_fill(~valid, 0.0)
        hidden = x if self.norm is None else self.norm(x)
        options: dict[str, Any] = {
            "num_heads": self.num_heads,
            "scale": self.scale if self.log_scale is None else self.log_scale.exp().clamp(max=MAX_SCALE),
            "normalize": self.normalize,
            "query_mask": mask,
            "return_usage": True,
        }
        bank = self.memory.to(hidden.dtype)
        query_weight = _cast(self.query_weight, hidden.dtype)
        weight, bias = _cast(self.join_weight, hidden.dtype), _cast(self.join_bias, hidden.dtype)
        if self.fuse == "concat" and weight is not None:
            y, usage = memory_fuse(hidden, bank, None, weight, bias, query_weight=query_weight, **options)
        else:
            queries = hidden if query_weight is None else F.linear(hidden, query_weight)
            y, usage = memory_attention(queries, bank, **options)
            if weight is not None:
                y = torch.sigmoid(F.linear(torch.cat((hidden, y), -1), weight, bias)) * y
        if self.residual:
            y = x + y
        with torch.no_grad():
            self.mass.copy_(usage)
        if not return_balance_loss:
            return y
        share = usage / usage.sum(-1, keepdim=True).clamp_min(1e-12)
        balance = (share.square().sum(-1) * usage.shape[-1] - 1.0).mean()
        return y, balance * (usage.sum() > 0)  # a batch without a valid frame asks for nothing

    @torch.no_grad()
    def usage(self) -> MemoryUsage:
        """How the slots were used in the last forward; zeros and perplexity 0 before the first."""
        mass = self.mass.clone()
        total = mass.sum(-1, keepdim=True)
        if not bool((total > 0).all()):
            return MemoryUsage(mass, 0.0, mass.shape[1])
        share = mass / total
        entropy = -(share * share.clamp_min(1e-30).log()).sum(-1)
        dead = (share < 0.01 / mass.shape[1]).all(0)
        return MemoryUsage(mass, float(entropy.exp().mean()), int(dead.sum()))

    def extra_repr(self) -> str:
        slots, dim = self.memory.shape
        scale = "learned" if self.scale is None else f"{self.scale:.4g}"
        return (
            f"num_slots={slots}, dim={dim}, num_heads={self.num_heads}, normalize={self.normalize}, "
            f"temperature={scale}, fuse={self.fuse}, residual={self.residual}"
        )
