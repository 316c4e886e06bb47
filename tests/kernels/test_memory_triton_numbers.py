"""The Triton kernels that read a memory against the definition: weights of all slots, and flash attention over them.

See triton_reads.py for where they run.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels.memory_attention import plan
from vtsum_kernels.memory_attention import triton as memory
from vtsum_kernels.memory_attention.triton import configs, flash_launch
from vtsum_kernels.triton_kit.tuning import Config

from tests.kernels.triton_reads import DEVICE, MARKS, Read

pytestmark = MARKS
#: Sizes that a test's span several of, and no test's are multiples of; all slots in a tile of the weights', or fewer.
FORMS = {
    "single": Config("single", 16, 64, 4, 1),
    "double": Config("single", 16, 32, 4, 1),
    "walk": Config("walk", 16, 32, 4, 1),
    "flash": None,
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small sizes in place of those for real GPUs; with "flash", rows cut into chunks of few."""
    small = FORMS[request.param]
    if small is None:
        monkeypatch.setattr(configs, "flash_forward_candidates", lambda *_: [Config("tile", 16, 32, 4, 1)])
        monkeypatch.setattr(configs, "usage_candidates", lambda *_: [Config("tile", 32, 16, 4, 1)])
        monkeypatch.setattr(configs, "flash_rows_candidates", lambda *_: [Config("tile", 32, 16, 4, 1)])
        sizes = [Config("tile", 16, 16, 4, 1), Config("tile", 32, 16, 4, 1)]  # dout is summed over the fewest rows
        monkeypatch.setattr(configs, "flash_slots_candidates", lambda *_: sizes[::-1])
        monkeypatch.setattr(flash_launch, "ENOUGH_PROGRAMS", 12)
        return str(request.param)
    whole = FORMS["single"] if small.form == "single" else small
    monkeypatch.setattr(configs, "weights_forward_candidates", lambda dtype, slots: [small])
    monkeypatch.setattr(configs, "weights_backward_candidates", lambda slots: [whole])
    monkeypatch.setattr(configs, "scores_backward_candidates", lambda *_: [Config("tile", 32, 16, 4, 1)])
    monkeypatch.setattr(configs, "block_k", lambda dtype: 16)
    return str(request.param)


def of(form: str, width: int = 16) -> dict[str, Any]:
    """The width of the values, where the form reads them."""
    return {"width": width} if form == "flash" else {}


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (1, 37, 1, 50, 24)},
    "first alone": {"shape": (1, 20, 1, 33, 16), "gradients": "w"},
    "lse and usage": {"shape": (1, 20, 2, 33, 16), "gradients": "lu", "bias": "H"},
    "masked": {"shape": (2, 21, 2, 40, 20), "mask": True, "bias": "GH0"},
    "bias for all": {"shape": (2, 18, 2, 17, 8), "bias": "", "gradients": "u"},
    "strided": {"shape": (2, 17, 2, 33, 17), "strided": True, "mask": True},
    "whole blocks": {"shape": (1, 32, 1, 64, 16), "gradients": "wl", "mask": True},
    "steps of eight": {"shape": (2, 20, 2, 40, 24), "bias": "GH", "mask": True},
    "chunks": {"shape": (1, 150, 1, 30, 16), "bias": "H"},
    "one": {"shape": (1, 1, 1, 1, 1)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_each_form_with_each_option(form: str, options: dict[str, Any]) -> None:
    Read(dtype=torch.float32, **options, **of(form, 33)).check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(form: str, dtype: torch.dtype) -> None:
    Read((1, 40, 2, 50, 48), dtype, bias="H", mask=True, **of(form, 24)).check()


@pytest.mark.parametrize(
    ("dtype", "slots", "dim", "width"),
    [
        (torch.bfloat16, 40, 72, None),
        (torch.bfloat16, 600, 72, None),
        (torch.float32, 150, 72, None),
        (torch.float32, 150, 40, 40),
        (torch.bfloat16, 150, 40, 40),
    ],
)
def test_default_sizes(dtype: torch.dtype, slots: int, dim: int, width: int | None) -> None:
    Read((1, 70, 1, slots, dim), dtype, bias="H", mask=True, width=width).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"bias": "H", "mask": True}], ids=["plain", "bias and mask"])
