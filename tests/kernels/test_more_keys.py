"""More keys than queries: the last query stands at the last key. And which numbers dropout gives rows and keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.sliding_window_attention import sliding_window_attention_reference

from tests.kernels.window_calls import compare

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("queries", "sides"), [(1, (4, 0)), (1, (60, 0)), (5, (2, 2)), (40, (3, 1)), (16, (-1, 0)), (69, (0, -1))]
)
def test_the_last_query_stands_at_the_last_key(
    backend: str, dtype: torch.dtype, queries: int, sides: tuple[int, int]
) -> None:
    compare(backend, dtype, queries=queries, sides=sides)


@pytest.mark.parametrize("queries", [1, 9, 50])
@pytest.mark.parametrize(
    "options",
    [
        {"key_heads": 1, "padded": 0.3},
        {"dilation": 3, "with_bias": True},
        {"border": "shift"},
        {"border": "shift", "dilation": 2, "with_bias": True, "padded": 0.2},
        {"normalize": "global", "with_bias": True, "padded": 0.2},
        {"dropout_p": 0.3, "row_offset": 2**32 - 30},
    ],
    ids=str,
)
def test_with_each_option(backend: str, queries: int, options: dict[str, Any]) -> None:
    compare(backend, torch.float32, shape=(2, 2, 60, 16), queries=queries, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"sides": (3, 1)},
        {"sides": (-1, 0), "padded": 0.2},
        {"dilation": 2, "border": "shift", "key_heads": 2, "with_bias": True},
        {"normalize": "global"},
        {"dropout_p": 0.3, "sides": (1, 0), "row_offset": 5},
    ],
    ids=str,
)
def test_packed(backend: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Sequences of one query, of as many as keys, of neither any query nor any key, and of keys alone."""
    of_queries, of_keys = [0, 1, 8, 8, 8, 20], [0, 30, 37, 37, 44, 60]
    compare(backend, dtype, shape=(1, 4, 60, 16), ends=of_keys, query_ends=of_queries, **options)


@pytest.mark.parametrize(("queries", "keys"), [(0, 0), (0, 7), (1, 7)])
def test_few_or_none(backend: str, queries: int, keys: int) -> None:
    q = torch.zeros(1, 2, queries, 8, requires_grad=True)
    k = torch.zeros(1, 1, keys, 8, requires_grad=True)
    out, lse = vk.sliding_window_attention(q, k, k, (2, 0), return_lse=True, backend=backend)
    assert out.shape == q.shape
    assert lse.shape == (1, 2, queries)
    gradients = torch.autograd.grad(out.sum(), (q, k))
    assert [x.shape for x in gradients] == [q.shape, k.shape]
    assert not any(x.any() for x in gradients[:1])


def test_keys_that_no_query_sees_are_not_read(backend: str) -> None:
    q, k, v = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 40, 8), torch.randn(1, 2, 40, 8)
    for before, options in ((4, {}), (8, {"border": "shift"}), (8, {"dilation": 2})):
        spoilt = [x.clone().index_fill_(2, torch.arange(37 - before), torch.nan) for x in (k, v)]
        found = (vk.sliding_window_attention(q, *x, (4, 0) if "border" not in options else (4, 4), backend=backend,
                                             **options) for x in ((k, v), spoilt))  # fmt: skip
        assert torch.equal(*found)


@pytest.mark.parametrize("queries", [1, 16])
def test_work_grows_with_the_queries_and_the_window(queries: int) -> None:
    """Products of a query with each key it may see, and no more: neither window x window, nor with all keys."""
    from torch.utils.flop_counter import FlopCounterMode

    heads, dim, window = 2, 32, 1024
    q = torch.randn(1, heads, queries, dim)
    k = torch.randn(1, heads, 8192, dim)
    with FlopCounterMode(display=False) as counter:
        vk.sliding_window_attention(q, k, k, (window - 1, 0), return_lse=True)
    assert 0 < counter.get_total_flops() <= 2 * 2 * heads * queries * (queries + window) * dim
    assert "-> reference" in vk.explain("sliding_window_attention", q, k, k, (window - 1, 0))
    many = torch.zeros(1, heads, 300, dim)
    assert "-> reference" not in vk.explain("sliding_window_attention", many, k, k, (window - 1, 0))


@pytest.mark.parametrize("more", [0, 9])
def test_decoding_gives_what_the_whole_gives(backend: str, more: int) -> None:
    """A frame at a time, each with the keys before it: the rows of one call, dropped weights and all."""
    q, k, v = (torch.randn(2, 2, 20, 8) for _ in range(3))

    def call(first: int, last: int) -> Tensor:
        torch.manual_seed(4)
        rows = slice(max(first - more, 0), last)
        options: dict[str, Any] = {"dropout_p": 0.4, "causal": True, "backend": backend}
        return vk.sliding_window_attention(q[:, :, rows], k[:, :, :last], v[:, :, :last], 6, **options)

    whole = call(0, 20)
    for t in range(20):
        torch.testing.assert_close(call(t, t + 1), whole[:, :, max(t - more, 0) : t + 1])


