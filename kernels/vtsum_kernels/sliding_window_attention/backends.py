"""The op's backends: which calls each can serve, which it serves best, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import dispatch, library
from ..tensors import acc_dtype
from . import blockwise, flash
from .alignment import aligned
from .call import NAME, Call
from .dropout import draw_seed
from .global_softmax import rescale
from .ops import MAX_KEYS_RECOMPUTED
from .reference import sliding_window_attention_reference

#: The scratch of a strip grows with the window; beyond, blocks of products are as fast and need less.
MAX_KEYS_CPP = 1025
#: From how many keys a row they are faster too where a window holds the whole sequence: a strip then computes as many
#: scores of keys past its ends as of keys.
BLOCKWISE_FROM = 256
#: The same where there is no compiled kernel on the CPU, and one product a key is the alternative.
BLOCKWISE_FROM_UNCOMPILED = 65
#: From how many keys a row torch's flash attention is taken on CUDA: compute-bound, like ours, and tuned for years.
FLASH_FROM_CUDA = 257
MAX_DIM_GPU = 256
#: Positions are counted in 32 bits, with room for a window beyond them; a halo of a tile for Triton's.
MAX_FRAMES_GPU = 2**30 - 2**12
#: A grid has at most 2^31 - 1 blocks: four rows each and more of the general kernels, and perhaps one of Triton's.
MAX_ROWS_CUDA = 4 * (2**31 - 1)
MAX_ROWS_TRITON = 2**31 - 1
#: Up to so many queries against four times as many keys, or more, go by plain products: their scores take no more
#: memory than the keys.
FEW_QUERIES = 128


def window_keys(call: Call) -> int:
    """Keys of a full window, no more than the sequence has on either side."""
    left, right = call.left, call.right
    if left >= 0 and right >= 0 and left + right < MAX_KEYS_RECOMPUTED:
        return left + right + 1  # the common case, without arithmetic on a length that may be symbolic
    reach = max(call.longest - 1, 0) // call.dilation
    return sum(reach if side < 0 or side > reach else side for side in (left, right)) + 1


def _cpp_can_run(call: Call) -> str | None:
    reason = dispatch.cpp_can_run(call.q)
    if reason is None and window_keys(call) > MAX_KEYS_CPP:
        return f"a window holds {window_keys(call)} keys, more than {MAX_KEYS_CPP}"
    return reason


def _cuda_can_run(call: Call) -> str | None:
    return dispatch.cuda_can_run(call.q) or _beyond_gpu(call, MAX_ROWS_CUDA)


def _triton_can_run(call: Call) -> str | None:
    return dispatch.triton_can_run(call.q) or _beyond_gpu(call, MAX_ROWS_TRITON)


def _beyond_gpu(call: Call, most_rows: int) -> str | None:
    """Which size of a call is more than the kernels on a GPU count in 32 bits. Exported, they say so when they run."""
    (batch, heads, _, dim), frames = call.q.shape, call.k.shape[2]  # fewer queries are brought to as many rows
    if dim > MAX_DIM_GPU:
        return f"D is {dim}, more than {MAX_DIM_GPU}"
    if torch.compiler.is_exporting():
        return None
    if frames > MAX_FRAMES_GPU:
        return f"T must be at most {MAX_FRAMES_GPU}, got {frames}"
    rows = batch * heads * frames
    return f"B * H * T must be at most {most_rows}, got {rows}" if rows > most_rows else None


def _blockwise_can_run(call: Call) -> str | None:
    device = call.q.device
    return library.no_forward_mode() if device.type == "cpu" else f"it runs on the CPU, the tensors are on {device}"


def preferred(call: Call) -> str | None:
    """A wide window is compute-bound: there products of matrices are faster, and need no memory of T x T.

    Few queries against many keys are faster as plain products, without rows that nobody asked for.
    """
    if call.more_keys and call.cu_seqlens_k is None:
        queries, keys = call.q.shape[2], call.k.shape[2]
        if queries <= FEW_QUERIES and keys > MAX_KEYS_RECOMPUTED and 4 * queries <= keys:
            return "reference"
    keys = window_keys(call)
    if keys <= MAX_KEYS_RECOMPUTED:
        return None
    flash_serves = flash.can_run(call) is None
    if call.q.device.type != "cpu":
        return "flash" if keys >= FLASH_FROM_CUDA and flash_serves else None
    if _blockwise_can_run(call) is not None:
        return None
    if _cpp_can_run(call) is not None:
        wide = keys >= BLOCKWISE_FROM_UNCOMPILED
    else:
        # Dropout is slow to draw for anything but a strip.
        wide = keys >= BLOCKWISE_FROM and keys >= call.longest and call.dropout_p == 0
    return ("flash" if flash_serves else "blockwise") if wide else None


def holds(backend: str, call: Call) -> str:
    """What a backend holds beside inputs, results and statistics, in words."""
    batch, heads, frames, dim = call.q.shape
    keys, item = window_keys(call), acc_dtype(call.q.dtype).itemsize
    seen = min(keys, call.longest)
    if backend == "reference":
        band = keys if keys < frames else frames
        return f"holds {dispatch.amount(batch * heads * frames * band * item)} of scores, several times"
    if backend == "blockwise":
        return f"holds {dispatch.amount(blockwise.scores_of(call.q, call.k, seen) * item)} of scores, a few times"
    if backend == "cpp":
        table = min(3 * keys if keys > 128 else max(6 * keys, 80), call.longest + keys)
        return f"holds {dispatch.amount(((2 + (call.softcap > 0)) * keys + 6 * dim) * table * item)} a thread at most"
    # What torch's kernel does with NaN is its own: what the README says of the others does not hold of it.
    apart = "; a NaN may reach rows that do not see it" if backend == "flash" else ""
    return f"holds nothing that grows with the window{apart}"


BACKENDS: dict[str, dispatch.Predicate] = {
    "cpp": _cpp_can_run,
    "cuda": _cuda_can_run,
    "triton": _triton_can_run,
    "reference": lambda call: None,
    "blockwise": _blockwise_can_run,  # only where it is preferred, as the next
    "flash": flash.can_run,
}


def _seed(call: Call) -> Tensor | None:
    if call.dropout_p == 0:
        return None
    return draw_seed(call.q.device) if call.seed is None else call.seed


def _reference(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
    return sliding_window_attention_reference(
        call.q,
        call.k,
        call.v,
        call.left,
        call.right,
        scale=call.scale,
        dilation=call.dilation,
        key_mask=call.mask,
        cu_seqlens=call.cu_seqlens,
        bias=call.bias,
        shift=call.shift,
        seed=_seed(call),
        dropout_p=call.dropout_p,
        row_offset=call.row_offset,
        sinks=call.sinks,
        softcap=call.softcap,
    )


def _registered(op: str) -> Callable[[Call, bool], tuple[Tensor, Tensor]]:
    def run(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
        need_lse = need_lse or call.sinks is not None  # whose gradient is made of it
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
            call.row_offset,
            need_lse,
            call.sinks,
            call.softcap,
        )
        return found

    return run


_compiled = _registered(f"{NAME}_fwd")
_FORWARD = {
    "cpp": _compiled,
    "cuda": _compiled,
    "triton": _registered(f"{NAME}_triton_fwd"),
    "blockwise": _registered(f"{NAME}_blockwise_fwd"),
    "flash": flash.run,
    "reference": _reference,
}


def form(backend: str, call: Call) -> str | None:
    """Which kernels of a backend serve a call, in words, where it has several."""
    if backend != "cuda":
        return None
    tensors = call.q, call.k, call.v, call.mask, call.cu_seqlens, call.bias
    seed = call.q.new_zeros(1, dtype=torch.int64) if call.dropout_p > 0 else None
    options = call.left, call.right, call.dilation, call.shift, call.scale, call.dropout_p, call.row_offset
    said: str = getattr(library.OPS, f"{NAME}_form")(
        *tensors, seed, *options, window_keys(call) > MAX_KEYS_RECOMPUTED, call.sinks, call.softcap
    )
    return said


def run(backend: str, call: Call) -> Any:
    """The call by a backend: out, or out and lse."""
    dtype = call.q.dtype
    over_all = call.normalize == "global"
    if over_all:
        # The gradients by way of the band and of the whole sequence nearly cancel: they are added before rounding.
        call = call._replace(**{name: getattr(call, name).to(acc_dtype(dtype)) for name in ("q", "k", "v")})
    line = None
    if call.more_keys and (over_all or call.cu_seqlens_k is not None or backend != "reference"):
        line = aligned(call)
        call = line.call
    out, lse = _FORWARD[backend](call._replace(sinks=None) if over_all else call, call.return_lse or over_all)
    if over_all:
        out, lse = rescale(call, out, lse)
        out = out.to(dtype)
    if line is not None:
        out = line.chosen(out)
        lse = line.chosen(lse) if call.return_lse else lse
    if call.packed:
        out = out.squeeze(0).transpose(0, 1)
        lse = lse.squeeze(0) if call.return_lse else lse
    return (out, lse) if call.return_lse else out
