"""Memory retrieval head by head, in the inputs' dtype throughout: the oracle in float64, eager PyTorch else.

Written apart from the package's reference, so that a mistake there cannot excuse one in a kernel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def choose(scores: Tensor, k: int) -> Tensor:
    """bool [N, S]: the k best of each row, ties to the lower slot; -inf never. Row by row, by Python's sort."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for row, values in enumerate(scores.tolist()):
        order = sorted((-z, s) for s, z in enumerate(values) if z > -math.inf)
        chosen[row, [s for _, s in order[:k]]] = True
    return chosen


def eager(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    scale: float | Tensor,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    slot_bias: Tensor | None = None,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """out [N, E], lse [H, N] and usage [H, S] from x [N, D], keys [S, D] and values [S, E]; slot_bias [S] or [H, S]."""
    outs, lses, usages = [], [], []
    parts = zip(x.chunk(heads, -1), keys.chunk(heads, -1), values.chunk(heads, -1), strict=True)
    for h, (q, k, v) in enumerate(parts):
        if normalize:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.t() * scale
        if slot_bias is not None:
            scores = scores + (slot_bias[h] if slot_bias.dim() == 2 else slot_bias)
        dead = scores == -math.inf
        if slot_mask is not None:
            dead = dead | ~slot_mask
        if query_mask is not None:
            dead = dead | ~query_mask[:, None]
        if top_k is not None:
            dead = dead | ~choose(scores.detach().masked_fill(dead, -math.inf), top_k)
        lowest = torch.finfo(scores.dtype).min
        scores = torch.where(dead, torch.full_like(scores, lowest), scores)
        weights = torch.softmax(scores, -1).masked_fill(dead, 0.0)
        outs.append(weights @ v)
        lses.append(torch.logsumexp(scores, -1).masked_fill(dead.all(-1), -math.inf))
        usages.append(weights.sum(0))
    return torch.cat(outs, -1), torch.stack(lses), torch.stack(usages)


def split(bank: Tensor, heads: int) -> Tensor:
    """[S, D] as [H, S, d]."""
    return bank.unflatten(1, (heads, bank.shape[1] // heads)).transpose(0, 1)
