"""`memory_attention` in plain PyTorch: right in float64, differentiable, and the fallback of last resort.

Shapes as the ops have them: x [G, n, H, d], a bank of keys [G, H, S, d] and values [G, H, S, e] for each of G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensors import acc_dtype

#: A row of a norm below this has no direction.
NORM_FLOOR = 1e-12


def unit(x: Tensor) -> Tensor:
    """x over its norm along the last dimension, computed in float32 at least; without a direction 0, and no gradient.

    That of x / max(norm, floor) would be 1 / floor of what comes back: nothing that training could use or float16 hold.
    Written with squares: a norm's second derivative at 0 is NaN.
    """
    wide = x.to(acc_dtype(x.dtype))
    squares = wide.square().sum(-1, keepdim=True)
    return (wide * squares.masked_fill(squares < NORM_FLOOR**2, torch.inf).rsqrt()).to(x.dtype)


def paired_keys(first: Tensor, second: Tensor) -> Tensor:
    """Product keys written out: slot i * Sb + j of [G, H, Sa * Sb, d] has the key [first_i, second_j]."""
    sizes = first.shape[2], second.shape[2]
    return torch.cat((first.repeat_interleave(sizes[1], 2), second.repeat(1, 1, sizes[0], 1)), -1)


def best_slots(scores: Tensor, k: int) -> Tensor:
    """bool [..., S]: the k best scores of each row, ties to the lower slot; never -inf or NaN."""
    usable = (scores > -torch.inf).detach()
    order = torch.sort(scores.detach().masked_fill(~usable, -torch.inf), dim=-1, descending=True, stable=True).indices
    chosen = torch.zeros_like(usable).scatter_(-1, order[..., :k], True)
    return chosen & usable


def probabilities(
    x: Tensor,
    keys: Tensor,
    scale: float | Tensor,
    normalize: bool = False,
    slot_bias: Tensor | None = None,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax of every row over the slots, or over its k best.

    Returns:
        tuple[Tensor, Tensor]: [G, H, n, S] and lse [G, H, n], both in x's dtype; where no slot is usable, 0 and -inf.
    """
    if normalize:
        x, keys = unit(x), unit(keys)
    scores = torch.matmul(x.transpose(1, 2), keys.transpose(2, 3)) * scale
    if slot_bias is not None:
        scores = scores + slot_bias[:, :, None]
    if keys.shape[2] == 0:
        return scores, scores.new_full(scores.shape[:-1], -torch.inf)
    if top_k is not None:
        scores = scores.masked_fill(~best_slots(scores, top_k), -torch.inf)
    top = scores.detach().amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, torch.zeros_like(top), top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    seen = total != 0  # NaN stays NaN
    safe = torch.where(seen, total, torch.ones_like(total))
    lse = torch.where(seen, top + torch.log(safe), torch.full_like(top, -torch.inf))
    return weights / safe, lse.squeeze(-1)


def dropout_keep(like: Tensor, shape: tuple[int, ...], p: float) -> Tensor | None:
    """What dropout multiplies the weights [G, H, n, S] by: 0 or 1 / (1 - p)."""
    return F.dropout(like.new_ones(shape), p) if p > 0 else None


def memory_attention_reference(
    x: Tensor,
    keys: Tensor | tuple[Tensor, Tensor],
    values: Tensor,
    *,
    scale: float | Tensor,
    normalize: bool = False,
    slot_bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft retrieval from a bank of slots, in float32 inside (float64 for float64).

    Args:
        x (Tensor): [G, n, H, d]. keys (Tensor | pair): [G, H, S, d], or product keys [G, H, Sa, d / 2] and
            [G, H, Sb, d / 2]. values (Tensor): [G, H, S, e].
        slot_bias (Tensor | None): [G or 1, H or 1, S], added to the scores; -inf leaves a slot out.
        query_mask (Tensor | None): bool [G, n], True = valid; other rows retrieve 0 and count for nothing.
        top_k (int | None): only that many best slots of each row; ties to the lower slot.
        keep (Tensor | None): [G, H, n, S], what dropout multiplies the weights by: 0 or 1 / (1 - p).
    Returns:
        tuple[Tensor, Tensor, Tensor]: retrieved [G, n, H, e] of x's dtype; lse [G, H, n]; usage [G, H, S], each slot's
        mass. lse and usage are those before dropout.
    """
    dtype, wide = x.dtype, acc_dtype(x.dtype)
    # Widened before halves are paired, whose gradients are sums over their pairs.
    keys = paired_keys(*(half.to(wide) for half in keys)) if isinstance(keys, tuple) else keys.to(wide)
    x, values = x.to(wide), values.to(wide)
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, :, None, None], 0.0)
    weights, lse = probabilities(x, keys, scale, normalize, slot_bias, top_k)
    if query_mask is not None:
        weights = weights.masked_fill(~query_mask[:, None, :, None], 0.0)
        lse = lse.masked_fill(~query_mask[:, None], -torch.inf)
    kept = weights if keep is None else weights * keep
    return torch.matmul(kept, values).transpose(1, 2).to(dtype), lse, weights.sum(2)
