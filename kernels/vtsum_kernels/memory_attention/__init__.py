"""`memory_attention`: each frame reads from a bank of slots by soft attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import dispatch
from ..tensors import autocast
from .backends import BACKENDS, holds, preferred, run
from .call import Call, check_bank, check_options, check_rows, rows_of
from .reference import memory_attention_reference

__all__ = ["memory_attention", "memory_attention_reference"]

_NAME = "memory_attention"


@dispatch.op(BACKENDS, run, preferred, holds=holds)
def memory_attention(
    x: Tensor,
    keys: Tensor | tuple[Tensor, Tensor],
    values: Tensor | None = None,
    *,
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    slot_bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    dropout_p: float = 0.0,
    return_lse: bool = False,
    return_usage: bool = False,
    backend: str = "auto",
) -> Any:
    """Reads, for each frame, the softmax-weighted mean of a bank's values.

        out[t] = sum_s softmax_s(scale * x_t . keys_s + slot_bias_s) values_s

    With `normalize`, x and keys are divided by their norms first (cosine similarity); values never are.
    torch.autocast casts x, keys and values.

    Args:
        x (Tensor): [..., T, D], float32, float16, bfloat16 or float64.
        keys (Tensor | tuple[Tensor, Tensor]): [S, D], or [H, S, d] with D = H * d; x's dtype and device. For
            x [B, T, D] also a bank a batch entry, [B, H, S, d]. A pair a [Sa, D / 2], b [Sb, D / 2] (or in the other
            forms) are product keys: slot i * Sb + j of S = Sa * Sb has the key [a_i, b_j]; they want values and top_k.
        values (Tensor | None): [S, E] or [H, S, e], or a bank a batch entry as the keys; None means the keys
            themselves, unnormalised.
        num_heads (int): H; each head reads with its own d of the D features.
        scale (float | Tensor | None): factor of the scores; a tensor of one element may be learned. None: 1 / sqrt(d).
        normalize (bool): cosine similarity in place of the plain product. A row or key of a norm below 1e-12 has no
            direction: its scores are the bias alone, and pass no gradient on to it.
        slot_mask (Tensor | None): bool [S], or [B, S] for a bank a batch entry; True = usable. Where no slot is usable,
            the output is 0.
        slot_bias (Tensor | None): [S] or [H, S] (or [B, H, S]), any floating dtype, added to the scaled scores; -inf
            leaves a slot out.
        query_mask (Tensor | None): bool [..., T], True = valid. Other frames give 0, pass no gradient and count for
            no usage, whatever they hold.
        top_k (int | None): read only the k usable slots of the highest score, exactly those; ties go to the lower slot.
            A score of NaN is not usable.
        dropout_p (float): the share of weights dropped; the others are multiplied by 1 / (1 - p).
        return_lse (bool): also return lse [..., H, T], float32 (float64 for float64), -inf where nothing was read.
        return_usage (bool): also return usage [H, S] ([B, H, S] for a bank a batch entry), the sum over frames of the
            weight each slot got, before dropout; differentiable.
        backend (str): "auto", or one of the op's backends; see `vtsum_kernels.explain`.
    Returns:
        Tensor: [..., T, E], dtype of x; or a tuple (out[, lse][, usage]).
    Raises:
        TypeError: for a wrong type or dtype.
        ValueError: for a wrong shape, device or value.
        NotImplementedError: if an explicit backend cannot serve the call.

    Source: Weston et al. 2015, "Memory Networks"; Sukhbaatar et al. 2015, "End-To-End Memory Networks", section 2;
    product keys: Lample et al. 2019, "Large Memory Layers with Product Keys".
    """
    x, keys, values = autocast(x, keys, values)
    check_rows(_NAME, x)
    bank = check_bank(_NAME, x, keys, values, num_heads, x.shape[-1], slot_mask, slot_bias)
    options = check_options(_NAME, x, bank, scale, normalize, query_mask, top_k, dropout_p)
    rows = rows_of(x, bank).unflatten(2, (num_heads, bank.key_dim))
    return Call(rows, bank, options, x.shape[:-1], return_lse, return_usage, backend)
