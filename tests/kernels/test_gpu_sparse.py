"""The k best slots on a GPU and sums over them: against float64, ties to the lower slot, the same bits each time."""

from __future__ import annotations

import math

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels import definitions, test_memory_sparse
from tests.kernels.comparisons import hold
from tests.kernels.pretended_gpu import PRETENDED, large

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda")]
OPS = torch.ops.vtsum_kernels


def check_choice(x: Tensor, keys: Tensor, factor: Tensor, bias: Tensor | None, k: int, slack: float) -> Tensor:
    """memory_topk of one head: no slot left out is better than one chosen by more than `slack`; gives the index [n, k].

    Scores come sorted; equal ones by slot; what is left over holds -inf and 0.
    """
    shift = None if bias is None else bias[None, None]
    best, index = (t[0, 0] for t in OPS.memory_topk(x[None, :, None], keys[None, None], factor[None, None], shift, k))
    exact = x.double() @ keys.double().t() * factor.double()[:, None]
    exact = exact if bias is None else exact + bias.double()
    usable = exact > -math.inf
    assert torch.equal((best > -math.inf).sum(1), usable.sum(1).clamp_max(k))
    taken = best > -math.inf
    own = exact.gather(1, index.long())
    size = torch.where(usable, exact.abs(), 0.0).amax(1, keepdim=True).clamp_min(1e-30)
    assert (torch.where(taken, (best.double() - own).abs() / size, 0.0) <= slack).all()
    left_out = exact.scatter(1, index.long().where(taken, index[:, :1].long()), -math.inf)
    best_left_out = left_out.amax(1, keepdim=True)
    assert ((torch.where(taken, best_left_out - own, -math.inf) / size) <= slack).all()
    assert (best[:, :-1] >= best[:, 1:]).all()
    equal = (best[:, :-1] == best[:, 1:]) & taken[:, 1:]
    assert (~equal | (index[:, :-1] < index[:, 1:])).all()
    assert (index[~taken] == 0).all()
    return index


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rows", "slots", "dim", "k"),
    [(80, 1000, 48, 32), (400, 30_001, 64, 1), (3_000, 9_000, 40, 64), (5, 3000, 96, 1024), (9, 7, 16, 7)],
)
@pytest.mark.parametrize("biased", [False, True])
def test_the_best_slots(dtype: torch.dtype, rows: int, slots: int, dim: int, k: int, biased: bool) -> None:
    if PRETENDED:
        rows, slots, k = large(rows), min(slots, 500), min(k, 300)
    x, keys, factor = torch.randn(rows, dim).to(dtype), torch.randn(slots, dim).to(dtype), torch.rand(rows) + 0.1
    bias = torch.randn(slots).where(torch.rand(slots) > 0.2, torch.tensor(-math.inf)) if biased else None
    check_choice(x, keys, factor, bias, min(k, slots), 1e-5)


@pytest.mark.parametrize("name", list(test_memory_sparse.adversaries()))
@pytest.mark.parametrize("k", [1, 20])
def test_adversaries(name: str, k: int) -> None:
    x, keys, factor, bias = test_memory_sparse.adversaries()[name]
    norms = x.double().norm(dim=1, keepdim=True) * keys.double().norm(dim=1).max() * factor.double().abs()[:, None]
    shift = 0.0 if bias is None else bias.masked_fill(bias.isinf(), 0.0).abs().max().item()
    exact = (x.double() @ keys.double().t() * factor.double()[:, None]).abs().amax(1, keepdim=True)
    # A dot product's rounding is relative to the norms, which cancellation may leave far above the score.
    slack = ((norms + shift) / exact.clamp_min(1e-30)).max().item() * 2e-6 if bias is None else 1e-5 + shift * 1e-6
    index = check_choice(x, keys, factor, bias, k, max(slack, 1e-5))
    if name in ("all the same", "zeros"):
        assert torch.equal(index, torch.arange(k, dtype=torch.int32).expand_as(index))


def test_more_than_a_kernel_sorts_is_refused() -> None:
    x, keys = torch.randn(1, 2, 1, 8), torch.randn(1, 1, 2000, 8)
    if PRETENDED:
        pytest.skip("the CPU's kernels, which stand in for those of CUDA, take any k")
    with pytest.raises(RuntimeError, match="memory_topk: k must be at most 1024 on CUDA, got 1025"):
        OPS.memory_topk(x, keys, torch.ones(1, 1, 2), None, 1025)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("e", [1, 7, 16, 100, 256, 777])
