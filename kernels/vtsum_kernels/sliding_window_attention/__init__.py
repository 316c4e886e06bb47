"""Sliding-window attention: each frame attends to the frames near it."""

from __future__ import annotations

import importlib.util
import math
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks, dispatch, library
from . import ops as _ops  # noqa: F401  (registers the ops)
from .reference import sliding_window_attention_reference

__all__ = ["sliding_window_attention", "sliding_window_attention_reference"]

_NAME = "sliding_window_attention"


class Call(NamedTuple):
    """A checked call: what the predicates look at and the backends compute."""

    q: Tensor
    k: Tensor
    v: Tensor
    left: int
    right: int
    scale: float
    dilation: int
    mask: Tensor | None


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | tuple[int, int],
    *,
    scale: float | None = None,
    dilation: int = 1,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    return_lse: bool = False,
) -> Call:
    checks.is_floating(_NAME, "q", q)
    checks.has_rank(_NAME, "q", q, 4, "[B, H, T, D]")
    for name, tensor in (("k", k), ("v", v)):
        checks.matches(_NAME, name, tensor, "q", q)
        checks.has_shape(_NAME, name, tensor, tuple(q.shape), "q's [B, H, T, D]")
    if q.shape[3] < 1:
        checks.fail(_NAME, "D", "at least 1", q.shape[3])
    checks.is_positive_int(_NAME, "dilation", dilation)
    left, right = checks.window(_NAME, window_size, causal)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[3])
    elif isinstance(scale, bool) or not isinstance(scale, (int, float)):
        checks.fail(_NAME, "scale", "a float or None (1 / sqrt(D))", type(scale).__name__, TypeError)
    elif not math.isfinite(scale):
        checks.fail(_NAME, "scale", "finite", scale)
    return Call(q, k, v, left, right, float(scale), dilation, _mask(key_padding_mask, q))


def _mask(mask: Tensor | None, q: Tensor) -> Tensor | None:
    """Key padding as a bool [B, T]; lengths [B] are turned into one."""
    if mask is None:
        return None
    checks.is_tensor(_NAME, "key_padding_mask", mask)
    batch, frames = q.shape[0], q.shape[2]
    if mask.dtype in (torch.int32, torch.int64) and mask.dim() == 1:
        checks.has_shape(_NAME, "key_padding_mask", mask, (batch,), "[B]")
        if mask.device != q.device:
            checks.fail(_NAME, "key_padding_mask", f"on the device of the input, {q.device}", mask.device)
        return torch.arange(frames, device=q.device)[None, :] < mask[:, None]
    checks.is_mask(_NAME, "key_padding_mask", mask, (batch, frames), "[B, T]", q.device)
    return mask


#: Beyond this many keys a row, dense products (which PyTorch has) do the work faster than one row at a time.
MAX_KEYS_CPP = 513
MAX_DIM_GPU = 256

HAS_TRITON = importlib.util.find_spec("triton") is not None
#: Triton's interpreter runs its kernels on the CPU, for tests.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _keys(call: Call) -> int:
    """Keys of a full window, no more than the sequence has on either side."""
    reach = max(call.q.shape[2] - 1, 0) // call.dilation
    return sum(reach if side < 0 or side > reach else side for side in (call.left, call.right)) + 1


def _cpp_can_run(call: Call) -> str | None:
    if call.q.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {call.q.device}"
    if library.refusal("_cpu") is not None:
        return f"the compiled CPU kernels are not loaded: {library.refusal('_cpu')}"
    if _keys(call) > MAX_KEYS_CPP:
        return f"a window holds {_keys(call)} keys, more than {MAX_KEYS_CPP}"
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


OP = dispatch.register(
    dispatch.Op(
        _NAME,
        {"cpp": _cpp_can_run, "cuda": _cuda_can_run, "triton": _triton_can_run, "reference": _reference_can_run},
        _check,
    )
)


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
    )


def _compiled(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
    return torch.ops.vtsum_kernels.sliding_window_attention_fwd(
        call.q, call.k, call.v, call.mask, call.left, call.right, call.dilation, call.scale, need_lse
    )


def _triton(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
    return torch.ops.vtsum_kernels.sliding_window_attention_triton_fwd(
        call.q, call.k, call.v, call.mask, call.left, call.right, call.dilation, call.scale, need_lse
    )


_RUN = {"cpp": _compiled, "cuda": _compiled, "triton": _triton, "reference": _reference}


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | tuple[int, int],
    *,
    scale: float | None = None,
    dilation: int = 1,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    """Attention of each frame to the frames in a window around it.

        out[b, h, i] = sum_j softmax_j(scale * q_i . k_j) v_j   over j = i + o * dilation, -left <= o <= right

    over the keys j that lie inside the sequence and are not padding. The window is cut off at the borders. A row that
    sees no key gives 0, and its gradients are 0.

    Args:
        q, k, v (Tensor): [B, H, T, D], float32, float16, bfloat16 or float64; any strides.
        window_size (int | tuple[int, int]): an odd int w (the frame itself and w // 2 on each side), or (left, right),
            both inclusive, where -1 means unbounded. In steps of `dilation`.
        scale (float | None): factor of the scores; None means 1 / sqrt(D).
        dilation (int): distance in frames between neighbouring keys of a window.
        causal (bool): no key after the query: right becomes 0, left stays.
        key_padding_mask (Tensor | None): bool [B, T], True = valid; or int lengths [B] (int32 or int64).
        return_lse (bool): also return the log of the sum of the exponentiated scores.
        backend (str): "auto", or one of the op's backends; see `vtsum_kernels.explain`.
    Returns:
        Tensor: [B, H, T, D], dtype of q; accumulated in float32 (float64 for float64). With `return_lse`, a tuple of
        it and lse [B, H, T], float32 (float64 for float64), -inf where a row sees nothing.
    Raises:
        TypeError: for a wrong type or dtype.
        ValueError: for a wrong shape, device or value.
        NotImplementedError: if an explicit backend cannot serve the call.

    Source: Beltagy et al. 2020, "Longformer", section 3.1 (sliding and dilated windows), in the two-sided form.
    """
    call = _check(
        q, k, v, window_size, scale=scale, dilation=dilation, causal=causal, key_padding_mask=key_padding_mask
    )
    out, lse = _RUN[dispatch.choose(OP, backend, call)](call, return_lse)
    return (out, lse) if return_lse else out