def test_second_derivatives(cpu_backend: str) -> None:
    q, k = (torch.randn(1, 2, n, 2, dtype=torch.float64).requires_grad_() for n in (2, 6))

    def call(q: Tensor, k: Tensor) -> Any:
        return vk.sliding_window_attention(q, k, k, (3, 0), return_lse=True, backend=cpu_backend)

    assert torch.autograd.gradcheck(call, (q, k))
    if cpu_backend == "reference":
        assert torch.autograd.gradgradcheck(call, (q, k))


def test_the_reference_alone_takes_more_keys() -> None:
    q, k = torch.randn(1, 2, 30, 8), torch.randn(1, 1, 50, 8)
    wanted = vk.sliding_window_attention(q, k, k, (3, 1), backend="reference")
    out, _ = sliding_window_attention_reference(q, k, k, 3, 1, scale=8**-0.5)
    torch.testing.assert_close(out, wanted)


class _Decode(torch.nn.Module):
    """Windows that are narrow, and as wide as a decoder's; packed, too."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return vk.sliding_window_attention(q, k, k, self.window, causal=True)


@pytest.mark.parametrize("window", [5, 128])
@pytest.mark.parametrize("queries", [1, 40])
def test_compiles_to_one_graph_however_many_keys(cpp: None, window: int, queries: int) -> None:
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()
    graphs = 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    plain = _Decode(window)
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend=count)
    q = torch.randn(1, 2, queries, 8)
    for keys in (300, 301, 350, 420, 1000):
        k = torch.randn(1, 2, keys, 8)
        torch.testing.assert_close(compiled(q, k), plain(q, k))
    assert graphs == 1


@pytest.mark.parametrize("window", [5, 128])
def test_exports_for_any_number_of_keys(cpp: None, window: int) -> None:
    torch.use_deterministic_algorithms(False)
    plain, dim = _Decode(window), torch.export.Dim("keys", min=200, max=1 << 20)
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 300, 8)
    exported = torch.export.export(plain, (q, k), dynamic_shapes=({}, {2: dim})).module()
    for keys in (200, 300, 3000):
        k = torch.randn(1, 2, keys, 8)
        torch.testing.assert_close(exported(q, k), plain(q, k))


def test_packed_compiles_to_one_graph(cpp: None) -> None:
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()

    def plain(q: Tensor, k: Tensor, of_queries: Tensor, of_keys: Tensor) -> Any:
        return vk.sliding_window_attention(
            q, k, k, (4, 1), cu_seqlens=of_queries, cu_seqlens_k=of_keys, return_lse=True
        )

    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend="aot_eager")
    for of_queries, of_keys in (([0, 3, 4, 9], [0, 10, 30, 50]), ([0, 1, 2, 3], [0, 1, 20, 33])):
        q, k = torch.randn(of_queries[-1], 2, 8), torch.randn(of_keys[-1], 1, 8)
        ends = [torch.tensor(x) for x in (of_queries, of_keys)]
        for got, wanted in zip(compiled(q, k, *ends), plain(q, k, *ends), strict=True):
            torch.testing.assert_close(got, wanted)


def test_a_query_before_its_first_key_sees_nothing(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lengths cannot be looked at: sequence 1 has two keys for three queries."""
    from vtsum_kernels.sliding_window_attention import alignment, call

    for module in (alignment, call):
        monkeypatch.setattr(module, "values_are_free", lambda x: False)
    q, k = torch.randn(6, 2, 8), torch.randn(8, 2, 8)
    of_queries, of_keys = torch.tensor([0, 2, 5, 6]), torch.tensor([0, 5, 7, 8])
    for dropout_p in (0.0, 1e-9):
        out, lse = vk.sliding_window_attention(
            q, k, k, (2, 2), cu_seqlens=of_queries, cu_seqlens_k=of_keys, dropout_p=dropout_p, return_lse=True,
            backend=native,
        )  # fmt: skip
        assert lse.isinf().all(0).tolist() == [False, False, True, False, False, False]
        assert not out[2].any()
        assert out[[0, 1, 3, 4, 5]].all()
        alone = vk.sliding_window_attention(*(x.transpose(0, 1)[None] for x in (q[3:5], k[5:7], k[5:7])), (2, 2))
        torch.testing.assert_close(out[3:5], alone[0].transpose(0, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("sides", "dilation"), [((2, 2), 1), ((3, 0), 2), ((17, 18), 1)])
def test_two_parts_drop_what_the_whole_drops(
    backend: str, dtype: torch.dtype, sides: tuple[int, int], dilation: int
) -> None:
    """One sequence in two parts, each with the frames beside it that its rows and keys need: forward and backward."""
    frames, middle, halo, dim = 150, 71, sum(sides) * dilation, 40
    q, k, v, dout = (torch.randn(1, 2, frames, dim).to(dtype) for _ in range(4))
    # Of rows without scores, and values and gradients of one frame in each feature, the results are the kept weights.
    marks = torch.eye(dim).repeat(frames // dim + 1, 1)[:frames].expand(1, 2, -1, -1).to(dtype)

    def part(first: int, last: int, offset: int, *inputs: Tensor) -> list[Tensor]:
        own = slice(max(first - halo, 0), min(last + halo, frames))
        q, k, v, dout = (x[:, :, own].detach().requires_grad_() for x in inputs)
        torch.manual_seed(11)
        options: dict[str, Any] = {"dilation": dilation, "dropout_p": 0.4, "row_offset": own.start + offset}
        if last - first < frames:  # the whole draws the same one
            options["dropout_seed"] = torch.randint(2**62, (1,))
        out = vk.sliding_window_attention(q, k, v, sides, backend=backend, **options)
        keep = slice(first - own.start, last - own.start)
        return [x[:, :, keep].detach() for x in (out, *torch.autograd.grad(out, (q, k, v), dout))]

    def both(offset: int, *inputs: Tensor) -> list[Tensor]:
        parts = part(0, middle, offset, *inputs), part(middle, frames, offset, *inputs)
        return [torch.cat(pair, 2) for pair in zip(*parts, strict=True)]

    for offset in (0, 2**32 - 100):
        whole = part(0, frames, offset, 0 * q, k, marks, marks)
        cut = both(offset, 0 * q, k, marks, marks)
        for name, a, b in zip(("out", "dv"), whole[::3], cut[::3], strict=True):
            assert torch.equal(a > 0, b > 0), name
            assert 0 < (a > 0).float().mean() < 1
        bound = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
        for a, b in zip(part(0, frames, offset, q, k, v, dout), both(offset, q, k, v, dout), strict=True):
            torch.testing.assert_close(a, b, **bound)
    assert not torch.equal(part(0, frames, 0, q, k, v, dout)[0], part(0, frames, 1, q, k, v, dout)[0])


@pytest.mark.parametrize(
    ("shapes", "options", "error", "message"),
    [
        (((2, 3), (2, 2)), {}, ValueError, "k must be at least as long as q, which has 3 frames, got 2"),
        (
            ((2, 3), (2, 4)),
            {"cu_seqlens_k": torch.tensor([0, 4])},
            ValueError,
            "cu_seqlens_k must be None where cu_seqlens is None, got Tensor",
        ),
        (((2, 3), (2, 4)), {"row_offset": 1.0}, TypeError, "row_offset must be an int, got float"),
        (((2, 3), (2, 4)), {"row_offset": True}, TypeError, "row_offset must be an int, got bool"),
        (((2, 3), (2, 4)), {"dropout_seed": 7}, TypeError, "dropout_seed must be a torch.Tensor, got int"),
        (((2, 3), (2, 4)), {"dropout_seed": torch.ones(1)}, TypeError, "dropout_seed must be int64, got torch.float32"),
        (
            ((2, 3), (2, 4)),
            {"dropout_seed": torch.tensor([1, 2])},
            ValueError,
            r"dropout_seed must be of shape \[1\] = \[1\], got \[2\]",
        ),
        (
            ((2, 3), (2, 4)),
            {"key_mask": torch.ones(1, 3, dtype=torch.bool)},
            ValueError,
            r"key_mask must be of shape \[B, T\] = \[1, 4\], got \[1, 3\]",
        ),
        (
            ((3,), (4,)),
            {"cu_seqlens": torch.tensor([0, 3])},
            ValueError,
            r"k must be of shape \[total, K, D\] with q's other sizes",
        ),
        (
            ((3,), (4,)),
            {"cu_seqlens": torch.tensor([0, 3]), "cu_seqlens_k": torch.tensor([0, 2, 4])},
            ValueError,
            r"cu_seqlens_k must be of cu_seqlens' shape \[2\], got \[3\]",
        ),
        (
            ((3,), (4,)),
            {"cu_seqlens": torch.tensor([0, 3]), "cu_seqlens_k": torch.tensor([0, 5])},
            ValueError,
            "cu_seqlens_k must be from 0 to k's total of 4 frames, got 0 to 5",
        ),
        (
            ((3,), (4,)),
            {"cu_seqlens": torch.tensor([0, 1, 3]), "cu_seqlens_k": torch.tensor([0, 3, 4])},
            ValueError,
            "cu_seqlens_k must be such that sequence 1 has as many keys as its 2 queries, or more, got 1",
        ),
        (
            ((3,), (2,)),
            {"cu_seqlens": torch.tensor([0, 3]), "cu_seqlens_k": torch.tensor([0, 2])},
            ValueError,
            "k must be at least as long as q, which has 3 frames, got 2",
        ),
    ],
)
def test_errors(shapes: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    q, k = (torch.zeros(1, *s, 8) if len(s) == 2 else torch.zeros(*s, 2, 8) for s in shapes)
    with pytest.raises(error, match=f"^sliding_window_attention: {message}"):
        vk.sliding_window_attention(q, k, k, 3, **options)
