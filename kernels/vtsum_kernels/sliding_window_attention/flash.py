"""Wide windows through the flash attention that torch carries.

On CUDA that kernel knows windows. On the CPU it does not: there the rows are cut into blocks, and each block attends to
its own keys and those on either side of it under a band mask, so that work and memory stay proportional to the window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from .call import Call

#: Rows of a block on the CPU, and how many of them a call of torch's kernel serves.
_ROWS = 256
_BLOCKS = 16


def can_run(call: Call) -> str | None:
    """None when torch's kernel can serve the call, else the reason in words."""
    for reason, present in (
        ("shifted windows", call.shift),
        ("a relative bias", call.bias is not None),
        ("packed sequences", call.cu_seqlens is not None),
        ("dilation", call.dilation != 1),
        ("dropout, whose choice it would make differently", call.dropout_p > 0),
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
    elif call.q.device.type != "cpu":
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
    q, k, v, mask = call.q, call.k, call.v, call.mask
    batch, heads, frames = q.shape[:3]
    if q.numel() == 0:
        return q + (k.sum() + v.sum())  # nothing, tied to all three inputs
    group = heads // k.shape[1]
    if mask is not None:
        # Whatever padded frames hold, NaN too, must not reach a valid row: 0 * NaN would.
        k, v = (x.masked_fill(~mask[:, None, :, None], 0.0) for x in (k, v))
    if group > 1:
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    left, right = (frames - 1 if side < 0 or side > frames - 1 else side for side in (call.left, call.right))
    if mask is None and left == right == frames - 1:
        return F.scaled_dot_product_attention(q, k, v, scale=call.scale)
    rows = min(_ROWS, frames)
    blocks = -(-frames // rows)
    end = blocks * rows - frames
    q = F.pad(q, (0, 0, 0, end)).unflatten(2, (blocks, rows)).flatten(0, 1)
    # Overlapping views: block n holds the keys from n * rows - left to (n + 1) * rows - 1 + right.
    k, v = (
        F.pad(x, (0, 0, left, right + end)).unfold(2, rows + left + right, rows).transpose(-1, -2).flatten(0, 1)
        for x in (k, v)
    )
    offset = torch.arange(rows + left + right)[None, :] - torch.arange(rows)[:, None]
    band = (offset >= 0) & (offset <= left + right)
    valid = torch.ones(1, frames, dtype=torch.bool) if mask is None else mask
    valid = F.pad(valid, (left, right + end), value=False).unfold(1, rows + left + right, rows)
    parts = []
    for first in range(0, blocks, _BLOCKS):
        part = slice(first, first + _BLOCKS)
        visible = band & valid[:, part, None, :]
        seen = visible.any(-1, keepdim=True)
        # A row that sees nothing looks at everything instead, and what it finds is thrown away.
        looks = (visible | ~seen).repeat_interleave(heads if mask is not None else 1, 0)
        found = F.scaled_dot_product_attention(q[:, part], k[:, part], v[:, part], attn_mask=looks, scale=call.scale)
        parts.append(found.unflatten(0, (batch, heads)).masked_fill(~seen[:, None], 0.0))
    return torch.cat(parts, 2).flatten(2, 3)[:, :, :frames]
