"""Sliding-window attention through the emulated CUDA kernels: tensors in, tensors out."""

from __future__ import annotations

import ctypes
import math
from ctypes import c_double, c_int, c_int32, c_int64, c_uint32, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tests.emulator.build import build
from tests.emulator.library import DTYPES, Emulated


class Bhtd(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("stride_b", c_int64), ("stride_h", c_int64), ("stride_t", c_int64)]


class Params(ctypes.Structure):
    """vts_sliding_window_attention_params."""

    _fields_ = [
        *((name, Bhtd) for name in ("q", "k", "v", "out", "dout", "dq", "dk", "dv")),
        *((name, c_void_p) for name in ("lse", "dlse", "bias", "dbias", "scratch", "mask")),
        *((name, c_int64) for name in ("mask_stride_b", "mask_stride_t")),
        ("cu_seqlens", c_void_p),
        ("sequences", c_int64),
        ("bounds", c_void_p),
        ("seed", c_void_p),
        ("drop_below", c_uint32),
        ("keep_scale", c_double),
        *((name, c_int64) for name in ("B", "H", "K", "T", "D", "left", "right", "dilation")),
        ("border", c_int32),
        ("scale", c_double),
        ("dtype", c_int32),
        ("row_offset", c_uint32),
        ("sinks", c_void_p),
        ("softcap", c_double),
        ("delta", c_void_p),
    ]


@dataclass
class Call:
    """The op's arguments inside the library: q [B, H, T, D], k and v [B, K, T, D], causal windows resolved."""

    q: Tensor
    k: Tensor
    v: Tensor
    left: int
    right: int
    dilation: int = 1
    shift: bool = False
    scale: float | None = None
    mask: Tensor | None = None  # bool [B, T]
    cu_seqlens: Tensor | None = None  # int32 [sequences + 1]
    bias: Tensor | None = None  # float32 [H, N]
    seed: Tensor | None = None  # int64 [1]
    dropout_p: float = 0.0
    row_offset: int = 0
    sinks: Tensor | None = None  # float32 [H]
    softcap: float = 0.0

    @property
    def scale_used(self) -> float:
        return 1 / math.sqrt(self.q.shape[-1]) if self.scale is None else self.scale


def bounds_of(cu_seqlens: Tensor, frames: int) -> Tensor:
    """int32 [2, T]: first frame of each frame's sequence, and one past its last."""
    bounds = torch.empty(2, frames, dtype=torch.int32)
    for first, end in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False):
        bounds[0, first:end], bounds[1, first:end] = first, end
    return bounds


