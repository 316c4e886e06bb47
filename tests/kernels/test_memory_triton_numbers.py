"""The Triton kernels of memory retrieval against the definition: weights, and the joined product.

On the GPU where there is one; else in Triton's interpreter, in the process that test_triton.py starts for it.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels import definitions
from tests.kernels.comparisons import hold_all
from tests.kernels.pretended_gpu import PRETENDED

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from vtsum_kernels.memory_attention import triton as memory
from vtsum_kernels.memory_attention.triton import configs
from vtsum_kernels.memory_fuse.triton import join
from vtsum_kernels.memory_fuse.triton import launch as join_launch
from vtsum_kernels.triton_kit.tuning import Config

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not PRETENDED
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
#: Sizes that no test's are multiples of.
WEIGHTS = {
    "single": Config("single", 16, 64, 4, 1),
    "double": Config("single", 16, 32, 4, 1),
    "walk": Config("walk", 16, 32, 4, 1),
}


@pytest.fixture(params=WEIGHTS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small sizes in place of those for real GPUs, with all slots in a tile and with fewer."""
    small = WEIGHTS[request.param]
    monkeypatch.setattr(configs, "weights_forward_candidates", lambda dtype, slots: [small])
    whole = WEIGHTS["single"] if small.form == "single" else small
    monkeypatch.setattr(configs, "weights_backward_candidates", lambda slots: [whole])
    monkeypatch.setattr(configs, "scores_backward_candidates", lambda *_: [Config("tile", 32, 16, 4, 1)])
    monkeypatch.setattr(configs, "block_k", lambda dtype: 16)
    return str(request.param)


