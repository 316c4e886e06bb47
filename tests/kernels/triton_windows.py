"""Calls of the Triton kernels of sliding-window attention, and the definition's results for them.

On the GPU where there is one; else in Triton's interpreter, in the process that test_triton.py starts for it.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.kernels import definitions
from tests.kernels.triton_reads import DEVICE

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from vtsum_kernels.sliding_window_attention.triton import launch as sliding
from vtsum_kernels.triton_kit.tuning import Config

SEED = (0x1234567 << 32) | 0x89ABCDEF


class Form(NamedTuple):
    forward: Config
    backward: Config
    window: tuple[int, int]


TILE = Config("tile", 32, 64, 4, 1)
FORMS = {
    "strip": Form(Config("strip", 32, 0, 4, 1), Config("strip", 32, 0, 4, 1), (2, 1)),
    "tile": Form(TILE, TILE, (3, 2)),
    "fused": Form(TILE, Config("fused", 32, 64, 4, 1), (1, 4)),
    "wide": Form(Config("tile", 16, 32, 4, 1), Config("tile", 32, 32, 4, 1), (18, 16)),
}


def take(form: Form, monkeypatch: pytest.MonkeyPatch) -> Form:
    """The forms' sizes, small here, in place of those for real GPUs."""
    monkeypatch.setattr(sliding, "forward_candidates", lambda problem: [form.forward])
    monkeypatch.setattr(sliding, "backward_candidates", lambda problem: [form.backward])
    return form


class Inputs:
    """Random tensors for a call of the registered ops."""

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        window: tuple[int, int],
        dtype: torch.dtype,
        *,
        padding: bool = False,
        dlse: bool = False,
        bias: bool = False,
        shift: bool = False,
        ends: list[int] | None = None,
        dilation: int = 1,
        p: float = 0.0,
        transposed: bool = False,
        row_offset: int = 0,
        sinks: bool = False,
        softcap: float = 0.0,
    ) -> None:
        batch, heads, key_heads, frames, dim = shape
        self.shape, self.dtype, self.ends = shape, dtype, ends

        def tensor(count: int) -> Tensor:
            if transposed:
                return torch.randn(batch, frames, count, dim).to(dtype).transpose(1, 2)
            return torch.randn(batch, count, frames, dim).to(dtype)

        self.q, self.k, self.v, self.dout = tensor(heads), tensor(key_heads), tensor(key_heads), tensor(heads)
        self.mask = torch.rand(batch, frames) > 0.3 if padding else None
        if self.mask is not None:
            self.mask[-1, frames // 2 :] = False  # rows that see nothing
        left, right = window
        self.bias = torch.randn(heads, (2 if shift else 1) * (left + right) + 1) if bias else None
        self.dlse = torch.randn(batch, heads, frames) if dlse else None
        self.seed = torch.tensor([SEED]) if p > 0 else None
        self.options = (left, right, dilation, shift, 0.3, p, row_offset)
        self.sinks = torch.linspace(-2.0, 2.0, heads) if sinks else None
        self.softcap = softcap

    def run(self, device: str = DEVICE) -> dict[str, Tensor]:
        """out, lse and all gradients by the Triton kernels; what padded frames hold is NaN."""
        k, v = self.k, self.v
        if self.mask is not None:
            k, v = (x.masked_fill(~self.mask[:, None, :, None], torch.nan) for x in (k, v))
        ends = None if self.ends is None else torch.tensor(self.ends, dtype=torch.int32)
        q, k, v, dout, mask, ends, bias, seed, dlse, sinks = (
            None if x is None else x.to(device)
            for x in (self.q, k, v, self.dout, self.mask, ends, self.bias, self.seed, self.dlse, self.sinks)
        )
        inputs = (q, k, v, mask, ends, bias, seed)
        out, lse = sliding.forward(*inputs, *self.options, True, sinks, self.softcap)
        dq, dk, dv, dbias, delta = sliding.backward(dout, *inputs, dlse, out, lse, *self.options, sinks, self.softcap)
        found = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
        if bias is None:
            assert dbias.shape == (0,)
        else:
            found["dbias"] = dbias
        if sinks is None:
            assert delta.shape == (0,)
        else:
            found["delta"] = delta
        return {name: x.cpu() for name, x in found.items()}

    def expect(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The same by dense attention in `dtype`: float64 is the definitions. dk and dv have the query's heads."""
        left, right, dilation, shift, scale, p, row_offset = self.options
        q, k, v = (x.to(dtype, copy=True) for x in (self.q, self.k, self.v))
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        bias = None if self.bias is None else self.bias.to(dtype, copy=True)
        leaves = [x.requires_grad_() for x in (q, k, v, bias) if x is not None]
        out, lse = definitions.sliding_window_attention(
            q, k, v, left, right, scale=scale, dilation=dilation, shift=shift, ends=self.ends, key_mask=self.mask,
            bias=bias, seed=SEED if p > 0 else None, dropout_p=p, row_offset=row_offset, sinks=self.sinks,
            softcap=self.softcap,
        )  # fmt: skip
        total, delta = (out * self.dout.to(dtype)).sum(), (out.detach() * self.dout.to(dtype)).sum(-1)
        if self.dlse is not None:
            total = total + (lse.masked_fill(lse.isinf(), 0.0) * self.dlse.to(dtype)).sum()
            delta = delta - self.dlse
        grads = torch.autograd.grad(total, leaves)
        names = ("out", "lse", "dq", "dk", "dv", "dbias")
        found = dict(zip(names, (out.detach(), lse.detach(), *grads), strict=False))
        return found if self.sinks is None else found | {"delta": delta}
