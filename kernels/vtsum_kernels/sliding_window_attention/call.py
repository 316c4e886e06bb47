"""The arguments of a call, checked once and brought into the form that every backend takes."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..tensors import acc_dtype, readable

NAME = "sliding_window_attention"


class Call(NamedTuple):
    """A checked call: what the predicates look at and the backends compute. Packed input is a batch of one."""

    q: Tensor  # [B, H, T, D]
    k: Tensor  # [B, K, T, D], as v: query head h reads key head h // (H // K)
    v: Tensor
    mask: Tensor | None  # bool [B, T]
    cu_seqlens: Tensor | None  # int32 [N + 1], contiguous
    bias: Tensor | None  # [H, N], in the statistics' dtype, contiguous
    left: int
    right: int
    dilation: int
    shift: bool
    scale: float
    dropout_p: float
    normalize: str
    return_lse: bool
    packed: bool
    backend: str


def key_gradient(q: Tensor, x: Tensor) -> Tensor:
    """An empty dk or dv: laid out as x, or as q where several heads share one of x."""
    return torch.empty_like(x if x.shape == q.shape else q)


def bias_length(left: int, right: int, shift: bool) -> int:
    """Entries of a head's relative bias: a shifted window reaches further from its row than a truncated one."""
    return (2 if shift else 1) * (left + right) + 1


def check_keys(q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
    """k and v where they are not of q's very shape: fewer heads, or a mistake."""
    names = "[total, K, D]" if packed else "[B, K, T, D]"
    for name, x in (("k", k), ("v", v)):
        checks.matches(NAME, name, x, "q", q)
        checks.has_rank(NAME, name, x, q.dim(), names)
    heads = 1
    wanted = list(q.shape)
    wanted[heads] = k.shape[heads]
    checks.has_shape(NAME, "k", k, tuple(wanted), f"{names} with q's other sizes")
    checks.has_shape(NAME, "v", v, tuple(k.shape), f"k's {names}")
    ours, shared = q.shape[heads], k.shape[heads]
    if ours % shared if shared else ours > 0:
        checks.fail(NAME, "K, the number of k's heads,", f"a divisor of H = {ours}", shared)


def check_border(op: str, border: str, left: int, right: int, causal: bool) -> bool:
    """Whether windows are shifted."""
    if border == "truncate":
        return False
    if border != "shift":
        checks.fail(op, "border", '"truncate" or "shift"', repr(border))
    if left < 0 or right < 0:
        checks.fail(op, "window_size", 'finite on both sides with border="shift"', (left, right))
    if causal:
        checks.fail(op, "causal", 'False with border="shift", which moves windows past the query', causal)
    return True


def check_sequences(cu_seqlens: Any, q: Tensor) -> Tensor:
    """int32, contiguous. The values are looked at where that costs nothing: on the CPU, where there are any."""
    name, total = "cu_seqlens", q.shape[0]
    checks.is_tensor(NAME, name, cu_seqlens)
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        checks.fail(NAME, name, "int32 or int64", cu_seqlens.dtype, TypeError)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        checks.fail(NAME, name, "of shape [N + 1] for N sequences", list(cu_seqlens.shape))
    if cu_seqlens.device != q.device:
        checks.fail(NAME, name, f"on the device of q, {q.device}", cu_seqlens.device)
    if q.device.type == "cpu" and readable(cu_seqlens):
        values = cu_seqlens.tolist()
        if values[0] != 0 or values[-1] != total:
            checks.fail(NAME, name, f"from 0 to q's total of {total} frames", f"{values[0]} to {values[-1]}")
        for before, after in itertools.pairwise(values):
            if after < before:
                checks.fail(NAME, name, "never falling", f"{after} after {before}")
    return cu_seqlens.to(torch.int32).contiguous()


def check_bias(bias: Any, q: Tensor, heads: int, left: int, right: int, shift: bool) -> Tensor:
    checks.is_floating(NAME, "bias", bias)
    if left < 0 or right < 0:
        checks.fail(NAME, "window_size", "finite on both sides where there is a bias", (left, right))
    names = "[H, 2 * (left + right) + 1]" if shift else "[H, left + right + 1]"
    checks.has_shape(NAME, "bias", bias, (heads, bias_length(left, right, shift)), names)
    if bias.device != q.device:
        checks.fail(NAME, "bias", f"on the device of q, {q.device}", bias.device)
    return bias.to(acc_dtype(q.dtype)).contiguous()


def check_mask(mask: Any, q: Tensor, packed: bool) -> Tensor:
    """Key padding as a bool [B, T]; lengths [B] are turned into one."""
    name = "key_padding_mask"
    checks.is_tensor(NAME, name, mask)
    batch, frames = q.shape[0], q.shape[2]
    if packed:
        checks.is_mask(NAME, name, mask, (frames,), "[total]", q.device)
        return mask.unsqueeze(0)
    if mask.dtype in (torch.int32, torch.int64) and mask.dim() == 1:
        checks.has_shape(NAME, name, mask, (batch,), "[B]")
        if mask.device != q.device:
            checks.fail(NAME, name, f"on the device of the input, {q.device}", mask.device)
        return torch.arange(frames, device=q.device)[None, :] < mask[:, None]
    checks.is_mask(NAME, name, mask, (batch, frames), "[B, T]", q.device)
    return mask
