"""The arguments of a call, checked once and brought into the form that every backend takes."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .. import checks
from ..tensors import acc_dtype, readable

NAME = "sliding_window_attention"


class Call(NamedTuple):
    """A checked call: what the predicates look at and the backends compute. Packed input is a batch of one.

    Not packed, keys that no query sees are left out.
    """

    q: Tensor  # [B, H, Tq, D]: the last query stands at the last key
    k: Tensor  # [B, K, Tk, D], as v: query head h reads key head h // (H // K)
    v: Tensor
    mask: Tensor | None  # bool [B, Tk]
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
    cu_seqlens_k: Tensor | None  # as cu_seqlens, which then are those of the queries alone
    row_offset: int  # the number that dropout gives the first key
    longest: int  # keys of the longest sequence; all of them where packed ones' lengths would have to be waited for
    sinks: Tensor | None  # [H], in the statistics' dtype, contiguous
    softcap: float  # 0: none
    seed: Tensor | None = None  # int64 [1]; None: drawn where there is dropout

    @property
    def more_keys(self) -> bool:
        """Whether rows and keys differ in number."""
        return self.cu_seqlens_k is not None or self.q.shape[2] != self.k.shape[2]


def key_gradient(q: Tensor, x: Tensor) -> Tensor:
    """An empty dk or dv: laid out as x, or as q where several heads share one of x."""
    return torch.empty_like(x if x.shape == q.shape else q)


def bias_length(left: int, right: int, shift: bool) -> int:
    """Entries of a head's relative bias: a shifted window reaches further from its row than a truncated one."""
    return (2 if shift else 1) * (left + right) + 1


def bounded(
    longest: int, left: int, right: int, dilation: int, shift: bool, bias: Tensor | None
) -> tuple[int, int, int, Tensor | None]:
    """left, right, dilation and bias as sequences of up to `longest` frames can use them: cost follows what exists.

    The same keys are seen: a side that reaches past every end is cut to the furthest key there is, and what the bias
    says of others falls away, with a gradient of 0.
    """
    reach = max(longest - 1, 0) // dilation
    ours = (min(left, reach), min(right, reach)) if reach else (0, 0)
    if bias is not None and ours != (left, right):
        own, before, after = (left + right, sum(ours), sum(ours)) if shift else (left, *ours)
        bias = bias[:, own - before : own + after + 1].contiguous()
    return ours[0], ours[1], dilation if reach else 1, bias


def check_keys(q: Tensor, k: Tensor, v: Tensor, packed: bool, own_sequences: bool) -> None:
    """k and v where they are not of q's very shape: fewer heads, more keys, or a mistake.

    own_sequences: k has cu_seqlens of its own, without which packed queries and keys are the same frames.
    """
    names = "[total, K, D]" if packed else "[B, K, T, D]"
    for name, x in (("k", k), ("v", v)):
        checks.matches(NAME, name, x, "q", q)
        checks.has_rank(NAME, name, x, q.dim(), names)
    heads, frames = 1, 0 if packed else 2
    wanted = list(q.shape)
    wanted[heads] = k.shape[heads]
    if own_sequences or not packed:
        if k.shape[frames] < q.shape[frames]:
            checks.fail(NAME, "k", f"at least as long as q, which has {q.shape[frames]} frames", k.shape[frames])
        wanted[frames] = k.shape[frames]
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


def values_are_free(x: Tensor) -> bool:
    """Whether looking at numbers costs nothing: on the CPU, where there are any."""
    return x.device.type == "cpu" and readable(x)


def check_sequences(cu_seqlens: Any, x: Tensor, name: str = "cu_seqlens", of: str = "q") -> tuple[Tensor, int]:
    """int32, contiguous, of the frames of x, which is q or k; and the longest sequence's frames.

    The values are looked at where that costs nothing. Else the total stands for the longest.
    """
    longest = total = x.shape[0]
    checks.is_tensor(NAME, name, cu_seqlens)
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        checks.fail(NAME, name, "int32 or int64", cu_seqlens.dtype, TypeError)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        checks.fail(NAME, name, "of shape [N + 1] for N sequences", list(cu_seqlens.shape))
    if cu_seqlens.device != x.device:
        checks.fail(NAME, name, f"on the device of {of}, {x.device}", cu_seqlens.device)
    if values_are_free(cu_seqlens):
        values = cu_seqlens.tolist()
        if values[0] != 0 or values[-1] != total:
            checks.fail(NAME, name, f"from 0 to {of}'s total of {total} frames", f"{values[0]} to {values[-1]}")
        for before, after in itertools.pairwise(values):
            if after < before:
                checks.fail(NAME, name, "never falling", f"{after} after {before}")
        longest = max((after - before for before, after in itertools.pairwise(values)), default=0)
    return cu_seqlens.to(torch.int32).contiguous(), longest


