"""The op's backends: which calls each can serve, which it serves best, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import dispatch, library
from . import flash
from .call import NAME, Call
from .dropout import draw_seed
from .global_softmax import rescale
from .ops import MAX_KEYS_RECOMPUTED
from .reference import sliding_window_attention_reference

#: The scratch of a strip grows with the window. Up to here our form is two to five times as fast as torch's.
MAX_KEYS_CPP = 1025
#: From how many keys a row torch's flash attention is taken on CUDA: compute-bound, like ours, and tuned for years.
FLASH_FROM_CUDA = 257
#: The same where there is no compiled kernel on the CPU, and one product a key is the alternative.
FLASH_FROM_CPU = 65
MAX_DIM_GPU = 256


def window_keys(call: Call) -> int:
    """Keys of a full window, no more than the sequence has on either side."""
    left, right = call.left, call.right
    if left >= 0 and right >= 0 and left + right < MAX_KEYS_RECOMPUTED:
        return left + right + 1  # the common case, without arithmetic on a length that may be symbolic
    reach = max(call.q.shape[2] - 1, 0) // call.dilation
    return sum(reach if side < 0 or side > reach else side for side in (left, right)) + 1


def _cpp_can_run(call: Call) -> str | None:
    reason = dispatch.cpp_can_run(call.q)
    if reason is None and window_keys(call) > MAX_KEYS_CPP:
        return f"a window holds {window_keys(call)} keys, more than {MAX_KEYS_CPP}"
    return reason


def _cuda_can_run(call: Call) -> str | None:
    return dispatch.cuda_can_run(call.q) or _dim_of_gpu(call)


def _triton_can_run(call: Call) -> str | None:
    return dispatch.triton_can_run(call.q) or _dim_of_gpu(call)


def _dim_of_gpu(call: Call) -> str | None:
    dim = call.q.shape[3]
    return f"D is {dim}, more than {MAX_DIM_GPU}" if dim > MAX_DIM_GPU else None


def preferred(call: Call) -> str | None:
    """A wide window is compute-bound: there torch's own flash attention is faster, where it serves the call."""
    keys = window_keys(call)
    if keys <= MAX_KEYS_RECOMPUTED or flash.can_run(call) is not None:
        return None
    if call.q.device.type == "cuda":
        return "flash" if keys >= FLASH_FROM_CUDA else None
    return "flash" if keys >= FLASH_FROM_CPU and _cpp_can_run(call) is not None else None


BACKENDS: dict[str, dispatch.Predicate] = {
    "cpp": _cpp_can_run,
    "cuda": _cuda_can_run,
    "triton": _triton_can_run,
    "reference": lambda call: None,
    "flash": flash.can_run,  # only where it is preferred
}


def _seed(call: Call) -> Tensor | None:
    return draw_seed(call.q.device) if call.dropout_p > 0 else None


def _reference(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
    return sliding_window_attention_reference(
        call.q,
        call.k,
        call.v,
        call.left,
        call.right,
        scale=call.scale,
        dilation=call.dilation,
        key_padding_mask=call.mask,
        cu_seqlens=call.cu_seqlens,
        bias=call.bias,
        shift=call.shift,
        seed=_seed(call),
        dropout_p=call.dropout_p,
    )


def _registered(op: str) -> Callable[[Call, bool], tuple[Tensor, Tensor]]:
    def run(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
        if not need_lse and call.q.device.type == "cuda" and window_keys(call) > MAX_KEYS_RECOMPUTED:
            # The backward pass is handed it; the CPU's computes it again.
            need_lse = torch.is_grad_enabled() and any(x.requires_grad for x in (call.q, call.k, call.v))
        found: tuple[Tensor, Tensor] = library.call(
            op,
            call.q,
            call.k,
            call.v,
            call.mask,
            call.cu_seqlens,
            call.bias,
            _seed(call),
            call.left,
            call.right,
            call.dilation,
            call.shift,
            call.scale,
            call.dropout_p,
            need_lse,
        )
        return found

    return run


_compiled = _registered(f"{NAME}_fwd")
_FORWARD = {
    "cpp": _compiled,
    "cuda": _compiled,
    "triton": _registered(f"{NAME}_triton_fwd"),
    "flash": flash.run,
    "reference": _reference,
}


def form(backend: str, call: Call) -> str | None:
    """Which kernels of a backend serve a call, in words, where it has several."""
    if backend != "cuda":
        return None
    tensors = call.q, call.k, call.v, call.mask, call.cu_seqlens, call.bias
    seed = call.q.new_zeros(1, dtype=torch.int64) if call.dropout_p > 0 else None
    options = call.left, call.right, call.dilation, call.shift, call.scale, call.dropout_p
    said: str = getattr(torch.ops.vtsum_kernels, f"{NAME}_form")(
        *tensors, seed, *options, window_keys(call) > MAX_KEYS_RECOMPUTED
    )
    return said


def run(backend: str, call: Call) -> Any:
    """The call by a backend: out, or out and lse."""
    over_all = call.normalize == "global"
    out, lse = _FORWARD[backend](call, call.return_lse or over_all)
    if over_all:
        out, lse = rescale(call, out, lse)
    if call.packed:
        out = out.squeeze(0).transpose(0, 1)
        lse = lse.squeeze(0) if call.return_lse else lse
    return (out, lse) if call.return_lse else out
