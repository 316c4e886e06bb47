"""The op's backends: which calls each can serve, which it serves best, and how it is called."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import torch
from torch import Tensor

from .. import dispatch, library
from . import cuda_waves, flash
from .call import NAME, Call, check
from .dropout import draw_seed
from .ops import MAX_KEYS_RECOMPUTED
from .reference import sliding_window_attention_reference

#: The scratch of a strip grows with the window. Up to here our form is two to five times as fast as torch's.
MAX_KEYS_CPP = 1025
#: From how many keys a row torch's flash attention is taken on CUDA: compute-bound, like ours, and tuned for years.
FLASH_FROM_CUDA = 257
#: The same where there is no compiled kernel on the CPU, and one product a key is the alternative.
FLASH_FROM_CPU = 65
MAX_DIM_GPU = 256

HAS_TRITON = importlib.util.find_spec("triton") is not None
#: Triton's interpreter runs its kernels on the CPU, for tests.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def window_keys(call: Call) -> int:
    """Keys of a full window, no more than the sequence has on either side."""
    left, right = call.left, call.right
    if left >= 0 and right >= 0 and left + right < MAX_KEYS_RECOMPUTED:
        return left + right + 1  # the common case, without arithmetic on a length that may be symbolic
    reach = max(call.q.shape[2] - 1, 0) // call.dilation
    return sum(reach if side < 0 or side > reach else side for side in (left, right)) + 1


def _cpp_can_run(call: Call) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {call.q.device}"
    if library.refusal("_cpu") is not None:
        return f"the compiled CPU kernels are not loaded: {library.refusal('_cpu')}"
    if window_keys(call) > MAX_KEYS_CPP:
        return f"a window holds {window_keys(call)} keys, more than {MAX_KEYS_CPP}"
    return None


def _gpu_can_run(call: Call) -> str | None:
    if call.q.dtype == torch.float64:
        return "it takes float32, float16 and bfloat16"
    if call.q.shape[3] > MAX_DIM_GPU:
        return f"D is {call.q.shape[3]}, more than {MAX_DIM_GPU}"
    return None


def _cuda_can_run(call: Call) -> str | None:
    if call.q.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {call.q.device}"
    if library.refusal("_cuda") is not None:
        return f"the compiled CUDA kernels are not loaded: {library.refusal('_cuda')}"
    return _gpu_can_run(call)


def _triton_can_run(call: Call) -> str | None:
    if call.q.device.type != "cuda" and not (TRITON_INTERPRETED and call.q.device.type == "cpu"):
        return f"it runs on CUDA, the tensors are on {call.q.device}"
    if not HAS_TRITON:
        return "the package triton is not installed"
    return _gpu_can_run(call)


def _reference_can_run(call: Call) -> str | None:
    return None


def _preferred(call: Call) -> str | None:
    """A wide window is compute-bound: there torch's own flash attention is faster, where it serves the call."""
    keys = window_keys(call)
    if keys <= MAX_KEYS_RECOMPUTED or flash.can_run(call) is not None:
        return None
    if call.q.device.type == "cuda":
        return "flash" if keys >= FLASH_FROM_CUDA else None
    return "flash" if keys >= FLASH_FROM_CPU and _cpp_can_run(call) is not None else None


OP = dispatch.register(
    dispatch.Op(
        NAME,
        {
            "cpp": _cpp_can_run,
            "cuda": _cuda_can_run,
            "triton": _triton_can_run,
            "reference": _reference_can_run,
            "flash": flash.can_run,  # only where it is preferred
        },
        check,
        _preferred,
    )
)


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


def _registered(op: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Call, bool], tuple[Tensor, Tensor]]:
    def run(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
        if not need_lse and call.q.device.type == "cuda" and window_keys(call) > MAX_KEYS_RECOMPUTED:
            # The backward pass is handed it; the CPU's computes it again.
            need_lse = torch.is_grad_enabled() and any(x.requires_grad for x in (call.q, call.k, call.v))
        return op(
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

    return run


_compiled = _registered(torch.ops.vtsum_kernels.sliding_window_attention_fwd.default)


def _cuda(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
    if not torch.compiler.is_compiling():  # what was measured must not become a part of the graph
        cuda_waves.apply(call.q.device)
    return _compiled(call, need_lse)


RUN = {
    "cpp": _compiled,
    "cuda": _cuda,
    "triton": _registered(torch.ops.vtsum_kernels.sliding_window_attention_triton_fwd.default),
    "flash": flash.run,
    "reference": _reference,
}