def check_more_keys(cu_seqlens: Tensor, cu_seqlens_k: Any, k: Tensor) -> tuple[Tensor, int]:
    """cu_seqlens_k, where each sequence has at least as many keys as queries; and the longest sequence's keys."""
    name = "cu_seqlens_k"
    checked, longest = check_sequences(cu_seqlens_k, k, name, "k")
    if checked.shape != cu_seqlens.shape:
        checks.fail(NAME, name, f"of cu_seqlens' shape {list(cu_seqlens.shape)}", list(checked.shape))
    if values_are_free(checked):
        for n, (queries, keys) in enumerate(zip(cu_seqlens.diff().tolist(), checked.diff().tolist(), strict=True)):
            if keys < queries:
                checks.fail(
                    NAME, name, f"such that sequence {n} has as many keys as its {queries} queries, or more", keys
                )
    return checked, longest


def check_row_offset(row_offset: Any) -> int:
    """In the 32 bits that dropout counts in."""
    if isinstance(row_offset, bool) or not isinstance(row_offset, (int, torch.SymInt)):
        checks.fail(NAME, "row_offset", "an int", type(row_offset).__name__, TypeError)
    return cast(int, row_offset) % (1 << 32)


def check_seed(seed: Any, q: Tensor) -> Tensor:
    name = "dropout_seed"
    checks.is_tensor(NAME, name, seed)
    if seed.dtype != torch.int64:
        checks.fail(NAME, name, "int64", seed.dtype, TypeError)
    checks.has_shape(NAME, name, seed, (1,), "[1]")
    if seed.device != q.device:
        checks.fail(NAME, name, f"on the device of q, {q.device}", seed.device)
    return cast(Tensor, seed)


def check_bias(bias: Any, q: Tensor, heads: int, left: int, right: int, shift: bool) -> Tensor:
    checks.is_floating(NAME, "bias", bias)
    if left < 0 or right < 0:
        checks.fail(NAME, "window_size", "finite on both sides where there is a bias", (left, right))
    names = "[H, 2 * (left + right) + 1]" if shift else "[H, left + right + 1]"
    checks.has_shape(NAME, "bias", bias, (heads, bias_length(left, right, shift)), names)
    if bias.device != q.device:
        checks.fail(NAME, "bias", f"on the device of q, {q.device}", bias.device)
    return bias.to(acc_dtype(q.dtype)).contiguous()


def check_sinks(sinks: Any, q: Tensor, heads: int) -> Tensor:
    checks.is_floating(NAME, "sinks", sinks)
    checks.has_shape(NAME, "sinks", sinks, (heads,), "[H]")
    if sinks.device != q.device:
        checks.fail(NAME, "sinks", f"on the device of q, {q.device}", sinks.device)
    return sinks.to(acc_dtype(q.dtype)).contiguous()


def check_mask(mask: Any, k: Tensor, packed: bool) -> Tensor:
    """Key padding as a bool [B, Tk]; lengths [B] are turned into one."""
    name = "key_mask"
    checks.is_tensor(NAME, name, mask)
    batch, frames = k.shape[0], k.shape[2]
    if packed:
        checks.is_mask(NAME, name, mask, (frames,), "[total]", k.device)
        return mask.unsqueeze(0)
    if mask.dtype in (torch.int32, torch.int64) and mask.dim() == 1:
        checks.has_shape(NAME, name, mask, (batch,), "[B]")
        if mask.device != k.device:
            checks.fail(NAME, name, f"on the device of the input, {k.device}", mask.device)
        return torch.arange(frames, device=k.device)[None, :] < mask[:, None]
    checks.is_mask(NAME, name, mask, (batch, frames), "[B, T]", k.device)
    return mask
