"""The arguments of a call, checked once and brought into the form that every backend takes."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks

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


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """In what the scores' sums are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def bias_length(left: int, right: int, shift: bool) -> int:
    """Entries of a head's relative bias: a shifted window reaches further from its row than a truncated one."""
    return (2 if shift else 1) * (left + right) + 1


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | tuple[int, int],
    *,
    scale: float | None = None,
    dilation: int = 1,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    bias: Tensor | None = None,
    border: str = "truncate",
    normalize: str = "window",
    dropout_p: float = 0.0,
    return_lse: bool = False,
) -> Call:
    """Takes the public op's arguments. Raises as its docstring says."""
    checks.is_floating(NAME, "q", q)
    packed = cu_seqlens is not None
    rank, names = (3, "[total, H, D]") if packed else (4, "[B, H, T, D]")
    checks.has_rank(NAME, "q", q, rank, names)
    if k.shape != q.shape or v.shape != q.shape or k.dtype != q.dtype or v.dtype != q.dtype or k.device != q.device:
        _check_keys(q, k, v, packed)
    if v.device != q.device:
        checks.fail(NAME, "v", f"on the device of q, {q.device}", v.device)
    heads, dim = (q.shape[1], q.shape[2]) if packed else (q.shape[1], q.shape[3])
    if dim < 1:
        checks.fail(NAME, "D", "at least 1", dim)
    if scale is None:
        scale = 1.0 / math.sqrt(dim)
    elif isinstance(scale, bool) or not isinstance(scale, (int, float)):
        checks.fail(NAME, "scale", "a float or None (1 / sqrt(D))", type(scale).__name__, TypeError)
    elif not math.isfinite(scale):
        checks.fail(NAME, "scale", "finite", scale)
    if dilation != 1:
        checks.is_positive_int(NAME, "dilation", dilation)
    left, right = checks.window(NAME, window_size, causal)
    shift = check_border(NAME, border, left, right, causal)
    if normalize not in ("window", "global"):
        checks.fail(NAME, "normalize", '"window" or "global"', repr(normalize))
    if dropout_p != 0.0 and (not isinstance(dropout_p, (int, float)) or not 0.0 <= dropout_p < 1.0):
        checks.fail(NAME, "dropout_p", "at least 0 and less than 1", dropout_p)
    if packed:
        cu_seqlens = _check_sequences(cu_seqlens, q)
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    if bias is not None:
        bias = _check_bias(bias, q, heads, left, right, shift)
    mask = None if key_padding_mask is None else _check_mask(key_padding_mask, q, packed)
    return Call(
        q,
        k,
        v,
        mask,
        cu_seqlens,
        bias,
        left,
        right,
        dilation,
        shift,
        float(scale),
        float(dropout_p),
        normalize,
        return_lse,
        packed,
    )


def _check_keys(q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
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


def _check_sequences(cu_seqlens: Any, q: Tensor) -> Tensor:
    """int32, contiguous. The values are looked at where that costs nothing: on the CPU, outside of compilation."""
    name, total = "cu_seqlens", q.shape[0]
    checks.is_tensor(NAME, name, cu_seqlens)
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        checks.fail(NAME, name, "int32 or int64", cu_seqlens.dtype, TypeError)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        checks.fail(NAME, name, "of shape [N + 1] for N sequences", list(cu_seqlens.shape))
    if cu_seqlens.device != q.device:
        checks.fail(NAME, name, f"on the device of q, {q.device}", cu_seqlens.device)
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        values = cu_seqlens.tolist()
        if values[0] != 0 or values[-1] != total:
            checks.fail(NAME, name, f"from 0 to q's total of {total} frames", f"{values[0]} to {values[-1]}")
        for before, after in itertools.pairwise(values):
            if after < before:
                checks.fail(NAME, name, "never falling", f"{after} after {before}")
    return cu_seqlens.to(torch.int32).contiguous()


def _check_bias(bias: Any, q: Tensor, heads: int, left: int, right: int, shift: bool) -> Tensor:
    checks.is_floating(NAME, "bias", bias)
    if left < 0 or right < 0:
        checks.fail(NAME, "window_size", "finite on both sides where there is a bias", (left, right))
    names = "[H, 2 * (left + right) + 1]" if shift else "[H, left + right + 1]"
    checks.has_shape(NAME, "bias", bias, (heads, bias_length(left, right, shift)), names)
    if bias.device != q.device:
        checks.fail(NAME, "bias", f"on the device of q, {q.device}", bias.device)
    return bias.to(statistics_dtype(q.dtype)).contiguous()


def _check_mask(mask: Any, q: Tensor, packed: bool) -> Tensor:
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