def test_sums_over_chosen_slots(dtype: torch.dtype, e: int) -> None:
    test_memory_sparse.test_sums_over_chosen_slots(dtype, e)


@pytest.mark.parametrize("hot", [False, True])
def test_a_large_scatter_has_one_order(hot: bool) -> None:
    """hot: nine of ten indices name one of three slots, which the scatter cuts into chunks."""
    n, k, slots, e = large(20_000), 16, 5_000, 64
    index = torch.randint(0, slots, (1, 2, n, k), dtype=torch.int32)
    if hot:
        index = index.where(torch.rand(index.shape) > 0.9, index % 3)
    weights, rows = torch.rand(1, 2, n, k), torch.randn(1, n, 2, e)
    first, second = (OPS.memory_scatter(weights, index, rows, slots) for _ in range(2))
    assert torch.equal(first, second)
    exact = torch.zeros(2, slots, e, dtype=torch.float64)
    for head in range(2):
        terms = weights[0, head].double()[..., None] * rows[0, :, head].double()[:, None]
        exact[head].index_add_(0, index[0, head].flatten().long(), terms.flatten(0, 1))
    error = (first[0].double() - exact).abs().max()
    assert error <= 1e-5 * exact.abs().max()


def test_weights_of_0_read_nothing_and_slots_nobody_chose_are_0() -> None:
    weights, table = torch.rand(1, 1, 300, 8), torch.randn(1, 1, 50, 33)
    index = torch.randint(0, 49, (1, 1, 300, 8), dtype=torch.int32)
    rows = torch.randn(1, 300, 1, 33)
    table[0, 0, 7], rows[0, 5] = math.nan, math.nan
    weights = weights.masked_fill(index == 7, 0.0)
    weights[0, 0, 5] = 0.0
    assert OPS.memory_gather(weights, index, table).isfinite().all()
    sums = OPS.memory_scatter(weights, index, rows, 50)
    assert sums.isfinite().all()
    assert (sums[0, 0, 49] == 0).all()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("k", [1, 6, 40])
def test_product_keys_are_the_keys_written_out(heads: int, k: int) -> None:
    """Whole numbers, whose scores every order of sums gives exactly: the same slots, also where they tie."""
    first, second = (torch.randint(-3, 4, (rows, 8)).float() for rows in (6, 5))
    x, values = torch.randint(-3, 4, (2, 10, 16)).float(), torch.randn(30, 12)
    mask = torch.rand(2, 10) > 0.2
    halves = [t.chunk(heads, 1) for t in (first, second)]
    written = [torch.cat((a.repeat_interleave(5, 0), b.repeat(6, 1)), 1) for a, b in zip(*halves, strict=True)]
    leaves = [t.requires_grad_() for t in (x, values)]
    results = []
    for keys in ((first, second), torch.cat(written, 1)):
        out, usage = vk.memory_attention(
            x, keys, values, num_heads=heads, scale=0.25, top_k=k, query_mask=mask, return_usage=True, backend="cuda"
        )
        results.append([out, usage, *torch.autograd.grad(out.square().sum() + usage.square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_large_bank_by_its_k_best() -> None:
    frames, slots = large(3_000), 4_096 if not PRETENDED else 200
    x, keys, values = torch.randn(frames, 40), torch.randn(slots, 40), torch.randn(slots, 24)
    out, lse, usage = vk.memory_attention(x, keys, values, top_k=32, return_lse=True, return_usage=True, backend="cuda")
    wide = [t.double() for t in (x, keys, values)]
    exact, plain = (
        definitions.memory_attention(*tensors, 1, 40**-0.5, top_k=32) for tensors in (wide, (x, keys, values))
    )
    for name, got, true, rough in zip(("out", "lse", "usage"), (out, lse.t(), usage), exact, plain, strict=True):
        hold(name, got.reshape(true.shape), true, rough, condition=2.0)
    torch.testing.assert_close(usage.sum(), torch.tensor(float(frames)), rtol=1e-4, atol=0)
