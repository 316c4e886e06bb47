"""The ops' CUDA glue over emulated kernels, on tensors on the CPU, against the same ops' forms there in float64.

Only torch's own products on a GPU are left out of what a call on CUDA runs.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels import library
from vtsum_kernels.memory_attention.read import factor_of
from vtsum_kernels.memory_attention.reference import unit

from tests.emulator.memory import close
from tests.kernels.comparisons import RMS_BOUND
from tests.kernels.definitions import directed, memory_weights

OPS = ("weights_fwd", "weights_bwd", "flash_fwd", "flash_bwd", "join_fwd", "topk", "gather", "gather_dot", "scatter")
SHAPES = [  # G, n, H, S, d, e, groups of the bias
    (1, 37, 1, 72, 24, 16, 1),
    (1, 37, 3, 70, 24, 16, 1),
    (2, 11, 1, 33, 16, 8, 2),
    (3, 7, 2, 40, 13, 5, 1),
    (2, 21, 5, 24, 16, 8, 1),
]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


class Both:
    """Calls an op emulated and exactly; `check` compares all their results."""

    def __init__(self, emulated: Any, limit: float) -> None:
        self.emulated, self.limit = emulated, limit

    def check(self, op: str, *arguments: Any, exact: tuple[Any, ...] = (), slack: float = 1.0) -> Any:
        """`exact`: arguments for the exact call where they differ from the emulated one's."""
        got = getattr(self.emulated, f"memory_{op}")(*arguments)
        theirs = [wide(x) for x in (exact or arguments)]
        theirs = [torch.float64 if isinstance(x, torch.dtype) else x for x in theirs]
        wanted = getattr(torch.ops.vtsum_kernels, f"memory_{op}")(*theirs)
        pairs = [(got, wanted)] if isinstance(got, Tensor) else zip(got, wanted, strict=True)
        for n, (mine, other) in enumerate(pairs):
            if mine.is_floating_point():
                close(f"{op} {n}", mine, other, self.limit * slack)
            else:
                assert torch.equal(mine, other), op
        return got


@pytest.mark.skipif(library.refusal("_cpu") is not None, reason="the CPU forms to compare with are not built")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ops(emulated: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    groups, frames, heads, slots, width, out_width, bias_groups = shape
    both = Both(emulated, RMS_BOUND[dtype])
    x, keys = torch.randn(groups, frames, heads, width).to(dtype), torch.randn(groups, heads, slots, width).to(dtype)
    values, dout = torch.randn(groups, heads, slots, out_width), torch.randn(groups, frames, heads, out_width)
    values, dout = values.to(dtype), dout.to(dtype)
    factor, bias = torch.rand(groups, heads, frames) / 2, torch.randn(bias_groups, heads, slots)
    factor[0, 0, 0], bias[..., 3] = 0.0, -math.inf
    mask = torch.rand(groups, frames) > 0.3
    x[~mask] = 0.0
    bank = (x, keys, factor, bias, mask)

    weights, lse, usage = both.check("weights_fwd", *bank, dtype)
    both.check("weights_fwd", x, keys, factor, None, None, torch.float32)
    dweights, dlse, dusage = torch.randn(weights.shape).to(dtype), torch.randn(lse.shape), torch.randn(usage.shape)
    rest = (weights, x, keys, factor, mask)
    both.check("weights_bwd", dweights, dlse, dusage, *rest, True, slack=2)
    assert both.check("weights_bwd", dweights, None, None, *rest, False, slack=2)[3].numel() == 0

    out, lse, _ = both.check("flash_fwd", x, keys, values, factor, bias, mask, True)
    gradients = (dout, dlse, dusage, x, keys, values, factor, bias, mask)
    exact_out, exact_lse, _ = torch.ops.vtsum_kernels.memory_flash_fwd(
        *map(wide, (x, keys, values, factor, bias, mask)), True
    )
    both.check("flash_bwd", *gradients, out, lse, exact=(*gradients, exact_out, exact_lse), slack=2)

    best, index = emulated.memory_topk(x, keys, factor, bias, 9)
    exact_best, _ = torch.ops.vtsum_kernels.memory_topk(*map(wide, (x, keys, factor, bias)), 9)
    close("topk", best, exact_best, 1e-5)
    # What was chosen has the scores it was chosen for: another slot than the exact one only where both score alike.
    chosen = torch.ops.vtsum_kernels.memory_gather_dot(wide(x), index, wide(keys)) * factor[..., None]
    chosen += bias.expand(groups, heads, slots)[:, :, None].expand(-1, -1, frames, -1).gather(3, index.long())
    close("topk", chosen, exact_best, 1e-5)
    shares = torch.randn(index.shape)
    both.check("gather", shares, index, values)
    both.check("gather_dot", x, index, keys)
    both.check("scatter", shares, index, dout, slots)
    ones = torch.ones(1, 1, 1, 1).expand(groups, frames, heads, 1)
    both.check("scatter", shares, index, ones, slots)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["weights", "flash"])
