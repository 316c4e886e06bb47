"""Flash attention over slots in Triton against the definition, and what is left of a faint signal in bfloat16.

On the GPU where there is one; else in Triton's interpreter, in the process that test_triton.py starts for it.
"""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan

from tests.kernels import definitions
from tests.kernels.comparisons import hold_all
from tests.kernels.pretended_gpu import PRETENDED

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from vtsum_kernels.memory_attention import triton as memory
from vtsum_kernels.memory_attention.triton import configs, flash_launch
from vtsum_kernels.memory_fuse.triton import join
from vtsum_kernels.triton_kit.tuning import Config

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not PRETENDED
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that a test's sizes span several of, and rows cut into chunks of few."""
    monkeypatch.setattr(configs, "flash_forward_candidates", lambda *_: [Config("tile", 16, 32, 4, 1)])
    monkeypatch.setattr(configs, "usage_candidates", lambda *_: [Config("tile", 32, 16, 4, 1)])
    monkeypatch.setattr(configs, "flash_backward_candidates", lambda *_: [Config("tile", 16, 16, 4, 1)])
    monkeypatch.setattr(flash_launch, "ENOUGH_PROGRAMS", 12)


class Flash:
    """Random tensors for a call."""

    def __init__(
        self,
        shape: tuple[int, int, int, int, int, int],  # G, n, H, S, d, e
        dtype: torch.dtype,
        *,
        bias: str | None = None,
        mask: bool = False,
        gradients: str = "lu",
        strided: bool = False,
    ) -> None:
        groups, n, heads, slots, dim, value_dim = shape
        self.dtype = dtype
        self.x = torch.randn(groups, n, heads, dim).to(dtype)
        self.keys, self.values = (torch.randn(groups, heads, slots, width).to(dtype) for width in (dim, value_dim))
        if strided:  # heads first, and a bank as one matrix of all heads
            self.x = torch.randn(groups, heads, n, dim + 2).to(dtype).transpose(1, 2)[..., :dim]
            self.keys = torch.randn(groups, slots, heads * dim).to(dtype).unflatten(2, (heads, dim)).transpose(1, 2)
            self.values = torch.randn(groups, heads, value_dim, slots).to(dtype).transpose(2, 3)
        self.factor = torch.rand(groups, heads, n) * 0.5
        self.bias = None
        if bias is not None:
            self.bias = torch.randn(groups if "G" in bias else 1, heads if "H" in bias else 1, slots)
            self.bias[..., ::4] = -torch.inf
            if "0" in bias:
                self.bias[0, 0] = -torch.inf
        self.mask = torch.rand(groups, n) > 0.3 if mask else None
        self.dout = torch.randn(groups, n, heads, value_dim).to(dtype)
        self.along = {
            "out": self.dout,
            "lse": torch.randn(groups, heads, n) if "l" in gradients else None,
            "usage": torch.randn(groups, heads, slots) if "u" in gradients else None,
        }

    def compute(
        self, x: Tensor, keys: Tensor, values: Tensor, factor: Tensor, bias: Tensor | None
    ) -> dict[str, Tensor]:
        weights, lse, usage = definitions.memory_weights(x, keys, factor, bias, self.mask)
        return {"out": torch.einsum("ghns,ghse->gnhe", weights, values), "lse": lse, "usage": usage}

    def run(self) -> dict[str, Tensor]:
        x, factor, dout, dlse = self.x, self.factor, self.dout, self.along["lse"]
        if self.mask is not None:
            out = ~self.mask
            x, dout = (tensor.masked_fill(out[:, :, None, None], torch.nan) for tensor in (x, dout))
            factor = factor.masked_fill(out[:, None], torch.nan)
            dlse = None if dlse is None else dlse.masked_fill(out[:, None], torch.nan)
        on_device = tuple(
            None if tensor is None else tensor.to(DEVICE)
            for tensor in (x, self.keys, self.values, factor, self.bias, self.mask, dout, dlse, self.along["usage"])
        )
        inputs, gradients, bias = on_device[:6], on_device[6:], self.bias
        out, lse, usage = memory.flash_forward(*inputs, True)
        dx, dkeys, dvalues, dfactor, dbias = memory.flash_backward(*gradients, *inputs, out, lse)
        found = {"out": out, "lse": lse, "usage": usage}
        found |= {"dx": dx, "dkeys": dkeys, "dvalues": dvalues, "dfactor": dfactor}
        if bias is None:
            assert torch.equal(dbias.cpu(), torch.zeros(lse.shape[0], lse.shape[1], self.keys.shape[2]))
        else:
            for axis, size in enumerate(bias.shape[:2]):
                dbias = dbias.sum(axis, keepdim=True) if size == 1 else dbias
            found["dbias"] = dbias
        return found

    def check(self) -> None:
        found = self.run()
        leaves = {"x": self.x, "keys": self.keys, "values": self.values, "factor": self.factor, "bias": self.bias}
        condition = 1.0 if self.dtype == torch.float32 else 4.0
        hold_all(found, self.compute, leaves, self.along, self.dtype, condition, list(found))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (1, 37, 1, 70, 24, 16), "gradients": ""},
    "all": {"shape": (2, 21, 2, 40, 20, 33), "mask": True, "bias": "GH0", "strided": True},
    "usage": {"shape": (1, 19, 2, 35, 8, 8), "gradients": "u", "bias": ""},
    "whole blocks": {"shape": (1, 32, 1, 64, 16, 16), "gradients": "l", "mask": True},
    "chunks": {"shape": (1, 150, 1, 30, 16, 8), "bias": "H"},
    "one": {"shape": (1, 1, 1, 1, 1, 1)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_flash(small: None, options: dict[str, Any]) -> None:
    Flash(dtype=torch.float32, **options).check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flash_in_half_precision(small: None, dtype: torch.dtype) -> None:
    Flash((1, 70, 2, 50, 32, 24), dtype, bias="H", mask=True).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_default_sizes_of_flash(dtype: torch.dtype) -> None:
    Flash((1, 70, 1, 150, 40, 40), dtype, bias="H", mask=True).check()


def test_through_the_public_op(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "keeps_weights", lambda *_: False)
    x, keys, values = (torch.randn(size, 32, device=DEVICE, requires_grad=True) for size in (50, 40, 40))
    bias = torch.randn(2, 40, device=DEVICE, requires_grad=True)
    mask = torch.rand(50, device=DEVICE) > 0.3
    results = []
    for backend in ("triton", "reference"):
        out, lse, usage = vk.memory_attention(
            x, keys, values, num_heads=2, normalize=True, scale=5.0, slot_bias=bias, query_mask=mask, return_lse=True,
            return_usage=True, backend=backend,
        )  # fmt: skip
        loss = out.square().sum() + lse.masked_fill(lse.isinf(), 0.0).sum() + usage.square().sum()
        results.append([out, usage, *torch.autograd.grad(loss, (x, keys, values, bias))])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-5)