def _bhtd(x: Tensor) -> Bhtd:
    return Bhtd(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def _params(call: Call, keep: list[Tensor]) -> Params:
    """The params struct; tensors made here are kept alive in `keep`."""
    q = call.q
    p = Params(q=_bhtd(q), k=_bhtd(call.k), v=_bhtd(call.v))
    p.B, p.H, p.T, p.D = q.shape
    p.K = call.k.shape[1]
    p.left, p.right, p.dilation = call.left, call.right, call.dilation
    p.border, p.scale, p.dtype = int(call.shift), call.scale_used, DTYPES[q.dtype]
    if call.mask is not None:
        p.mask, (p.mask_stride_b, p.mask_stride_t) = call.mask.data_ptr(), call.mask.stride()
    if call.cu_seqlens is not None:
        bounds = bounds_of(call.cu_seqlens, p.T)
        keep.append(bounds)
        p.cu_seqlens, p.sequences = call.cu_seqlens.data_ptr(), call.cu_seqlens.numel() - 1
        p.bounds = bounds.data_ptr()
    if call.sinks is not None:
        p.sinks = call.sinks.data_ptr()
    p.softcap = call.softcap
    if call.bias is not None:
        p.bias = call.bias.data_ptr()
    if call.dropout_p > 0:
        assert call.seed is not None
        p.seed = call.seed.data_ptr()
        p.drop_below, p.keep_scale = int(call.dropout_p * 2**32), 1 / (1 - call.dropout_p)
        p.row_offset = call.row_offset
    return p


def poisoned(like: Tensor) -> Tensor:
    return torch.empty_like(like).fill_(math.nan)


class Library(Emulated):
    """A compiled library. `family` is one of the kernels' families; without, the dispatcher chooses."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if hasattr(self.c, "emulator_params_size"):
            self.c.emulator_params_size.restype = c_int64
            self.c.emulator_bwd_scratch.restype = c_int64
            assert self.c.emulator_params_size() == ctypes.sizeof(Params), "Params does not mirror the C header"
        if hasattr(self.c, "vts_sliding_window_attention_bwd_cuda_scratch"):
            self.c.vts_sliding_window_attention_bwd_cuda_scratch.restype = c_int64

    def bounds(self, cu_seqlens: Tensor, bounds: Tensor) -> None:
        """Writes bounds int32 [2, T] from cu_seqlens int32 [sequences + 1]."""
        sequences, frames = c_int64(cu_seqlens.numel() - 1), c_int64(bounds.shape[1])
        pointers = c_void_p(cu_seqlens.data_ptr()), c_void_p(bounds.data_ptr())
        self.check(self.c.vts_sequence_bounds_cuda(pointers[0], sequences, frames, pointers[1], None))

    def takes(self, family: str, call: Call, *, backward: bool, handed_on: bool = True) -> bool:
        """Whether a family serves a call; `handed_on`: the backward is given the forward's out and lse."""
        keep: list[Tensor] = []
        p = _params(call, keep)
        rows, lse = _bhtd(poisoned(call.q)), torch.empty(call.q.shape[:3]).data_ptr()
        for name in ("dout", "dq", "dk", "dv") if backward else ("out",):
            setattr(p, name, rows)
        if backward:
            p.dbias = p.bias
        if backward and handed_on:
            p.out, p.lse = rows, lse
        answer = self.c.emulator_takes(family.encode(), ctypes.byref(p), c_int(backward))
        assert answer >= 0, f"no family {family}"
        return bool(answer)

    def forward(self, call: Call, family: str | None = None, *, need_lse: bool = True) -> tuple[Tensor, Tensor | None]:
        """out and lse, both full of NaN beforehand."""
        keep: list[Tensor] = []
        p = _params(call, keep)
        out = poisoned(call.q)
        lse = torch.full(call.q.shape[:3], math.nan) if need_lse else None
        p.out, p.lse = _bhtd(out), None if lse is None else lse.data_ptr()
        if family is None:
            self.check(self.c.vts_sliding_window_attention_fwd_cuda(ctypes.byref(p), None))
        else:
            self.check(self.c.emulator_fwd(family.encode(), ctypes.byref(p)))
        return out, lse

    def backward(
        self,
        call: Call,
        dout: Tensor,
        dlse: Tensor | None = None,
        family: str | None = None,
        *,
        out: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """dq, dk, dv (dk and dv of q's heads), dbias, and with sinks delta.

        out and lse as the op hands them on for wide windows.
        """
        keep: list[Tensor] = []
        p = _params(call, keep)
        dq, dk, dv = (poisoned(call.q) for _ in range(3))
        dbias = None if call.bias is None else poisoned(call.bias)
        p.dout, p.dq, p.dk, p.dv = _bhtd(dout), _bhtd(dq), _bhtd(dk), _bhtd(dv)
        p.out = Bhtd() if out is None else _bhtd(out)
        p.lse = None if lse is None else lse.data_ptr()
        p.dlse = None if dlse is None else dlse.data_ptr()
        p.dbias = None if dbias is None else dbias.data_ptr()
        delta = None if call.sinks is None else torch.full(call.q.shape[:3], math.nan)
        p.delta = None if delta is None else delta.data_ptr()
        name = None if family is None else family.encode()
        if name is None:
            size = self.c.vts_sliding_window_attention_bwd_cuda_scratch(ctypes.byref(p))
        else:
            size = self.c.emulator_bwd_scratch(name, ctypes.byref(p))
        scratch = torch.full((size,), 0xFF, dtype=torch.uint8)  # NaN, whatever is read of it unwritten
        p.scratch = scratch.data_ptr()
        if name is None:
            self.check(self.c.vts_sliding_window_attention_bwd_cuda(ctypes.byref(p), None))
        else:
            self.check(self.c.emulator_bwd(name, ctypes.byref(p)))
        return dq, dk, dv, dbias, delta


@cache
def library(*, kernels: bool = True) -> Library:
    """Everything there is for sliding-window attention, or the emulator's own test kernels alone."""
    return Library(build(kernels=kernels))
