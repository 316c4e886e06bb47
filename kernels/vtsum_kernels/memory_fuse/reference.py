"""`memory_fuse` in plain PyTorch: right in float64, differentiable, and the fallback of last resort."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..memory_attention.reference import memory_attention_reference
from ..tensors import acc_dtype


def memory_fuse_reference(
    x: Tensor,
    keys: Tensor | tuple[Tensor, Tensor],
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    norm: tuple[Tensor | None, Tensor | None, float] | None = None,
    scale: float | Tensor,
    normalize: bool = False,
    slot_bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Retrieval, its norm, concatenation and the linear layer, one after the other: nothing folded.

    Args:
        x (Tensor): [G, n, C]. residual (Tensor | None): [G, n, O]. weight (Tensor): [O, C + H * e].
        norm (tuple | None): weight [H * e], bias [H * e] and eps of a LayerNorm of what was retrieved.
        The others are as `memory_attention_reference` takes them.
    Returns:
        tuple[Tensor, Tensor]: y [G, n, O] of x's dtype, usage [G, H, S].
    """
    wide, dtype, heads = acc_dtype(x.dtype), x.dtype, values.shape[1]
    x = x.to(wide)
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, :, None], 0.0)
    queries = x if query_weight is None else x @ query_weight.to(wide).t()
    retrieved, _, usage = memory_attention_reference(
        queries.unflatten(2, (heads, queries.shape[2] // heads)),
        tuple(k.to(wide) for k in keys) if isinstance(keys, tuple) else keys.to(wide),  # type: ignore[arg-type]
        values.to(wide),
        scale=scale,
        normalize=normalize,
        slot_bias=slot_bias,
        query_mask=query_mask,
        top_k=top_k,
        keep=keep,
    )
    m = retrieved.flatten(2)
    if norm is not None:
        gain, shift = (None if t is None else t.to(wide) for t in norm[:2])
        m = F.layer_norm(m, m.shape[-1:], gain, shift, norm[2])
    y = torch.cat((x, m), 2) @ weight.to(wide).t()
    if bias is not None:
        y = y + bias.to(wide)
    if query_mask is not None:
        y = y.masked_fill(~query_mask[:, :, None], 0.0)
    if residual is not None:
        y = y + residual.to(wide)
    return y.to(dtype), usage