def test_rows_and_slots_left_out_give_zeros(small: None) -> None:
    call = Flash((1, 30, 2, 50, 16, 16), torch.bfloat16, bias="H0", mask=True)
    assert call.mask is not None
    found, out = call.run(), ~call.mask[0]
    assert (found["out"][0, out] == 0).all()
    assert (found["out"][0, :, 0] == 0).all()
    assert (found["lse"][0, :, out] == -torch.inf).all()
    assert (found["lse"][0, 0] == -torch.inf).all()
    assert (found["dx"][0, out] == 0).all()
    assert (found["dfactor"][0, :, out] == 0).all()
    for name in ("dkeys", "dvalues"):
        assert (found[name][:, :, ::4] == 0).all(), name
        assert (found[name][:, 0] == 0).all(), name
        assert (found[name][:, 1, 1::4] != 0).any(), name
    assert (found["usage"][..., ::4] == 0).all()
    assert (found["dbias"][..., ::4] == 0).all()
    torch.testing.assert_close(found["usage"][0, 1].sum().cpu(), call.mask.sum().float(), rtol=1e-3, atol=0)


def test_no_rows_or_no_slots() -> None:
    for shape in ((1, 0, 2, 5, 8, 4), (2, 3, 1, 0, 8, 4), (0, 3, 1, 4, 8, 4)):
        call = Flash(shape, torch.float32, bias="GH")
        found, bias_shape = call.run(), (shape[0], shape[2], shape[3])
        shapes = {"out": call.dout.shape, "dx": call.x.shape, "dvalues": call.values.shape, "dbias": bias_shape}
        for name, size in shapes.items():
            assert torch.equal(found[name].cpu(), torch.zeros(size)), name
        assert (found["lse"] == -torch.inf).all()
    assert memory.flash_forward(
        *(x.to(DEVICE) for x in (call.x, call.keys, call.values, call.factor)), None, None, False
    )[2].shape == (0,)


