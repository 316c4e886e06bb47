"""Memory retrieval in plain PyTorch: the oracle of every test and the fallback of last resort."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Norms below this are taken for it, so that a zero row has the direction 0 and not NaN.
NORM_FLOOR = 1e-12


def probabilities(
    x: Tensor, keys: Tensor, scale: float | Tensor, normalize: bool, slot_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Softmax of every frame over the slots.

    Args:
        x (Tensor): [N, H, d]. keys (Tensor): [H, S, d].
    Returns:
        tuple[Tensor, Tensor]: [H, N, S] and lse [H, N], both in x's dtype; where no slot is left, 0 and -inf.
    """
    if normalize:
        x, keys = F.normalize(x, dim=-1, eps=NORM_FLOOR), F.normalize(keys, dim=-1, eps=NORM_FLOOR)
    scores = torch.matmul(x.transpose(0, 1), keys.transpose(1, 2)) * scale
    if slot_mask is not None:
        scores = scores.masked_fill(~slot_mask, -torch.inf)
    if keys.shape[1] == 0:
        return scores, scores.new_full(scores.shape[:-1], -torch.inf)
    top = scores.detach().amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, torch.zeros_like(top), top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    seen = total > 0
    safe = torch.where(seen, total, torch.ones_like(total))
    lse = torch.where(seen, top + torch.log(safe), torch.full_like(top, -torch.inf))
    return weights / safe, lse.squeeze(-1)


def memory_attention_reference(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scale: float | Tensor,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft retrieval from a bank of slots, in float32 inside (float64 for float64).

    Args:
        x (Tensor): [N, H, d]. keys (Tensor): [H, S, d]. values (Tensor): [H, S, e].
        query_mask (Tensor | None): bool [N], True = valid; other rows retrieve 0 and count for nothing.
    Returns:
        tuple[Tensor, Tensor, Tensor]: retrieved [N, H, e] of x's dtype; lse [H, N]; usage [H, S], each slot's mass.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    dtype = x.dtype
    x, keys, values = x.to(wide), keys.to(wide), values.to(wide)
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, None, None], 0.0)
    weights, lse = probabilities(x, keys, scale, normalize, slot_mask)
    if query_mask is not None:
        weights = weights.masked_fill(~query_mask[:, None], 0.0)
        lse = lse.masked_fill(~query_mask, -torch.inf)
    out = torch.matmul(weights, values).transpose(0, 1)
    return out.to(dtype), lse, weights.sum(1)


def memory_fuse_reference(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    scale: float | Tensor,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Retrieval, concatenation and the linear layer, one after the other: nothing folded.

    Args:
        x (Tensor): [N, C]. keys (Tensor): [H, S, d]. values (Tensor): [H, S, e]. weight (Tensor): [O, C + H * e].
    Returns:
        tuple[Tensor, Tensor]: y [N, O] of x's dtype, usage [H, S].
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    dtype, heads = x.dtype, keys.shape[0]
    x = x.to(wide)
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, None], 0.0)
    queries = x if query_weight is None else x @ query_weight.to(wide).t()
    retrieved, _, usage = memory_attention_reference(
        queries.unflatten(1, (heads, keys.shape[2])),
        keys,
        values,
        scale=scale,
        normalize=normalize,
        slot_mask=slot_mask,
        query_mask=query_mask,
    )
    y = torch.cat((x, retrieved.flatten(1)), 1) @ weight.to(wide).t()
    if bias is not None:
        y = y + bias.to(wide)
    if query_mask is not None:
        y = y.masked_fill(~query_mask[:, None], 0.0)
    if residual is not None:
        y = y + residual.to(wide)
    return y.to(dtype), usage