@pytest.mark.parametrize("slots", [1000, 1024, 4096])
def test_many_slots(slots: int, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """With the default sizes, from the number of slots on that flash attention serves."""
    Read((1, 20, 1, slots, 64), dtype, width=64, **options).check()


@pytest.mark.parametrize("slots", [64, 50])
def test_factors_of_any_sign(slots: int) -> None:
    """Without a bias the running maximum is of products: of those turned round, and of those that count for nothing."""
    call = Read((1, 40, 2, slots, 48), torch.bfloat16, width=24, mask=True)
    call.factor *= torch.tensor([1.0, -1.0, 0.0, -8.0]).repeat(10)
    call.check()


def test_rows_and_slots_left_out_give_zeros(form: str) -> None:
    call = Read((1, 20, 2, 30, 16), torch.float32, bias="H0", mask=True, **of(form))
    assert call.mask is not None
    found, out = call.run(), ~call.mask[0]
    assert (found["lse"][0, :, out] == -torch.inf).all()
    assert (found["lse"][0, 0] == -torch.inf).all()
    zeros = [found[name][..., 1::3] for name in ("usage", "dbias")]
    zeros += [found["dx"][0, out], found["dx"][0, :, 0], found["dfactor"][0, :, out], found["dkeys"][:, :, 1::3]]
    if form == "flash":
        zeros += [found["out"][0, out], found["out"][0, :, 0], found["dvalues"][:, :, 1::3], found["dvalues"][:, 0]]
    else:
        zeros += [found["weights"][0, :, out], found["weights"][..., 1::3], found["weights"][0, 0]]
    assert not any(part.any() for part in zeros)
    assert found["dkeys"][:, 1, 2::3].any()
    torch.testing.assert_close(found["usage"][0, 1].sum(), call.mask.sum().float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [None, 4])
def test_no_rows_or_no_slots(width: int | None, dtype: torch.dtype) -> None:
    for shape in ((1, 0, 2, 5, 8), (2, 3, 1, 0, 8), (0, 3, 1, 4, 8)):
        call = Read(shape, dtype, bias="GH", width=width)
        found = call.run()
        assert (found["lse"] == -torch.inf).all()
        wanted = {"dx": call.x, "dkeys": call.keys, "usage": call.along["usage"], "dbias": call.bias}
        wanted |= {"weights": call.along["weights"]} if width is None else {"out": call.along["out"]}
        wanted |= {} if width is None else {"dvalues": call.values}
        for name, like in wanted.items():
            assert found[name].shape == like.shape, name
            assert not found[name].any(), name


def test_weights_are_stored_in_the_dtype_asked_for() -> None:
    call = Read((1, 20, 1, 40, 16), torch.bfloat16)
    x, keys, factor = (tensor.to(DEVICE) for tensor in (call.x, call.keys, call.factor))
    full, lse, usage = memory.weights_forward(x, keys, factor, None, None, torch.float32)
    half, *same = memory.weights_forward(x, keys, factor, None, None, torch.bfloat16)
    assert full.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert torch.equal(lse, same[0])
    assert torch.equal(usage, same[1])
    torch.testing.assert_close(half.float(), full, rtol=2**-7, atol=0)


def test_a_factor_of_zero_still_has_a_gradient(form: str) -> None:
    call = Read((1, 20, 1, 30, 16), torch.float32, **of(form))
    call.factor.zero_()
    call.check()


@pytest.mark.gpu  # the interpreter runs one program after the other
def test_the_same_bits_each_time(form: str) -> None:
    call = Read((1, 40, 1, 40, 24), torch.float32, bias="H", **of(form))
    first, second = call.run(), call.run()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_through_the_public_op(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("keeps", [True, False])
def test_rows_and_keys_without_direction(keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of zeros: the slope at 0, 1e12, is more than float16 holds."""
    monkeypatch.setattr(plan, "keeps_weights", lambda *_: keeps)
    inputs = [torch.randn(size, 16, device=DEVICE).half() for size in (20, 18)]
    inputs[0][3::5], inputs[1][4] = 0.0, 0.0
    results = []
    for backend, dtype in (("triton", torch.float16), ("reference", torch.float64)):
        x, keys = (t.to(dtype).requires_grad_() for t in inputs)
        values = torch.linspace(-1, 1, 18 * 16, device=DEVICE).view(18, 16).to(dtype)
        out, lse = vk.memory_attention(
            x, keys, values, num_heads=2, normalize=True, scale=5.0, return_lse=True, backend=backend
        )
        results.append([out, lse, *torch.autograd.grad(out.sum() + lse.sum(), (x, keys))])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=1e-2)
    assert not results[0][2][3::5].any()
    assert not results[0][3][4].any()


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