def test_the_same_bits_each_time(small: None) -> None:
    call = Flash((1, 40, 1, 40, 16, 16), torch.float32, bias="H")
    first, second = call.run(), call.run()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(
    ("rows", "block", "programs"), [(16384, 64, 3), (16384, 64, 1), (100, 64, 1), (1, 16, 500), (4097, 32, 100)]
)
def test_rows_are_cut_into_whole_blocks(rows: int, block: int, programs: int) -> None:
    chunks, size = flash_launch.cut(rows, block, programs)
    assert size % block == 0
    assert (chunks - 1) * size < rows <= chunks * size
    assert chunks == 1 or programs * (chunks - 1) < flash_launch.ENOUGH_PROGRAMS
    if rows >= 4 * block and 4 * programs < flash_launch.ENOUGH_PROGRAMS:
        assert programs * chunks >= min(flash_launch.ENOUGH_PROGRAMS // 2, programs * (rows // block // 8))


def test_sums_of_blocks() -> None:
    values = torch.randn(2, 3, 70, 5)
    sums = flash_launch.block_sums(values, 32)
    for block, (first, last) in enumerate(((0, 32), (32, 64), (64, 70))):
        torch.testing.assert_close(sums[:, :, block], values[:, :, first:last].sum(2))
    assert sums.shape == (2, 3, 3, 5)
    assert flash_launch.block_sums(values[:, :, :64], 32).shape == (2, 3, 2, 5)


class Faint:
    """The published model's scale in bfloat16: cosine over sqrt(768), 512 slots, so that all weights are nearly 1/512.

    The signal is what depends on the frame: weights less 1/512, and what these read. Values of mean 1 bury it deeper.
    """

    rows, slots, dim = 40, 512, 768

    def __init__(self) -> None:
        self.x = torch.randn(1, self.rows, 1, self.dim).bfloat16()
        keys = torch.nn.functional.normalize(torch.randn(1, 1, self.slots, self.dim), dim=-1)
        self.keys = keys.bfloat16()
        self.values = (1.0 + torch.randn(1, 1, self.slots, 64)).bfloat16()
        self.factor = 1 / math.sqrt(self.dim) / self.x.float().norm(dim=-1).transpose(1, 2)
        self.weights, _, _ = definitions.memory_weights(
            self.x.double(), self.keys.double(), self.factor.double(), None, None
        )
        self.signal = self.weights - 1 / self.slots
        assert self.signal.norm() < 0.01 * self.weights.norm()


def share(error: Tensor, signal: Tensor) -> float:
    return float(error.norm() / signal.norm())


def test_a_faint_signal_is_in_the_weights() -> None:
    faint = Faint()
    x, keys, factor = (tensor.to(DEVICE) for tensor in (faint.x, faint.keys, faint.factor))
    full, half = (
        memory.weights_forward(x, keys, factor, None, None, dtype)[0].cpu() for dtype in (torch.float32, torch.bfloat16)
    )
    assert share(full.double() - faint.weights, faint.signal) < 1e-3
    assert share(half.double() - faint.weights, faint.signal) > 0.1  # why the former exists


def test_a_faint_signal_passes_through_the_join() -> None:
    """Weights of float32 beside a bfloat16 bank. The bias takes off the mean, so that rounding y leaves the signal."""
    faint = Faint()
    bank = faint.values[0, 0]
    mean = bank.double().mean(0)
    signal = faint.signal[0, 0] @ bank.double()
    x, weight = torch.zeros(faint.rows, 8).bfloat16(), torch.zeros(64, 8).bfloat16()
    y = [
        join(*(tensor.to(DEVICE) for tensor in (x, weights, weight, bank, -mean.float())), None).cpu()
        for weights in (faint.weights[0, 0].float(), faint.weights[0, 0].bfloat16())
    ]
    assert y[0].dtype == torch.bfloat16
    assert share(y[0].double() - signal, signal) < (0.1 if INTERPRETED else 0.01)  # it cuts off, and does not round
    assert share(y[1].double() - signal, signal) > 0.1


def test_a_faint_signal_passes_through_flash() -> None:
    """Values whose mean over all slots is 0 up to their rounding: what is read is the signal and little else."""
    faint = Faint()
    values = (faint.values.double() - faint.values.double().mean(2, keepdim=True)).bfloat16()
    x, keys = (tensor.bfloat16() for tensor in (faint.x[..., :256], faint.keys[..., :256]))
    factor = faint.factor
    weights, _, _ = definitions.memory_weights(x.double(), keys.double(), factor.double(), None, None)
    expected = torch.einsum("ghns,ghse->gnhe", weights, values.double())
    signal = torch.einsum("ghns,ghse->gnhe", weights - 1 / faint.slots, values.double())
    inputs = [tensor.to(DEVICE) for tensor in (x, keys, values, factor)]
    out, lse, _ = memory.flash_forward(*inputs, None, None, False)
    assert share(out.cpu().double() - expected, signal) < (0.05 if INTERPRETED else 0.02)
    dout = torch.randn(out.shape)  # of mean 0 over the frames, for the same reason
    dout = (dout - dout.mean(1, keepdim=True)).bfloat16()
    dvalues = memory.flash_backward(dout.to(DEVICE), None, None, *inputs, None, None, out, lse)[2]
    exact = torch.einsum("ghns,gnhe->ghse", weights, dout.double())
    signal = exact - exact.mean(2, keepdim=True)
    assert share(dvalues.cpu().double() - exact, signal) < (0.05 if INTERPRETED else 0.02)