class Weights:
    """Random tensors for a call of the weights' kernels."""

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],  # G, n, H, S, d
        dtype: torch.dtype,
        *,
        bias: str | None = None,
        mask: bool = False,
        gradients: str = "wlu",
        strided: bool = False,
    ) -> None:
        groups, n, heads, slots, dim = shape
        self.dtype = dtype
        self.x = torch.randn(groups, n, heads, dim).to(dtype)
        self.keys = torch.randn(groups, heads, slots, dim).to(dtype)
        if strided:
            self.x = torch.randn(n, heads, groups, dim + 3).to(dtype).permute(2, 0, 1, 3)[..., :dim]
            self.keys = torch.randn(slots, groups, heads, dim).to(dtype).permute(1, 2, 0, 3)
        self.factor = torch.rand(groups, heads, n) * 0.5
        self.bias = None
        if bias is not None:
            self.bias = torch.randn(groups if "G" in bias else 1, heads if "H" in bias else 1, slots)
            self.bias[..., 1::3] = -torch.inf
            if "0" in bias:
                self.bias[0, 0] = -torch.inf  # rows that find no slot
        self.mask = torch.rand(groups, n) > 0.3 if mask else None
        self.along = {
            "weights": torch.randn(groups, heads, n, slots).to(dtype) if "w" in gradients else None,
            "lse": torch.randn(groups, heads, n) if "l" in gradients else None,
            "usage": torch.randn(groups, heads, slots) if "u" in gradients else None,
        }

    def compute(self, x: Tensor, keys: Tensor, factor: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
        weights, lse, usage = definitions.memory_weights(x, keys, factor, bias, self.mask)
        return {"weights": weights, "lse": lse, "usage": usage}

    def run(self) -> dict[str, Tensor]:
        """What rows that the mask leaves out hold, and are asked for, is NaN."""
        x, factor, dweights, dlse = self.x, self.factor, self.along["weights"], self.along["lse"]
        if self.mask is not None:
            out = ~self.mask
            x = x.masked_fill(out[:, :, None, None], torch.nan)
            factor = factor.masked_fill(out[:, None], torch.nan)
            dweights = None if dweights is None else dweights.masked_fill(out[:, None, :, None], torch.nan)
            dlse = None if dlse is None else dlse.masked_fill(out[:, None], torch.nan)
        on_device = tuple(
            None if tensor is None else tensor.to(DEVICE)
            for tensor in (x, self.keys, factor, self.bias, self.mask, dweights, dlse, self.along["usage"])
        )
        inputs, gradients, bias = on_device[:3], on_device[5:], self.bias
        weights, lse, usage = memory.weights_forward(*on_device[:5], self.dtype)
        dx, dkeys, dfactor, dbias = memory.weights_backward(
            *gradients, weights, *inputs, on_device[4], bias is not None
        )
        found = {"weights": weights, "lse": lse, "usage": usage, "dx": dx, "dkeys": dkeys, "dfactor": dfactor}
        if bias is None:
            assert dbias.shape == (0,)
        else:
            for axis, size in enumerate(bias.shape[:2]):
                dbias = dbias.sum(axis, keepdim=True) if size == 1 else dbias
            found["dbias"] = dbias
        return found

    def check(self) -> None:
        found = self.run()
        # bfloat16 is cut off, not rounded, in the interpreter; and gradients start from weights rounded to it.
        condition = 1.0 if self.dtype == torch.float32 else 4.0
        leaves = {"x": self.x, "keys": self.keys, "factor": self.factor, "bias": self.bias}
        hold_all(found, self.compute, leaves, self.along, self.dtype, condition, list(found))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (1, 37, 1, 50, 24)},
    "weights alone": {"shape": (1, 20, 1, 33, 16), "gradients": "w"},
    "no weights": {"shape": (1, 20, 2, 33, 16), "gradients": "lu", "bias": "H"},
    "masked": {"shape": (2, 21, 2, 40, 20), "mask": True, "bias": "GH0"},
    "bias for all": {"shape": (2, 18, 2, 17, 8), "bias": "", "strided": True},
    "strided": {"shape": (2, 17, 3, 45, 33), "strided": True, "mask": True},
    "one": {"shape": (1, 1, 1, 1, 1)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_weights(form: str, options: dict[str, Any]) -> None:
    Weights(dtype=torch.float32, **options).check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(form: str, dtype: torch.dtype) -> None:
    Weights((1, 40, 2, 50, 48), dtype, bias="H", mask=True).check()


@pytest.mark.parametrize(("dtype", "slots"), [(torch.bfloat16, 40), (torch.bfloat16, 600), (torch.float32, 150)])
def test_default_sizes_of_weights(dtype: torch.dtype, slots: int) -> None:
    Weights((1, 70, 1, slots, 72), dtype, bias="H", mask=True).check()


def test_rows_and_slots_left_out_give_zeros(form: str) -> None:
    call = Weights((1, 20, 2, 30, 16), torch.float32, bias="H0", mask=True)
    assert call.mask is not None
    found, out = call.run(), ~call.mask[0]
    assert (found["weights"][0, :, out] == 0).all()
    assert (found["lse"][0, :, out] == -torch.inf).all()
    assert (found["weights"][..., 1::3] == 0).all()
    assert (found["usage"][..., 1::3] == 0).all()
    assert (found["lse"][0, 0] == -torch.inf).all()
    assert (found["weights"][0, 0] == 0).all()
    assert (found["dx"][0, out] == 0).all()
    assert (found["dx"][0, :, 0] == 0).all()
    assert (found["dfactor"][0, :, out] == 0).all()
    assert (found["dkeys"][:, :, 1::3] == 0).all()
    assert (found["dbias"][..., 1::3] == 0).all()
    torch.testing.assert_close(found["usage"][0, 1].sum().cpu(), call.mask.sum().float())


def test_weights_are_stored_in_the_dtype_asked_for() -> None:
    call = Weights((1, 20, 1, 40, 16), torch.bfloat16)
    x, keys, factor = (tensor.to(DEVICE) for tensor in (call.x, call.keys, call.factor))
    full, lse, usage = memory.weights_forward(x, keys, factor, None, None, torch.float32)
    half, *same = memory.weights_forward(x, keys, factor, None, None, torch.bfloat16)
    assert full.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert torch.equal(lse, same[0])
    assert torch.equal(usage, same[1])
    torch.testing.assert_close(half.float(), full, rtol=2**-7, atol=0)


def test_a_factor_of_zero_still_has_a_gradient(form: str) -> None:
    call = Weights((1, 20, 1, 30, 16), torch.float32)
    call.factor.zero_()
    call.check()


def test_no_rows_or_no_slots() -> None:
    for shape in ((1, 0, 2, 5, 8), (2, 3, 1, 0, 8), (0, 3, 1, 4, 8)):
        groups, n, heads, slots, dim = shape
        found = Weights(shape, torch.float32, bias="GH").run()
        assert found["weights"].shape == (groups, heads, n, slots)
        assert (found["lse"] == -torch.inf).all()
        assert found["lse"].shape == (groups, heads, n)
        assert torch.equal(found["usage"].cpu(), torch.zeros(groups, heads, slots))
        for name, expected in (("dx", (groups, n, heads, dim)), ("dkeys", (groups, heads, slots, dim))):
            assert torch.equal(found[name].cpu(), torch.zeros(expected)), name
        assert torch.equal(found["dbias"].cpu(), torch.zeros(groups, heads, slots))


def test_the_same_bits_each_time() -> None:
    call = Weights((1, 50, 1, 40, 24), torch.float32, bias="H")
    first, second = call.run(), call.run()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


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
        y = join(*(None if tensor is None else tensor.to(DEVICE) for tensor in tensors))
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
def test_through_the_public_op(form: str, fold: bool) -> None:
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
