"""Sliding-window attention in Triton, forward and backward, for any window.

A program serves BLOCK_T rows of one head and keeps them in registers; it walks over the window's offsets, loading the
keys shifted by each, and never forms a score it does not need. Backward, as in the CUDA form: one kernel gives each row
its lse, delta and dq, another lets each key gather dk and dv from the rows that see it. No atomics, the same bits each
time.

Imported at the first call that needs it; this file alone needs the package triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rows(start, length, stride_t, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, D: tl.constexpr):
    """Offsets [BLOCK_T, BLOCK_D] of rows start..start + BLOCK_T, and which of them exist."""
    t = start + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    exists = (t >= 0) & (t < length)
    return t.to(tl.int64)[:, None] * stride_t + d[None, :], exists[:, None] & (d < D)[None, :]


@triton.jit
def sliding_window_attention_fwd_kernel(
    q_ptr,  # [B, H, T, D], as k and v
    k_ptr,
    v_ptr,
    mask_ptr,  # [B, T] bytes
    out_ptr,  # [B, H, T, D]
    lse_ptr,  # [B, H, T] float32
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, mask_b, mask_t,
    H, T, left, right, dilation, scale,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, HAS_MASK: tl.constexpr, HAS_LSE: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(T, BLOCK_T)
    head, start = tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * BLOCK_T
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    t = start + tl.arange(0, BLOCK_T)
    own, exists = _rows(start, T, q_t, BLOCK_T, BLOCK_D, D)
    q = tl.load(q_ptr + b * q_b + h * q_h + own, mask=exists, other=0.0).to(tl.float32)
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    out = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for o in range(-left, right + 1):
        j = t + o * dilation
        visible = (j >= 0) & (j < T) & (t < T)
        if HAS_MASK:
            visible = visible & (tl.load(mask_ptr + b * mask_b + j.to(tl.int64) * mask_t, mask=visible, other=0) != 0)
        at, there = _rows(start + o * dilation, T, k_t, BLOCK_T, BLOCK_D, D)
        k = tl.load(k_ptr + b * k_b + h * k_h + at, mask=there & visible[:, None], other=0.0).to(tl.float32)
        s = tl.where(visible, tl.sum(q * k, 1) * scale, float("-inf"))
        higher = tl.where(s > top, s, top)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        keep, weight = tl.exp(top - base), tl.exp(s - base)
        at, there = _rows(start + o * dilation, T, v_t, BLOCK_T, BLOCK_D, D)
        v = tl.load(v_ptr + b * v_b + h * v_h + at, mask=there & visible[:, None], other=0.0).to(tl.float32)
        out = out * keep[:, None] + weight[:, None] * v
        total = total * keep + weight
        top = higher
    sees = total != 0.0
    out = out / tl.where(sees, total, 1.0)[:, None]
    at, there = _rows(start, T, o_t, BLOCK_T, BLOCK_D, D)
    tl.store(out_ptr + b * o_b + h * o_h + at, out.to(out_ptr.dtype.element_ty), mask=there)
    if HAS_LSE:
        lse = tl.where(sees, top + tl.log(tl.where(sees, total, 1.0)), float("-inf"))
        tl.store(lse_ptr + head.to(tl.int64) * T + t, lse, mask=t < T)


@triton.jit
def sliding_window_attention_bwd_rows_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr,  # [B, H, T, D]
    mask_ptr,  # [B, T] bytes
    dlse_ptr,  # [B, H, T] float32
    dq_ptr,  # [B, H, T, D]
    stats_ptr,  # [2, B, H, T] float32: lse and delta
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, g_b, g_h, g_t, dq_b, dq_h, dq_t, mask_b, mask_t,
    B, H, T, left, right, dilation, scale,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, HAS_MASK: tl.constexpr, HAS_LSE: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(T, BLOCK_T)
    head, start = tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * BLOCK_T
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    t = start + tl.arange(0, BLOCK_T)
    statistic = head.to(tl.int64) * T + t
    own, exists = _rows(start, T, q_t, BLOCK_T, BLOCK_D, D)
    q = tl.load(q_ptr + b * q_b + h * q_h + own, mask=exists, other=0.0).to(tl.float32)
    own, exists = _rows(start, T, g_t, BLOCK_T, BLOCK_D, D)
    dout = tl.load(dout_ptr + b * g_b + h * g_h + own, mask=exists, other=0.0).to(tl.float32)
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    delta = tl.zeros([BLOCK_T], tl.float32)
    for o in range(-left, right + 1):
        j = t + o * dilation
        visible = (j >= 0) & (j < T) & (t < T)
        if HAS_MASK:
            visible = visible & (tl.load(mask_ptr + b * mask_b + j.to(tl.int64) * mask_t, mask=visible, other=0) != 0)
        at, there = _rows(start + o * dilation, T, k_t, BLOCK_T, BLOCK_D, D)
        k = tl.load(k_ptr + b * k_b + h * k_h + at, mask=there & visible[:, None], other=0.0).to(tl.float32)
        at, there = _rows(start + o * dilation, T, v_t, BLOCK_T, BLOCK_D, D)
        v = tl.load(v_ptr + b * v_b + h * v_h + at, mask=there & visible[:, None], other=0.0).to(tl.float32)
        s = tl.where(visible, tl.sum(q * k, 1) * scale, float("-inf"))
        higher = tl.where(s > top, s, top)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        keep, weight = tl.exp(top - base), tl.exp(s - base)
        total = total * keep + weight
        delta = delta * keep + weight * tl.sum(dout * v, 1)
        top = higher
    sees = total != 0.0
    lse = tl.where(sees, top + tl.log(tl.where(sees, total, 1.0)), float("inf"))
    delta = tl.where(sees, delta / tl.where(sees, total, 1.0), 0.0)
    if HAS_LSE:
        delta = tl.where(sees, delta - tl.load(dlse_ptr + statistic, mask=t < T, other=0.0), 0.0)
    dq = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for o in range(-left, right + 1):
        j = t + o * dilation
        visible = (j >= 0) & (j < T) & (t < T)
        if HAS_MASK:
            visible = visible & (tl.load(mask_ptr + b * mask_b + j.to(tl.int64) * mask_t, mask=visible, other=0) != 0)
        at, there = _rows(start + o * dilation, T, k_t, BLOCK_T, BLOCK_D, D)
        k = tl.load(k_ptr + b * k_b + h * k_h + at, mask=there & visible[:, None], other=0.0).to(tl.float32)
        at, there = _rows(start + o * dilation, T, v_t, BLOCK_T, BLOCK_D, D)
        v = tl.load(v_ptr + b * v_b + h * v_h + at, mask=there & visible[:, None], other=0.0).to(tl.float32)
        s = tl.where(visible, tl.sum(q * k, 1) * scale, float("-inf"))
        ds = tl.exp(s - lse) * (tl.sum(dout * v, 1) - delta) * scale
        dq += ds[:, None] * k
    at, there = _rows(start, T, dq_t, BLOCK_T, BLOCK_D, D)
    tl.store(dq_ptr + b * dq_b + h * dq_h + at, dq.to(dq_ptr.dtype.element_ty), mask=there)
    tl.store(stats_ptr + statistic, lse, mask=t < T)
    tl.store(stats_ptr + B.to(tl.int64) * H * T + statistic, delta, mask=t < T)


@triton.jit
def sliding_window_attention_bwd_keys_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr,  # [B, H, T, D]
    mask_ptr,  # [B, T] bytes
    stats_ptr,  # [2, B, H, T] float32: lse and delta
    dk_ptr, dv_ptr,  # [B, H, T, D]
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, g_b, g_h, g_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t, mask_b, mask_t,
    B, H, T, left, right, dilation, scale,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(T, BLOCK_T)
    head, start = tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * BLOCK_T
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    t = start + tl.arange(0, BLOCK_T)
    alive = t < T
    if HAS_MASK:
        alive = alive & (tl.load(mask_ptr + b * mask_b + t.to(tl.int64) * mask_t, mask=alive, other=0) != 0)
    own, exists = _rows(start, T, k_t, BLOCK_T, BLOCK_D, D)
    k = tl.load(k_ptr + b * k_b + h * k_h + own, mask=exists & alive[:, None], other=0.0).to(tl.float32)
    own, exists = _rows(start, T, v_t, BLOCK_T, BLOCK_D, D)
    v = tl.load(v_ptr + b * v_b + h * v_h + own, mask=exists & alive[:, None], other=0.0).to(tl.float32)
    dk = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for o in range(-right, left + 1):  # the rows that see key j: from j - right to j + left
        i = t + o * dilation
        sees = (i >= 0) & (i < T) & alive
        at, there = _rows(start + o * dilation, T, q_t, BLOCK_T, BLOCK_D, D)
        q = tl.load(q_ptr + b * q_b + h * q_h + at, mask=there & sees[:, None], other=0.0).to(tl.float32)
        at, there = _rows(start + o * dilation, T, g_t, BLOCK_T, BLOCK_D, D)
        dout = tl.load(dout_ptr + b * g_b + h * g_h + at, mask=there & sees[:, None], other=0.0).to(tl.float32)
        statistic = head.to(tl.int64) * T + i
        lse = tl.load(stats_ptr + statistic, mask=sees, other=float("inf"))
        delta = tl.load(stats_ptr + B.to(tl.int64) * H * T + statistic, mask=sees, other=0.0)
        weight = tl.exp(tl.sum(q * k, 1) * scale - lse)
        ds = weight * (tl.sum(dout * v, 1) - delta) * scale
        dk += ds[:, None] * q
        dv += weight[:, None] * dout
    at, there = _rows(start, T, dk_t, BLOCK_T, BLOCK_D, D)
    tl.store(dk_ptr + b * dk_b + h * dk_h + at, dk.to(dk_ptr.dtype.element_ty), mask=there)
    at, there = _rows(start, T, dv_t, BLOCK_T, BLOCK_D, D)
    tl.store(dv_ptr + b * dv_b + h * dv_h + at, dv.to(dv_ptr.dtype.element_ty), mask=there)


KERNELS = (
    sliding_window_attention_fwd_kernel,
    sliding_window_attention_bwd_rows_kernel,
    sliding_window_attention_bwd_keys_kernel,
)


def block_sizes(dim: int) -> dict[str, int]:
    """Rows and features of a program: tiles small enough for the backward's six to fit the registers."""
    block_d = max(triton.next_power_of_2(dim), 16)
    return {"BLOCK_T": (2048 if block_d <= 128 else 1024) // block_d, "BLOCK_D": block_d}


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _window(length: int, left: int, right: int, dilation: int) -> tuple[int, int, int]:
    reach = (length - 1) // dilation
    return *(reach if side < 0 else min(side, reach) for side in (left, right)), dilation  # type: ignore[return-value]


def _launch(kernel: Any, q: Tensor, *arguments: Any, **constants: Any) -> None:
    batch, heads, frames, dim = q.shape
    sizes = block_sizes(dim)
    programs = batch * heads * triton.cdiv(frames, sizes["BLOCK_T"])
    kernel[(programs,)](*arguments, D=dim, **sizes, **constants, num_warps=4)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor]:
    """The op `sliding_window_attention_triton_fwd`."""
    q, k, v = _dense_rows(q), _dense_rows(k), _dense_rows(v)
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[:3] if need_lse else (0,), dtype=torch.float32, device=q.device)
    if q.numel() == 0:
        return out, lse
    seen = q if mask is None else mask.view(torch.uint8)
    strides = [s for x in (q, k, v, out) for s in x.stride()[:3]]
    window = _window(q.shape[2], left, right, dilation)
    _launch(
        sliding_window_attention_fwd_kernel,
        q,
        *(q, k, v, seen, out, lse, *strides, *seen.stride()[:2], q.shape[1], q.shape[2], *window, scale),
        HAS_MASK=mask is not None,
        HAS_LSE=need_lse,
    )
    return out, lse


def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dlse: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op `sliding_window_attention_triton_bwd`."""
    dout, q, k, v = (_dense_rows(x) for x in (dout, q, k, v))
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    if q.numel() == 0:
        return dq, dk, dv
    stats = torch.empty((2, *q.shape[:3]), dtype=torch.float32, device=q.device)
    seen = q if mask is None else mask.view(torch.uint8)
    inputs = [s for x in (q, k, v, dout) for s in x.stride()[:3]]
    shape = (*q.shape[:3], *_window(q.shape[2], left, right, dilation), scale)
    slopes = stats if dlse is None else dlse
    _launch(
        sliding_window_attention_bwd_rows_kernel,
        q,
        *(q, k, v, dout, seen, slopes, dq, stats, *inputs, *dq.stride()[:3], *seen.stride()[:2], *shape),
        HAS_MASK=mask is not None,
        HAS_LSE=dlse is not None,
    )
    _launch(
        sliding_window_attention_bwd_keys_kernel,
        q,
        *(q, k, v, dout, seen, stats, dk, dv, *inputs, *dk.stride()[:3], *dv.stride()[:3], *seen.stride()[:2], *shape),
        HAS_MASK=mask is not None,
    )
    return dq, dk, dv
