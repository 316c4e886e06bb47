"""The joined product in Triton against the definition, and what is left of a faint signal in bfloat16 all the way.

See triton_reads.py for where they run.
"""

from __future__ import annotations

import math

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import triton as memory
from vtsum_kernels.memory_fuse.triton import join
from vtsum_kernels.memory_fuse.triton import launch as join_launch
from vtsum_kernels.triton_kit.tuning import Config

from tests.kernels import definitions
from tests.kernels.comparisons import hold_all
from tests.kernels.triton_reads import DEVICE, INTERPRETED, MARKS, on_device

pytestmark = MARKS
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class Join:
    """Random tensors for a joined product."""

    def __init__(
        self,
        shape: tuple[int, int, int, int],  # N, C, R, O
        dtype: torch.dtype,
        *,
        bias: bool = False,
        residual: bool = False,
        float_weights: bool = False,
        strided: bool = False,
    ) -> None:
        rows, width, slots, out_dim = shape
        self.dtype = dtype
        self.x, self.weight = torch.randn(rows, width).to(dtype), torch.randn(out_dim, width).to(dtype)
        weights = torch.softmax(torch.randn(rows, slots), -1) if slots else torch.zeros(rows, 0)
        self.weights = weights if float_weights else weights.to(dtype)
        self.bank = torch.randn(slots, out_dim).to(dtype)
        self.bias = torch.randn(out_dim).to(dtype) if bias else None
        self.residual = torch.randn(rows, out_dim).to(dtype) if residual else None
        if strided:  # weight as the first columns of a wider one, and what comes transposed
            self.weight = torch.randn(out_dim, width + 5).to(dtype)[:, :width]
            self.x = torch.randn(width, rows).to(dtype).t()
            self.weights = torch.cat((self.weights, self.weights), 1)[:, :slots]

    def check(self) -> None:
        tensors = (self.x, self.weights, self.weight, self.bank, self.bias, self.residual)
        y = join(*on_device(*tensors))
        assert y.dtype == self.dtype
        leaves = dict(zip(("x", "weights", "weight", "bank", "bias", "residual"), tensors, strict=True))
        condition = 1.0 if self.dtype == torch.float32 else 2.0
        hold_all({"y": y}, joined, leaves, {"y": torch.ones(y.shape)}, self.dtype, condition, ["y"])


def joined(
    x: Tensor, weights: Tensor, weight: Tensor, bank: Tensor, bias: Tensor | None, residual: Tensor | None
) -> dict[str, Tensor]:
    y = x @ weight.t() + weights @ bank
    y = y if bias is None else y + bias
    return {"y": y if residual is None else y + residual}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((70, 40, 50, 72), {}),
        ((33, 17, 9, 31), {"bias": True, "residual": True, "strided": True}),
        ((65, 64, 96, 128), {"bias": True, "float_weights": True}),
        ((20, 24, 40, 56), {"bias": True, "residual": True}),
        ((20, 24, 40, 56), {"residual": True, "strided": True}),
        ((20, 0, 40, 24), {"residual": True}),
        ((20, 24, 0, 24), {"bias": True}),
        ((1, 1, 1, 1), {}),
    ],
)
def test_join(shape: tuple[int, int, int, int], options: dict[str, bool], dtype: torch.dtype) -> None:
    Join(shape, dtype, **options).check()


def test_join_walks_all_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of rows in groups of eight, the last group short."""
    monkeypatch.setattr(join_launch, "join_candidates", lambda *_: [Config("tile", 16, 16, 4, 1)])
    Join((16 * 9 + 3, 20, 30, 40), torch.float32, bias=True, residual=True).check()
    assert join(
        *(torch.zeros(shape, device=DEVICE) for shape in ((0, 4), (0, 3), (5, 4), (3, 5))), None, None
    ).shape == (0, 5)


@pytest.mark.parametrize("fold", [False, True])
def test_through_the_public_op(fold: bool) -> None:
    x, residual = torch.randn(2, 30, 16, device=DEVICE), torch.randn(2, 30, 24, device=DEVICE)
    leaves = [
        torch.randn(shape, device=DEVICE, requires_grad=True)
        for shape in ((40, 16), (40, 12), (24, 28), (24,), (16, 16), ())
    ]
    keys, values, weight, bias, query_weight, scale = leaves
    x.requires_grad_()
    results = []
    for backend in ("triton", "reference"):
        y, usage = vk.memory_fuse(
            x, keys, values, weight, bias, query_weight=query_weight, scale=scale, residual=residual, num_heads=2,
            slot_mask=torch.arange(40, device=DEVICE) % 5 != 2,
            query_mask=torch.arange(60, device=DEVICE).view(2, 30) % 7 != 3,
            fold=fold, return_usage=True, backend=backend,
        )  # fmt: skip
        loss = y.square().sum() + usage.square().sum()
        results.append([y, usage, *torch.autograd.grad(loss, [x, *leaves])])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max()))
    reason = vk.explain(
        "memory_fuse", x, keys, values, weight, num_heads=2, backend="triton", query_weight=query_weight
    )
    assert "-> triton: serves this call (asked for)" in reason


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
