"""Memory attention through the emulated CUDA kernels: tensors in, tensors out.

Outputs and scratch are full of NaN (or of 0xFF) beforehand. Numbers of slots, heads and so on are read off the tensors'
shapes, which are those of csrc/include/vtsum/memory_attention.h.
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_bool, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tests.emulator.build import build_memory
from tests.emulator.library import DTYPES, Emulated, pointer
from tests.kernels.comparisons import RMS_BOUND


def unset(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    if dtype.is_floating_point:
        return torch.full(shape, math.nan, dtype=dtype)
    return torch.full(shape, -1, dtype=dtype)


class SoftmaxParams(ctypes.Structure):
    """vts_memory_softmax_params."""

    _fields_ = [
        *((name, c_void_p) for name in ("scores", "weights", "factor", "slot_bias")),
        *((name, c_int64) for name in ("bias_stride_g", "bias_stride_h")),
        *((name, c_void_p) for name in ("query_mask", "lse", "usage", "dweights", "dlse", "dusage", "dscores")),
        *((name, c_void_p) for name in ("dslot_bias", "partial")),
        ("scaled", c_bool),
        *((name, c_int64) for name in "GHnS"),
        *((name, c_int32) for name in ("dtype", "weights_dtype", "dweights_dtype", "dscores_dtype")),
    ]


class WeightsParams(ctypes.Structure):
    """vts_memory_weights_params."""

    _fields_ = [
        ("x", c_void_p),
        *((f"x_stride_{d}", c_int64) for d in "gnh"),
        ("keys", c_void_p),
        *((f"keys_stride_{d}", c_int64) for d in "ghs"),
        *((name, c_void_p) for name in ("factor", "slot_bias")),
        *((name, c_int64) for name in ("bias_stride_g", "bias_stride_h")),
        *((name, c_void_p) for name in ("query_mask", "weights", "lse", "usage", "partial")),
        *((name, c_int64) for name in "GHnSd"),
        *((name, c_int32) for name in ("dtype", "weights_dtype")),
    ]


class FactorBwdParams(ctypes.Structure):
    """vts_memory_factor_bwd_params."""

    _fields_ = [
        ("x", c_void_p),
        *((f"x_stride_{d}", c_int64) for d in "gnh"),
        *((name, c_void_p) for name in ("u", "scaled", "factor", "dfactor", "query_mask")),
        *((name, c_int64) for name in "GHnd"),
        ("dtype", c_int32),
    ]


class JoinParams(ctypes.Structure):
    """vts_memory_join_params."""

    _fields_ = [
        *((name, c_void_p) for name in ("weights", "bank", "bias", "residual", "y")),
        *((name, c_int64) for name in ("N", "R", "O")),
        ("dtype", c_int32),
    ]


class GatherParams(ctypes.Structure):
    """vts_memory_gather_params."""

    _fields_ = [
        *((name, c_void_p) for name in ("weights", "index", "table")),
        *((f"table_stride_{d}", c_int64) for d in "ghs"),
        ("rows", c_void_p),
        *((f"rows_stride_{d}", c_int64) for d in "gnh"),
        *((name, c_void_p) for name in ("order", "starts")),
        *((name, c_int64) for name in "GHnkSe"),
        ("dtype", c_int32),
    ]


class TopkParams(ctypes.Structure):
    """vts_memory_topk_params."""

    _fields_ = [
        ("scores", c_void_p),
        ("scores_stride", c_int64),
        *((name, c_void_p) for name in ("factor", "slot_bias")),
        *((name, c_int64) for name in ("bias_stride_g", "bias_stride_h")),
        *((name, c_void_p) for name in ("best", "index")),
        *((name, c_int64) for name in ("row_first", "rows", "first", "slots", "G", "H", "n", "S", "k")),
        ("start", c_bool),
        ("dtype", c_int32),
    ]


def gather_params(weights: Tensor, index: Tensor, table: Tensor, rows: Tensor) -> GatherParams:
    """weights and index [G, H, n, k], table [G, H, S, e], rows [G, n, H, e]."""
    p = GatherParams(dtype=DTYPES[table.dtype])
    p.G, p.H, p.n, p.k = index.shape
    p.S, p.e = table.shape[2:]
    p.weights, p.index, p.table, p.rows = (x.data_ptr() for x in (weights, index, table, rows))
    p.table_stride_g, p.table_stride_h, p.table_stride_s = table.stride()[:3]
    p.rows_stride_g, p.rows_stride_n, p.rows_stride_h = rows.stride()[:3]
    return p


def set_bias(p: ctypes.Structure, slot_bias: Tensor | None) -> None:
    """slot_bias [G or 1, H or 1, S]."""
    if slot_bias is None:
        return
    p.slot_bias = slot_bias.data_ptr()
    p.bias_stride_g = slot_bias.stride(0) if slot_bias.shape[0] > 1 else 0
    p.bias_stride_h = slot_bias.stride(1) if slot_bias.shape[1] > 1 else 0


class Library(Emulated):
    """The kernels of memory attention."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for op in ("softmax", "weights", "scatter"):
            getattr(self.c, f"vts_memory_{op}_cuda_scratch").restype = c_int64
        self.c.vts_memory_weights_cuda_takes.restype = c_bool

    def softmax(
        self,
        scores: Tensor,
        factor: Tensor,
        slot_bias: Tensor | None = None,
        query_mask: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        in_place: bool = False,
        need_usage: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """weights, lse and usage from scores [G, H, n, S] and factor [G, H, n]."""
        p = SoftmaxParams(scaled=False, dtype=0, weights_dtype=DTYPES[dtype])
        p.G, p.H, p.n, p.S = scores.shape
        weights = scores if in_place else unset(*scores.shape, dtype=dtype)
        lse, usage = unset(*scores.shape[:3]), unset(p.G, p.H, p.S)
        p.scores, p.factor, p.query_mask = scores.data_ptr(), factor.data_ptr(), pointer(query_mask)
        p.weights, p.lse, p.usage = weights.data_ptr(), lse.data_ptr(), pointer(usage if need_usage else None)
        set_bias(p, slot_bias)
        partial = unset(self.c.vts_memory_softmax_cuda_scratch(ctypes.byref(p)) // 4)
        p.partial = partial.data_ptr()
        self.check(self.c.vts_memory_softmax_fwd_cuda(ctypes.byref(p), None))
        return weights, lse, usage

    def softmax_backward(
        self,
        dweights: Tensor | None,
        dlse: Tensor | None,
        dusage: Tensor | None,
        weights: Tensor,
        factor: Tensor | None = None,
        query_mask: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        need_bias: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """dscores [G, H, n, S], times factor where it is given, and dslot_bias [G, H, S]."""
        p = SoftmaxParams(scaled=factor is not None, dtype=0, weights_dtype=DTYPES[weights.dtype])
        p.dweights_dtype, p.dscores_dtype = p.weights_dtype, DTYPES[dtype]
        p.G, p.H, p.n, p.S = weights.shape
        dscores, dslot_bias = unset(*weights.shape, dtype=dtype), unset(p.G, p.H, p.S)
        p.weights, p.factor, p.query_mask = weights.data_ptr(), pointer(factor), pointer(query_mask)
        p.dweights, p.dlse, p.dusage = pointer(dweights), pointer(dlse), pointer(dusage)
        p.dscores, p.dslot_bias = dscores.data_ptr(), pointer(dslot_bias if need_bias else None)
        partial = unset(self.c.vts_memory_softmax_cuda_scratch(ctypes.byref(p)) // 4)
        p.partial = partial.data_ptr()
        self.check(self.c.vts_memory_softmax_bwd_cuda(ctypes.byref(p), None))
        return dscores, dslot_bias

    def weights(
        self,
        x: Tensor,
        keys: Tensor,
        factor: Tensor,
        slot_bias: Tensor | None = None,
        query_mask: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """weights, lse and usage from x [G, n, H, d] and keys [G, H, S, d]; None where the kernel does not take it."""
        p = WeightsParams(dtype=DTYPES[x.dtype], weights_dtype=DTYPES[dtype or x.dtype])
        p.G, p.n, p.H, p.d = x.shape
        p.S = keys.shape[2]
        p.x, (p.x_stride_g, p.x_stride_n, p.x_stride_h) = x.data_ptr(), x.stride()[:3]
        p.keys, (p.keys_stride_g, p.keys_stride_h, p.keys_stride_s) = keys.data_ptr(), keys.stride()[:3]
        weights = unset(p.G, p.H, p.n, p.S, dtype=dtype or x.dtype)
        lse, usage = unset(p.G, p.H, p.n), unset(p.G, p.H, p.S)
        p.factor, p.query_mask = factor.data_ptr(), pointer(query_mask)
        p.weights, p.lse, p.usage = weights.data_ptr(), lse.data_ptr(), usage.data_ptr()
        set_bias(p, slot_bias)
        if not self.c.vts_memory_weights_cuda_takes(ctypes.byref(p)):
            return None
        partial = unset(self.c.vts_memory_weights_cuda_scratch(ctypes.byref(p)) // 4)
        p.partial = partial.data_ptr()
        self.check(self.c.vts_memory_weights_fwd_cuda(ctypes.byref(p), None))
        return weights, lse, usage

    def factor_backward(
        self, x: Tensor, u: Tensor, factor: Tensor, query_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dfactor [G, H, n] and factor x, from x and u [G, n, H, d]."""
        p = FactorBwdParams(dtype=DTYPES[x.dtype])
        p.G, p.n, p.H, p.d = x.shape
        p.x, (p.x_stride_g, p.x_stride_n, p.x_stride_h) = x.data_ptr(), x.stride()[:3]
        dx, dfactor, scaled = u.clone(), unset(p.G, p.H, p.n), unset(*x.shape, dtype=x.dtype)
        p.u, p.dfactor, p.scaled = dx.data_ptr(), dfactor.data_ptr(), scaled.data_ptr()
        p.factor, p.query_mask = factor.data_ptr(), pointer(query_mask)
        self.check(self.c.vts_memory_factor_bwd_cuda(ctypes.byref(p), None))
        return dx, dfactor, scaled

    def add(self, total: Tensor, term: Tensor) -> None:
        pointers = c_void_p(total.data_ptr()), c_void_p(term.data_ptr())
        self.check(self.c.vts_memory_add_cuda(*pointers, c_int64(total.numel()), None))

    def join(self, weights: Tensor, bank: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
        """weights bank + bias + residual [N, O]."""
        y = unset(*residual.shape, dtype=residual.dtype)
        p = JoinParams(N=weights.shape[0], R=bank.shape[0], O=bank.shape[1], dtype=DTYPES[y.dtype], y=y.data_ptr())
        p.weights, p.bank, p.residual, p.bias = map(pointer, (weights, bank, residual, bias))
        self.check(self.c.vts_memory_join_cuda(ctypes.byref(p), None))
        return y

    def topk(
        self, scores: Tensor, factor: Tensor, slot_bias: Tensor | None, k: int, blocks: list[int], row_block: int = 1000
    ) -> tuple[Tensor, Tensor]:
        """The k best of scores [G, H, n, S], some slots at a time and row_block rows at a time."""
        p = TopkParams(dtype=0, k=k)
        p.G, p.H, p.n, p.S = scores.shape
        best, index = unset(*scores.shape[:3], k), unset(*scores.shape[:3], k, dtype=torch.int32)
        p.factor, p.best, p.index = factor.data_ptr(), best.data_ptr(), index.data_ptr()
        set_bias(p, slot_bias)
        flat = scores.flatten(0, 2)
        for p.row_first in range(0, flat.shape[0], row_block):
            p.first, p.start = 0, True
            for p.slots in blocks:
                part = flat[p.row_first : p.row_first + row_block, p.first : p.first + p.slots].clone()
                p.rows, p.scores, p.scores_stride = part.shape[0], part.data_ptr(), part.stride(0)
                self.check(self.c.vts_memory_topk_merge_cuda(ctypes.byref(p), None))
                p.first, p.start = p.first + p.slots, False
        return best, index

    def gather(self, weights: Tensor, index: Tensor, table: Tensor) -> Tensor:
        groups, heads, frames, _ = index.shape
        rows = unset(groups, frames, heads, table.shape[3], dtype=table.dtype)
        p = gather_params(weights, index, table, rows)
        self.check(self.c.vts_memory_gather_cuda(ctypes.byref(p), None))
        return rows

    def gather_dot(self, rows: Tensor, index: Tensor, table: Tensor) -> Tensor:
        weights = unset(*index.shape)
        p = gather_params(weights, index, table, rows)
        self.check(self.c.vts_memory_gather_dot_cuda(ctypes.byref(p), None))
        return weights

    def scatter(self, weights: Tensor, index: Tensor, rows: Tensor, slots: int) -> Tensor:
        groups, _, heads, width = rows.shape
        table = unset(groups, heads, slots, width, dtype=rows.dtype)
        p = gather_params(weights, index, table, rows)
        scratch = torch.full((self.c.vts_memory_scatter_cuda_scratch(ctypes.byref(p)),), 0xFF, dtype=torch.uint8)
        self.check(self.c.vts_memory_scatter_cuda(ctypes.byref(p), c_void_p(scratch.data_ptr()), None))
        return table


@cache
def library(*, sanitized: bool = False) -> Library:
    return Library(build_memory(sanitized=sanitized))


def rms_ratio(got: Tensor, exact: Tensor) -> float:
    """The error's root mean square over the exact numbers'; where those are not finite, both must be the same."""
    got, exact = got.double(), exact.double()
    finite = exact.isfinite()
    assert torch.equal(got[~finite], exact[~finite])
    error = (got - exact)[finite].square().sum().sqrt()
    return float(error / exact[finite].square().sum().sqrt().clamp_min(1e-30))


def close(name: str, got: Tensor, exact: Tensor, limit: float | None = None) -> None:
    assert got.shape == exact.shape, (name, got.shape, exact.shape)
    assert not got.isnan().any(), name
    ratio = rms_ratio(got, exact)
    print(f"{name}: {ratio:.1e}")
    assert ratio <= (RMS_BOUND[got.dtype] if limit is None else limit), (name, ratio)
