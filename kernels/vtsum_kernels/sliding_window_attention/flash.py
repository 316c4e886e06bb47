"""Wide windows through the flash attention that torch carries. On CUDA that kernel knows windows, on the CPU none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from ..tensors import dense_rows
from .call import Call


def can_run(call: Call) -> str | None:
    """None when torch's kernel can serve the call, else the reason in words."""
    for reason, present in (
        ("shifted windows", call.shift),
        ("a relative bias", call.bias is not None),
        ("packed sequences", call.cu_seqlens is not None),
        ("dilation", call.dilation != 1),
        ("dropout, whose choice it would make differently", call.dropout_p > 0),
        ("sinks", call.sinks is not None),
        ("softcap", call.softcap > 0),
        ("lse with a gradient", call.return_lse or call.normalize == "global"),
    ):
        if present:
            return f"it does not serve {reason}"
    if call.q.device.type == "cuda":
        if call.q.dtype not in (torch.float16, torch.bfloat16):
            return "on CUDA it takes float16 and bfloat16"
        if call.mask is not None:
            return "on CUDA it takes no padding mask"
        if call.q.shape[3] > 256 or call.q.shape[3] % 8:
            return f"on CUDA it takes a D of at most 256 that 8 divides, got {call.q.shape[3]}"
        if torch.cuda.get_device_capability(call.q.device) < (8, 0):
            return "it needs compute capability 8.0"
    elif call.q.device.type == "cpu":
        if call.mask is not None or any(0 <= side < call.longest - 1 for side in (call.left, call.right)):
            return "on the CPU it takes windows that hold the whole sequence, without padding"
    else:
        return f"it runs on CUDA and the CPU, the tensors are on {call.q.device}"
    return library.no_forward_mode()


def run(call: Call, need_lse: bool) -> tuple[Tensor, Tensor]:
    """The call by torch's kernel; lse comes back empty."""
    out = _cuda(call) if call.q.device.type == "cuda" else _cpu(call)
    return out, call.q.new_empty(0)


def _cuda(call: Call) -> Tensor:
    frames = call.q.shape[2]
    if call.q.numel() == 0:
        return torch.empty_like(call.q)
    rows = [x.transpose(1, 2) for x in (call.q, call.k, call.v)]
    out = torch.ops.aten._flash_attention_forward(
        *rows,
        None,
        None,
        frames,
        frames,
        0.0,
        False,
        False,
        scale=call.scale,
        window_size_left=call.left,
        window_size_right=call.right,
    )[0]
    return out.transpose(1, 2)


def _cpu(call: Call) -> Tensor:
    q, k, v = call.q, call.k, call.v
    if q.numel() == 0:
        return q + (k.sum() + v.sum())  # nothing, tied to all three inputs
    # What torch's kernel does not take would go to a product of T x T: heads that share keys, strided features.
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) if k.shape[1] < q.shape[1] else x for x in (k, v))
    return F.scaled_dot_product_attention(dense_rows(q), dense_rows(k), dense_rows(v), scale=call.scale)
