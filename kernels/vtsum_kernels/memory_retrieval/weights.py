"""The weights that frames give to slots, by the compiled softmax or in plain PyTorch, and which of the two can run."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from . import ops as _ops  # noqa: F401  (registers the ops)
from .reference import NORM_FLOOR


def cpp_can_run(x: Tensor) -> str | None:
    """Why the compiled softmax cannot serve queries x, None when it can."""
    if x.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {x.device}"
    if library.refusal("_cpu") is not None:
        return f"the compiled CPU kernels are not loaded: {library.refusal('_cpu')}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"it takes float32 and float64: scores rounded to {x.dtype} would blur the weights"
    return None


def unit_keys(keys: Tensor) -> Tensor:
    """Keys divided by their norms, in float32 at least, in the dtype they came in."""
    wide = keys if keys.dtype == torch.float64 else keys.float()
    return F.normalize(wide, dim=-1, eps=NORM_FLOOR).to(keys.dtype)


def softmax_over_slots(
    scores: Tensor,
    scale: float | Tensor,
    queries: Tensor | None,
    slot_mask: Tensor | None,
    query_mask: Tensor | None,
    compiled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax of scaled scores.

    Args:
        scores (Tensor): [H, N, S], unscaled products.
        scale (float | Tensor): their factor. queries (Tensor | None): [N, H, d]; divide each row by its norm (cosine).
        slot_mask (Tensor | None): bool [S]. query_mask (Tensor | None): bool [N].
    Returns:
        tuple[Tensor, Tensor, Tensor]: weights [H, N, S], lse [H, N] and usage [H, S], float32 (float64 for float64).
    """
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    heads, frames, _ = scores.shape
    if queries is not None:
        norms = torch.linalg.vector_norm(queries, dim=-1, dtype=wide).clamp_min(NORM_FLOOR).t()
        factor = scale / norms
    elif isinstance(scale, Tensor):
        factor = scale.expand(heads, frames)
    else:
        factor = scores.new_full((heads, frames), scale, dtype=wide)
    if compiled:
        return torch.ops.vtsum_kernels.memory_softmax_fwd(
            scores.contiguous(), factor.to(wide).contiguous(), _dense(slot_mask), _dense(query_mask)
        )
    return _plain(scores.to(wide) * factor[..., None], slot_mask, query_mask)


def _dense(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous()


def _plain(scores: Tensor, slot_mask: Tensor | None, query_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if slot_mask is None:
        weights, lse = torch.softmax(scores, -1), torch.logsumexp(scores, -1)
    else:
        # The dtype's lowest value and not -inf: a row that sees nothing would be NaN, and so would its gradient.
        scores = scores.masked_fill(~slot_mask, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1).masked_fill(~slot_mask, 0.0)
        lse = torch.logsumexp(scores, -1).masked_fill(~slot_mask.any(), -torch.inf)
    if query_mask is not None:
        weights = weights.masked_fill(~query_mask[:, None], 0.0)
        lse = lse.masked_fill(~query_mask, -torch.inf)
    return weights, lse, weights.sum(1)
