"""The k best slots, exactly; and the sums over them and their gradients, for any number of features."""

from __future__ import annotations

import math

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan, search

from tests.kernels import definitions
from tests.kernels.comparisons import gradients, hold
from tests.kernels.definitions import choose

pytestmark = pytest.mark.usefixtures("cpp")
OPS = torch.ops.vtsum_kernels


@pytest.fixture(params=["shortlist", "full"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
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


def test_a_crowded_shortlist_is_left_for_the_full_search(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_more_asked_for_than_there_are() -> None:
    x, keys, values = torch.randn(7, 8), torch.randn(5, 8), torch.randn(5, 6)
    mask = torch.tensor([True, False, True, True, False])
    for k in (3, 4, 5, 60):
        got = vk.memory_attention(x, keys, values, top_k=k, slot_mask=mask)
        torch.testing.assert_close(got, vk.memory_attention(x, keys, values, slot_mask=mask))
    choice = OPS.memory_topk(x[None, :, None].requires_grad_(), keys[None, None], torch.ones(1, 1, 7), None, 2)
    assert not any(tensor.requires_grad for tensor in choice)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("e", [1, 7, 16, 100, 256, 777])
def test_sums_over_chosen_slots(dtype: torch.dtype, e: int) -> None:
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


def test_sums_have_one_order_and_weights_of_0_read_nothing() -> None:
    weights, table = torch.rand(1, 1, 300, 8), torch.randn(1, 1, 50, 33)
    index = torch.randint(0, 50, (1, 1, 300, 8), dtype=torch.int32)
    rows = torch.randn(1, 300, 1, 33)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(
                [
                    OPS.memory_gather(weights, index, table),
                    OPS.memory_gather_dot(rows, index, table),
                    OPS.memory_scatter(weights, index, rows, 50),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    table[0, 0, 7], rows[0, 5] = math.nan, math.nan
    weights = weights.masked_fill(index == 7, 0.0)
    weights[0, 0, 5] = 0.0
    assert OPS.memory_gather(weights, index, table).isfinite().all()
    assert OPS.memory_scatter(weights, index, rows, 50).isfinite().all()
    unread = OPS.memory_scatter(torch.rand(1, 1, 300, 1), torch.zeros(1, 1, 300, 1, dtype=torch.int32), rows, 50)
    assert (unread[0, 0, 1:] == 0).all()


def test_an_index_outside_the_table_is_refused() -> None:
    weights, table = torch.rand(1, 1, 2, 3), torch.randn(1, 1, 4, 5)
    for slot in (-1, 4):
        index = torch.full((1, 1, 2, 3), slot, dtype=torch.int32)
        with pytest.raises(RuntimeError, match="memory_gather: index must be of slots 0 to 3"):
            OPS.memory_gather(weights, index, table)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("k", [1, 6, 40])
@pytest.mark.parametrize("op", ["attention", "fuse"])
def test_product_keys_are_the_keys_written_out(heads: int, k: int, op: str) -> None:
    first, second = torch.randn(6, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    second[3] = second[1]  # ties, to the lower slot
    x, values = torch.randn(2, 10, 16, dtype=torch.float64), torch.randn(30, 12, dtype=torch.float64)
    mask = torch.rand(2, 10) > 0.2
    weight = torch.randn(7, 28, dtype=torch.float64)
    halves = [t.unflatten(1, (heads, -1)) for t in (first, second)]
    written = torch.cat((halves[0].repeat_interleave(5, 0), halves[1].repeat(6, 1, 1)), -1).flatten(1)
    leaves = [t.requires_grad_() for t in (x, first, second, values, weight)]
    results = []
    for pair in (True, False):
        keys = (
            (first, second)
            if pair
            else torch.cat(
                [
                    torch.cat((a.repeat_interleave(5, 0), b.repeat(6, 1)), 1)
                    for a, b in zip(first.chunk(heads, 1), second.chunk(heads, 1), strict=True)
                ],
                1,
            )
        )
        options = {"num_heads": heads, "top_k": k, "query_mask": mask, "return_usage": True}
        if op == "attention":
            outputs = vk.memory_attention(x, keys, values, return_lse=True, backend="cpp", **options)
        else:
            outputs = vk.memory_fuse(x, keys, values, weight, backend="cpp", **options)
        used = leaves if op == "fuse" else leaves[:4]
        results.append([*outputs, *gradients(outputs, used, 2)])
    torch.testing.assert_close(keys.detach(), written.detach())
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    second = torch.randn_like(second)  # the reference's scores are the BLAS's: it may part what ties
    both = [
        vk.memory_attention(x, (first, second), values, num_heads=heads, top_k=k, query_mask=mask, backend=backend)
        for backend in ("reference", "cpp")
    ]
    torch.testing.assert_close(*both)


def test_a_large_bank_is_read_without_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,096 slots and 300 rows go by way of the shortlist, and come out as the definition's k best."""
    assert plan.shortlists(300, 4096, 32)
    monkeypatch.setattr(search, "FAST_BFLOAT16", torch.backends.mkldnn.is_available())
    x, keys, values = torch.randn(300, 40), torch.randn(4096, 40), torch.randn(4096, 24)
    out, lse, usage = vk.memory_attention(x, keys, values, top_k=32, return_lse=True, return_usage=True, backend="cpp")
    wide = [t.double() for t in (x, keys, values)]
    exact = definitions.memory_attention(*wide, 1, 40**-0.5, top_k=32)
    plain = definitions.memory_attention(x, keys, values, 1, 40**-0.5, top_k=32)
    for name, got, true, rough in zip(("out", "lse", "usage"), (out, lse.t(), usage), exact, plain, strict=True):
        hold(name, got.reshape(true.shape), true, rough)
    torch.testing.assert_close(usage.sum(), torch.tensor(300.0))