def test_rows_and_keys_without_direction(emulated: Any, op: str, dtype: torch.dtype) -> None:
    """A cosine as the package asks for it, norms and all: rows and keys of zeros have no gradient."""
    torch.manual_seed(0)
    x, keys, values = (torch.randn(s).to(dtype) for s in ((1, 12, 2, 16), (1, 2, 24, 16), (1, 2, 24, 8)))
    x[0, 3::4], keys[0, :, 5] = 0.0, 0.0
    dout, dlse = torch.randn(1, 12, 2, 8).to(dtype), torch.randn(1, 2, 12)
    x.requires_grad_()
    keys.requires_grad_()
    factor, ready = factor_of(x, 4.0, True), unit(keys)
    bank = (x.detach(), ready.detach(), factor.detach())
    if op == "weights":
        weights, lse, _ = emulated.memory_weights_fwd(*bank, None, None, dtype)
        out = (weights.float() @ values.float()).transpose(1, 2)
        dweights = (dout.transpose(1, 2) @ values.transpose(2, 3)).to(dtype)
        dx, dkeys, dfactor, _ = emulated.memory_weights_bwd(dweights, dlse, None, weights, *bank, None, False)
    else:
        out, lse, _ = emulated.memory_flash_fwd(*bank[:2], values, bank[2], None, None, False)
        gradients = (dout, dlse, None, *bank[:2], values, bank[2], None, None, out, lse)
        dx, dkeys, _, dfactor, _ = emulated.memory_flash_bwd(*gradients)
    found = torch.autograd.grad([x, factor, ready], [x, keys], [dx, dfactor, dkeys])

    exact = [t.detach().double().requires_grad_() for t in (x, keys)]
    queries, bank_there = directed(exact[0]), directed(exact[1])
    wanted_weights, wanted_lse, _ = memory_weights(
        queries, bank_there, torch.full((1, 2, 12), 4.0, dtype=torch.float64)
    )
    wanted_out = torch.einsum("ghns,ghse->gnhe", wanted_weights, values.double())
    wanted = torch.autograd.grad([wanted_out, wanted_lse], exact, [dout.double(), dlse.double()])
    mine, theirs = (out, lse, *found), (wanted_out, wanted_lse, *wanted)
    for name, got, right in zip(("out", "lse", "dx", "dkeys"), mine, theirs, strict=True):
        close(name, got, right, 2 * RMS_BOUND[dtype])
    assert not found[0][0, 3::4].any()
    assert not found[1][0, :, 5].any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("frames", "slots", "width"),
    [(20, 12, 10), (20, 8, 16), (1, 64, 64), (64, 64, 136), (65, 72, 8), (150, 256, 72), (150, 264, 72)],
)
def test_join(emulated: Any, frames: int, slots: int, width: int, dtype: torch.dtype) -> None:
    """By a kernel of our own, of 16 bits with a residual and up to 256 slots, or by a BLAS."""
    torch.manual_seed(0)
    both = Both(emulated, RMS_BOUND[dtype])
    shapes = ((frames, 16), (frames, slots), (width, 16), (slots, width), (width,), (frames, width))
    x, weights, weight, bank, bias, residual = (torch.randn(shape).to(dtype) for shape in shapes)
    for some_bias in (None, bias):
        for some_residual in (None, residual):
            both.check("join_fwd", x, weights, weight, bank, some_bias, some_residual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_to_read(emulated: Any, dtype: torch.dtype) -> None:
    """No frames, no slots, no groups; banks whose rows lie apart."""
    calls = emulated
    no_frames, no_slots = torch.empty(1, 0, 2, 8, dtype=dtype), torch.randn(1, 2, 0, 8).to(dtype)
    keys, factor, none = torch.randn(1, 2, 5, 8).to(dtype), torch.empty(1, 2, 0), torch.ones(1, 2, 3)
    weights, lse, usage = calls.memory_weights_fwd(no_frames, keys, factor, None, None, torch.float32)
    assert (usage == 0).all()
    _, dkeys, _, dbias = calls.memory_weights_bwd(weights, lse, None, weights, no_frames, keys, factor, None, True)
    assert (dkeys == 0).all()
    assert (dbias == 0).all()
    _, _, usage = calls.memory_flash_fwd(no_frames, keys, keys, factor, None, None, True)
    assert (usage == 0).all()
    gradients = calls.memory_flash_bwd(
        no_frames, None, None, no_frames, keys, keys, factor, None, None, no_frames, factor
    )
    assert all((g == 0).all() for g in gradients)
    x = torch.randn(1, 3, 2, 8).to(dtype)
    out, lse, usage = calls.memory_flash_fwd(x, no_slots, no_slots[..., :4], none, None, None, False)
    assert (out == 0).all()
    assert (lse == -math.inf).all()
    assert usage.shape == (0,)
    best, index = calls.memory_topk(x, no_slots, none, None, 2)
    assert (best == -math.inf).all()
    assert (index == 0).all()
    for frames, groups in ((no_frames, 1), (x[:0], 0)):
        apart = torch.randn(1, 2, 5, 16).to(dtype)[:groups, :, :, ::2]
        best, index = calls.memory_topk(frames, apart, factor.new_ones(groups, 2, frames.shape[1]), None, 2)
        assert best.shape == index.shape == (groups, 2, frames.shape[1], 2)
        read = calls.memory_gather(best, index, apart)
        assert read.shape == frames.shape
        assert calls.memory_gather_dot(frames, index, apart).shape == index.shape
        assert not calls.memory_scatter(best, index, frames, 5).any()


def test_tensors_on_two_devices_are_refused(emulated: Any) -> None:
    """Every tensor of every op is looked at, whichever stands on another device."""
    calls = emulated
    x, keys, factor, mask = torch.randn(1, 3, 2, 8), torch.randn(1, 2, 5, 8), torch.ones(1, 2, 3), torch.ones(1, 3) > 0
    bias, weights, usage = torch.zeros(1, 2, 5), torch.rand(1, 2, 3, 5), torch.rand(1, 2, 5)
    index, some, matrix = torch.zeros(1, 2, 3, 4, dtype=torch.int32), torch.ones(1, 2, 3, 4), torch.ones(3, 3)
    named = {
        "weights_fwd": {"x": x, "keys": keys, "factor": factor, "slot_bias": bias, "query_mask": mask},
        "weights_bwd": {"dweights": weights, "dlse": factor, "dusage": usage, "weights": weights, "x": x, "keys": keys}
        | {"factor": factor, "query_mask": mask},
        "flash_fwd": {"x": x, "keys": keys, "values": keys, "factor": factor, "slot_bias": bias, "query_mask": mask},
        "flash_bwd": {"dout": x, "dlse": factor, "dusage": usage, "x": x, "keys": keys, "values": keys}
        | {"factor": factor, "slot_bias": bias, "query_mask": mask, "out": x, "lse": factor},
        "join_fwd": {"x": matrix, "weights": matrix, "weight": matrix, "bank": matrix, "bias": matrix[0]}
        | {"residual": matrix},
        "topk": {"x": x, "keys": keys, "factor": factor, "slot_bias": bias},
        "gather": {"weights": some, "index": index, "table": keys},
        "gather_dot": {"rows": x, "index": index, "table": keys},
        "scatter": {"weights": some, "index": index, "rows": x},
    }
    rest = {
        "weights_fwd": (torch.float32,),
        "weights_bwd": (True,),
        "flash_fwd": (True,),
        "topk": (2,),
        "scatter": (5,),
    }
    assert set(named) == set(OPS)
    for op, arguments in named.items():
        call = getattr(calls, f"memory_{op}")
        call(*arguments.values(), *rest.get(op, ()))
        for name in arguments:
            wrong = [x.to("meta") if other == name else x for other, x in arguments.items()]
            with pytest.raises(RuntimeError, match=rf"memory_{op}: \w+ must be on the device of \w+, .+, got .+"):
                call(*wrong, *rest.get(op, ()))


def test_what_is_refused(emulated: Any) -> None:
    calls = emulated
    x, keys, factor = torch.randn(1, 3, 2, 8), torch.randn(1, 2, 5, 8), torch.ones(1, 2, 3)
    with pytest.raises(RuntimeError, match="memory_weights_fwd: x and keys must be both float32, float16 or bfloat16"):
        calls.memory_weights_fwd(x.double(), keys.double(), factor, None, None, torch.float32)
    with pytest.raises(RuntimeError, match="memory_weights_fwd: keys must be of x's groups, heads and width"):
        calls.memory_weights_fwd(x, keys[:, :1], factor, None, None, torch.float32)
    with pytest.raises(RuntimeError, match="memory_weights_fwd: factor must be contiguous, of the shape"):
        calls.memory_weights_fwd(x, keys, factor[:, :1], None, None, torch.float32)
    with pytest.raises(RuntimeError, match=r"memory_weights_fwd: slot_bias must be of shape \[G or 1, H or 1, S\]"):
        calls.memory_weights_fwd(x, keys, factor, torch.zeros(1, 3, 5), None, torch.float32)
    with pytest.raises(RuntimeError, match="memory_topk: k must be at most 1024 on CUDA, got 2000"):
        calls.memory_topk(x, keys, factor, None, 2000)
    with pytest.raises(RuntimeError, match="memory_gather: weights must be contiguous, of the shape and dtype"):
        calls.memory_gather(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 5, dtype=torch.int32), keys)
