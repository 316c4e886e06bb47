"""The k best slots, exactly; and the sums over them and their gradients, for any number of features."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from vtsum_kernels.memory_attention import plan, read, search

from tests.kernels import definitions
from tests.kernels.comparisons import gradients, hold
from tests.kernels.definitions import choose
from tests.kernels.pretended_gpu import PRETENDED, large

GPU = pytest.mark.gpu
OPS = torch.ops.vtsum_kernels


@pytest.fixture(params=["shortlist", "full"])
def way(cpp: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of searching, on sizes that a test can afford; blocks so small that there are several."""
    if request.param == "shortlist" and not torch.backends.mkldnn.is_available():
        pytest.skip("a product in bfloat16 wants oneDNN")
    monkeypatch.setattr(search, "FAST_BFLOAT16", request.param == "shortlist")
    monkeypatch.setattr(search, "shortlists", lambda rows, slots, k: True)
    monkeypatch.setattr(search, "SHORTLIST_BLOCK", (37, 300))
    return str(request.param)


def found(x: Tensor, keys: Tensor, factor: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """scores and index [n, k] of one head: x [n, d], keys [S, d], factor [n], bias [S]."""
    shift = None if bias is None else bias[None, None]
    best, index = OPS.memory_topk(x[None, :, None], keys[None, None], factor[None, None], shift, k)
    return best[0, 0], index[0, 0]


def by_dots(x: Tensor, keys: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    """Every score [n, S], each dot product by the very arithmetic that search uses."""
    index = torch.arange(keys.shape[0], dtype=torch.int32).expand(1, 1, x.shape[0], -1).contiguous()
    dots = OPS.memory_gather_dot(x[None, :, None], index, keys[None, None])[0, 0]
    scores = dots * factor[:, None]
    return scores if bias is None else scores + bias


@pytest.mark.parametrize(("rows", "slots", "dim", "k"), [(80, 1000, 48, 32), (40, 3000, 21, 1), (5, 700, 96, 100)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_best_slots_of_float64(way: str, rows: int, slots: int, dim: int, k: int, biased: bool) -> None:
    """Where float64 puts more between the k-th and the next than float32 can lose, the choice is float64's."""
    x, keys, factor = torch.randn(rows, dim), torch.randn(slots, dim), torch.rand(rows) + 0.1
    bias = torch.randn(slots).where(torch.rand(slots) > 0.2, torch.tensor(-math.inf)) if biased else None
    best, index = found(x, keys, factor, bias, k)
    exact = x.double() @ keys.double().t() * factor.double()[:, None]
    exact = exact if bias is None else exact + bias.double()
    values, order = exact.sort(-1, descending=True)
    clear = values[:, k - 1] - values[:, k] > 1e-5
    assert clear.sum() >= rows * 0.8
    for row in clear.nonzero().view(-1).tolist():
        assert sorted(index[row].tolist()) == sorted(order[row, :k].tolist())
    torch.testing.assert_close(best.double(), values[:, :k], rtol=1e-4, atol=1e-4)
    assert (best[:, :-1] >= best[:, 1:]).all()


def adversaries() -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    x, keys, one = torch.randn(40, 32), torch.randn(900, 32), torch.ones(40)
    signs = torch.randint(0, 2, (900, 32)).float() * 2 - 1
    holes = torch.zeros(900)
    holes[torch.rand(900) > 0.01] = -math.inf
    return {
        "duplicates": (x, keys[:30].repeat(30, 1), one, None),
        "all the same": (x, keys[:1].expand(900, -1), one, None),
        "nearly the same": (x, keys[:1] + 1e-4 * keys, one, None),
        "nearly opposite terms": (torch.cat((x, x), 1), torch.cat((keys, -keys + 1e-3 * signs), 1), one, None),
        "huge norms": (x * 1e18, keys * 10 ** torch.linspace(-18, 18, 900)[:, None], one * 1e-10, None),
        "beyond bfloat16": (x, keys.sign() * 3.4e38 / 32, one * 1e-10, None),
        "tiny": (x * 1e-20, keys * 1e-18, one, None),
        "zeros": (x * 0, keys * (torch.rand(900, 1) > 0.5), one, None),
        "factors of both signs and 0": (x, keys, torch.linspace(-2, 2, 40).round(), None),
        "few usable": (x, keys, one, holes),
        "none usable": (x, keys, one, torch.full((900,), -math.inf)),
        "large biases": (x, keys, one, torch.randn(900).sign() * 1e6),
        "just below a rounding": (x, (1 + 2**-8 - 1e-7 * torch.rand(900, 32)) * signs, one, None),
    }


@pytest.mark.parametrize("name", list(adversaries()))
@pytest.mark.parametrize("k", [1, 20])
def test_adversaries_are_searched_exactly(way: str, name: str, k: int) -> None:
    """The choice is that of sorting every float32 score, ties to the lower slot, whatever the shortlist was handed."""
    x, keys, factor, bias = adversaries()[name]
    best, index = found(x, keys, factor, bias, k)
    scores = by_dots(x, keys, factor, bias)
    chosen = choose(scores, k)
    for row in range(x.shape[0]):
        slots = sorted(chosen[row].nonzero().view(-1).tolist(), key=lambda s: (-scores[row, s].item(), s))
        count = len(slots)
        assert index[row, :count].tolist() == slots, (name, row)
        assert torch.equal(best[row, :count], scores[row, slots]), (name, row)
        assert (best[row, count:] == -math.inf).all()
        assert (index[row, count:] == 0).all()


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


@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rows", "slots", "dim", "k"),
    [(80, 1000, 48, 32), (400, 30_001, 64, 1), (3_000, 9_000, 40, 64), (5, 3000, 96, 1024), (9, 7, 16, 7)],
)
@pytest.mark.parametrize("biased", [False, True])
def test_the_best_slots_on_a_gpu(
    cuda: None, dtype: torch.dtype, rows: int, slots: int, dim: int, k: int, biased: bool
) -> None:
    if PRETENDED:
        rows, slots, k = large(rows), min(slots, 500), min(k, 300)
    x, keys, factor = torch.randn(rows, dim).to(dtype), torch.randn(slots, dim).to(dtype), torch.rand(rows) + 0.1
    bias = torch.randn(slots).where(torch.rand(slots) > 0.2, torch.tensor(-math.inf)) if biased else None
    check_choice(x, keys, factor, bias, min(k, slots), 1e-5)


@GPU
@pytest.mark.parametrize("name", list(adversaries()))
@pytest.mark.parametrize("k", [1, 20])
def test_adversaries_on_a_gpu(cuda: None, name: str, k: int) -> None:
    x, keys, factor, bias = adversaries()[name]
    norms = x.double().norm(dim=1, keepdim=True) * keys.double().norm(dim=1).max() * factor.double().abs()[:, None]
    shift = 0.0 if bias is None else bias.masked_fill(bias.isinf(), 0.0).abs().max().item()
    exact = (x.double() @ keys.double().t() * factor.double()[:, None]).abs().amax(1, keepdim=True)
    # A dot product's rounding is relative to the norms, which cancellation may leave far above the score.
    slack = ((norms + shift) / exact.clamp_min(1e-30)).max().item() * 2e-6 if bias is None else 1e-5 + shift * 1e-6
    index = check_choice(x, keys, factor, bias, k, max(slack, 1e-5))
    if name in ("all the same", "zeros"):
        assert torch.equal(index, torch.arange(k, dtype=torch.int32).expand_as(index))


@GPU
def test_more_than_a_kernel_sorts_is_refused(cuda: None) -> None:
    x, keys = torch.randn(1, 2, 1, 8), torch.randn(1, 1, 2000, 8)
    if PRETENDED:
        pytest.skip("the CPU's kernels, which stand in for those of CUDA, take any k")
    with pytest.raises(RuntimeError, match="memory_topk: k must be at most 1024 on CUDA, got 1025"):
        OPS.memory_topk(x, keys, torch.ones(1, 1, 2), None, 1025)


def test_a_crowded_shortlist_is_left_for_the_full_search(cpp: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 slots within rounding of each other do not fit a list of 8 k + 512; 500 do. Both come out exact."""
    monkeypatch.setattr(search, "FAST_BFLOAT16", True)
    monkeypatch.setattr(search, "shortlists", lambda rows, slots, k: True)
    calls = []
    full = OPS.memory_search_
    monkeypatch.setattr(search, "_OPS", _Counting(search._OPS, calls))
    x, keys = torch.randn(6, 24), torch.randn(2000, 24) * 0.1
    crowd = keys.clone()
    crowd[:600] = torch.randn(24) + 1e-5 * keys[:600]
    for bank, crowded in ((keys, False), (crowd, True)):
        calls.clear()
        best, index = found(x, bank, torch.ones(6), None, 4)
        assert bool(calls) is crowded
        whole, slots_found = torch.empty(6, 4), torch.empty(6, 4, dtype=torch.int32)
        full(x, bank, torch.ones(6), None, whole, slots_found)
        assert torch.equal(best, whole)
        assert torch.equal(index, slots_found)


class _Counting:
    """The ops, counting the rows handed to the full search."""

    def __init__(self, ops: object, calls: list[int]) -> None:
        self.ops, self.calls = ops, calls

    def __getattr__(self, name: str) -> object:
        if name == "memory_search_":
            self.calls.append(1)
        return getattr(self.ops, name)


def test_scores_of_nan_are_not_chosen(way: str) -> None:
    x, keys = torch.randn(9, 16), torch.randn(600, 16)
    keys[::3] = math.nan
    best, index = found(x, keys, torch.ones(9), None, 10)
    assert best.isfinite().all()
    assert (index % 3 != 0).all()
    x[4] = math.nan
    best, _ = found(x, keys, torch.ones(9), None, 10)
    assert (best[4] == -math.inf).all()
    assert best[3].isfinite().all()


def test_more_asked_for_than_there_are(cpp: None) -> None:
    x, keys, values = torch.randn(7, 8), torch.randn(5, 8), torch.randn(5, 6)
    mask = torch.tensor([True, False, True, True, False])
    for k in (3, 4, 5, 60):
        got = vk.memory_attention(x, keys, values, top_k=k, slot_mask=mask)
        torch.testing.assert_close(got, vk.memory_attention(x, keys, values, slot_mask=mask))
    choice = OPS.memory_topk(x[None, :, None].requires_grad_(), keys[None, None], torch.ones(1, 1, 7), None, 2)
    assert not any(tensor.requires_grad for tensor in choice)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("e", [1, 7, 16, 100, 256, 777])
def test_sums_over_chosen_slots(native: str, dtype: torch.dtype, e: int) -> None:
    if native == "cuda" and dtype == torch.float64:
        pytest.skip("cuda does not take float64")
    groups, n, heads, k, slots = 2, 21, 2, 9, 13
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weights = torch.randn(groups, heads, n, k, dtype=wide)
    index = torch.randint(0, slots, (groups, heads, n, k), dtype=torch.int32)
    table = torch.randn(groups, slots, heads, e).to(dtype).transpose(1, 2)  # strided rows
    rows = torch.randn(groups, n, heads, e).to(dtype)
    one_hot = torch.nn.functional.one_hot(index.long(), slots)

    def dense(weights: Tensor, table: Tensor, rows: Tensor) -> list[Tensor]:
        spread = torch.einsum("ghnk,ghnks->ghns", weights.to(rows.dtype), one_hot.to(rows.dtype))
        every = torch.einsum("gnhe,ghse->ghns", rows, table)
        return [
            torch.einsum("ghns,ghse->gnhe", spread, table),
            every.gather(3, index.long()),
            torch.einsum("ghns,gnhe->ghse", spread, rows),
        ]

    results = []
    for kind in ("got", "exact", "eager"):
        cast = torch.float64 if kind == "exact" else dtype
        leaves = [t.to(cast if t.dtype == dtype else torch.promote_types(cast, wide)) for t in (weights, table, rows)]
        leaves = [t.detach().requires_grad_() for t in leaves]
        if kind == "got":
            w, t, r = leaves
            outputs = [OPS.memory_gather(w, index, t), OPS.memory_gather_dot(r, index, t)]
            outputs.append(OPS.memory_scatter(w, index, r, slots))
        else:
            outputs = dense(*leaves)
        results.append([*outputs, *gradients(outputs, leaves, 1)])
    for name, *three in zip(("gather", "dot", "scatter", "dweights", "dtable", "drows"), *results, strict=True):
        hold(name, *three, dtype=dtype)


def test_sums_have_one_order(cpp: None) -> None:
    weights, table, rows = torch.rand(1, 1, 300, 8), torch.randn(1, 1, 50, 33), torch.randn(1, 300, 1, 33)
    index = torch.randint(0, 50, (1, 1, 300, 8), dtype=torch.int32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums = (OPS.memory_gather(weights, index, table), OPS.memory_gather_dot(rows, index, table))
            results.append([*sums, OPS.memory_scatter(weights, index, rows, 50)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("hot", [False, True])
def test_a_large_scatter_has_one_order(native: str, hot: bool) -> None:
    """hot: nine of ten indices name one of three slots, which the scatter cuts into chunks."""
    n, k, slots, e = large(20_000) if native == "cuda" else 300, 16, 5_000, 64
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


def test_weights_of_0_read_nothing_and_slots_nobody_chose_are_0(native: str) -> None:
    weights, table, rows = torch.rand(1, 1, 300, 8), torch.randn(1, 1, 50, 33), torch.randn(1, 300, 1, 33)
    index = torch.randint(0, 49, (1, 1, 300, 8), dtype=torch.int32)
    table[0, 0, 7], rows[0, 5] = math.nan, math.nan
    weights = weights.masked_fill(index == 7, 0.0)
    weights[0, 0, 5] = 0.0
    assert OPS.memory_gather(weights, index, table).isfinite().all()
    sums = OPS.memory_scatter(weights, index, rows, 50)
    assert sums.isfinite().all()
    assert (sums[0, 0, 49] == 0).all()


def test_an_index_outside_the_table_is_refused(cpp: None) -> None:
    weights, table = torch.rand(1, 1, 2, 3), torch.randn(1, 1, 4, 5)
    for slot in (-1, 4):
        index = torch.full((1, 1, 2, 3), slot, dtype=torch.int32)
        with pytest.raises(RuntimeError, match="memory_gather: index must be of slots 0 to 3"):
            OPS.memory_gather(weights, index, table)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("k", [1, 6, 40])
@pytest.mark.parametrize("op", ["attention", "fuse"])
def test_product_keys_are_the_keys_written_out(native: str, heads: int, k: int, op: str) -> None:
    """Whole numbers, whose scores every order of sums gives exactly: the same slots, also where they tie."""
    dtype = torch.float64 if native == "cpp" else torch.float32
    first, second, x = (torch.randint(-3, 4, shape).to(dtype) for shape in ((6, 8), (5, 8), (2, 10, 16)))
    values, weight, mask = torch.randn(30, 12, dtype=dtype), torch.randn(7, 28, dtype=dtype), torch.rand(2, 10) > 0.2
    leaves = [t.requires_grad_() for t in (x, first, second, values, *([weight] if op == "fuse" else []))]
    halves = [t.chunk(heads, 1) for t in (first, second)]
    written = [torch.cat((a.repeat_interleave(5, 0), b.repeat(6, 1)), 1) for a, b in zip(*halves, strict=True)]
    options = {"num_heads": heads, "scale": 0.25, "top_k": k, "query_mask": mask, "return_usage": True}
    results = []
    for keys in ((first, second), torch.cat(written, 1)):
        if op == "attention":
            outputs = vk.memory_attention(x, keys, values, return_lse=True, backend=native, **options)
        else:
            outputs = vk.memory_fuse(x, keys, values, weight, backend=native, **options)
        results.append([*outputs, *gradients(outputs, leaves, 2)])
    bound = 1e-10 if dtype == torch.float64 else 1e-4
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=bound, atol=bound)
    # The reference's scores are the BLAS's, which may part what ties: nothing does here.
    first, second = torch.randn_like(first), torch.randn_like(second)
    options["return_usage"] = False
    both = [vk.memory_attention(x, (first, second), values, backend=b, **options) for b in ("reference", native)]
    torch.testing.assert_close(*both)


def test_a_large_bank_by_its_k_best(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU by way of the shortlist; without all scores in memory."""
    frames, slots = (300, 4_096) if native == "cpp" else (large(3_000), 200 if PRETENDED else 4_096)
    assert native == "cuda" or plan.shortlists(frames, slots, 32)
    monkeypatch.setattr(search, "FAST_BFLOAT16", torch.backends.mkldnn.is_available())
    x, keys, values = torch.randn(frames, 40), torch.randn(slots, 40), torch.randn(slots, 24)
    out, lse, usage = vk.memory_attention(x, keys, values, top_k=32, return_lse=True, return_usage=True, backend=native)
    wide = [t.double() for t in (x, keys, values)]
    exact, plain = (
        definitions.memory_attention(*tensors, 1, 40**-0.5, top_k=32) for tensors in (wide, (x, keys, values))
    )
    for name, got, true, rough in zip(("out", "lse", "usage"), (out, lse.t(), usage), exact, plain, strict=True):
        hold(name, got.reshape(true.shape), true, rough, condition=1.0 if native == "cpp" else 2.0)
    torch.testing.assert_close(usage.sum(), torch.tensor(float(frames)), rtol=1e-4, atol=0)


def test_gradients_of_product_keys_are_rounded_once(cpu_backend: str) -> None:
    """A half's gradient is a sum over its pairs, in float32."""
    x, first, second, values = (torch.randn(n, d).half() for n, d in ((50, 16), (12, 8), (10, 8), (120, 16)))

    def halves(backend: str, dtype: torch.dtype) -> list[Tensor]:
        keys = [half.to(dtype).requires_grad_() for half in (first, second)]
        out = vk.memory_attention(x.to(dtype), tuple(keys), values.to(dtype), top_k=8, backend=backend)
        return list(torch.autograd.grad(out, keys, torch.ones_like(out)))

    for got, exact in zip(halves(cpu_backend, torch.float16), halves("reference", torch.float64), strict=True):
        torch.testing.assert_close(got.double(), exact, rtol=2**-11, atol=1e-5)


@pytest.mark.parametrize(("first", "second", "k"), [(9, 7, 1), (9, 7, 20), (9, 7, 63), (40, 3, 50), (30, 30, 64)])
def test_the_best_pairs_of_product_keys(cpp: None, first: int, second: int, k: int) -> None:
    """Ties abound; and no more pairs are looked at than k log k, where all would be k k."""
    x, a, b = (torch.randint(-1, 2, (n, 4)).float() for n in (50, first, second))
    queries = torch.cat((x, x.flip(0)), 1)[None, :, None]
    factor = torch.ones(1, 1, 50)
    best, index = read._best_pairs(queries, (a[None, None], b[None, None]), factor, k)
    sums = (x @ a.t())[:, :, None] + (x.flip(0) @ b.t())[:, None]
    wanted = torch.sort(sums.flatten(1), dim=-1, descending=True, stable=True)
    assert torch.equal(best[0, 0], wanted.values[:, :k])
    assert torch.equal(index[0, 0].long(), wanted.indices[:, :k])
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            sizes.extend(
                t.numel() for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, Tensor)
            )
            return result

    with Sizes():
        read._best_pairs(queries, (a[None, None], b[None, None]), factor, k)
    assert max(sizes) <= 50 * max(k * (math.log(k) + 1), first, second, 8)
