"""Our matrix products, where they pay: every shape at a tile's edge, every stride, the same bits with any threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from vtsum_kernels.memory_attention import products

# On a processor whose BLAS is the better one float32 is still tested, by that.
DTYPES = [torch.float32, *(dtype for dtype in products.OURS if dtype != torch.float32)]
SHAPES = [(1, 1, 1), (13, 33, 17), (12, 32, 512), (100, 70, 513), (97, 64, 1030), (5, 300, 768), (200, 31, 48)]


def matrix(rows: int, columns: int, form: str, dtype: torch.dtype) -> Tensor:
    if form == "columns":
        return torch.randn(columns, rows).to(dtype).t()
    if form == "strided":
        return torch.randn(rows, 2 * columns + 3).to(dtype)[:, 1 : columns + 1]
    return torch.randn(rows, columns).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("a_form", ["rows", "columns", "strided"])
@pytest.mark.parametrize("b_form", ["rows", "columns", "strided"])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_products_at_the_edges_of_tiles(
    m: int, n: int, k: int, a_form: str, b_form: str, add: bool, dtype: torch.dtype
) -> None:
    a, b = matrix(m, k, a_form, dtype), matrix(k, n, b_form, dtype)
    whole = torch.randn(m, n + 5)
    before, out = whole.clone(), whole[:, 2 : n + 2]
    exact = a.double() @ b.double() + (out.double() if add else 0.0)
    # Each of k rounded products and sums adds at most half a unit of what has gathered.
    bound = k * 2**-24 * (a.double().abs() @ b.double().abs() + 1.0) + 2**-23 * exact.abs()
    (products.add_product if add else products.product_into)(out, a, b)
    assert ((out.double() - exact).abs() <= bound).all()
    assert torch.equal(whole[:, :2], before[:, :2])  # nothing beside the result is written
    assert torch.equal(whole[:, n + 2 :], before[:, n + 2 :])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_a_bias_is_added_to_every_row(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    a, b, bias = matrix(m, k, "rows", dtype), matrix(k, n, "columns", dtype), torch.randn(n)
    exact = a.double() @ b.double() + bias.double()
    bound = (k + 1) * 2**-24 * (a.double().abs() @ b.double().abs() + bias.abs() + 1.0)
    assert ((products.product(a, b, bias).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_a_rounded_sum_is_the_sum_rounded(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    a, b, before = matrix(m, k, "rows", dtype), matrix(k, n, "strided", dtype), torch.randn(m, n)
    a[m // 2, 0] = torch.nan
    whole = before.clone()
    products.add_product(whole, a, b)
    rounded = products.rounded_sum(before.clone(), a, b)
    assert rounded.dtype == dtype
    torch.testing.assert_close(rounded, whole.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_one_order_of_sums() -> None:
    threads = torch.get_num_threads()
    for dtype in products.OURS:
        a, b = torch.randn(300, 1100).to(dtype), torch.randn(1100, 130).to(dtype)
        results = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(products.product(a, b))
        finally:
            torch.set_num_threads(threads)
        assert results[0].dtype == torch.float32
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])
        rows = torch.cat([products.product(a[i : i + 1], b) for i in range(0, 300, 37)])
        assert torch.equal(rows, results[0][::37])  # a row's sums do not depend on the rows beside it


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_a_number_stays_in_its_row(dtype: torch.dtype) -> None:
    a, b = torch.randn(30, 40).to(dtype), torch.randn(40, 20).to(dtype)
    a[7] = torch.nan
    out = products.product(a, b)
    assert out[7].isnan().all()
    assert torch.isfinite(out[torch.arange(30) != 7]).all()


@pytest.mark.parametrize("heads", [1, 3])
def test_the_differentiable_product(heads: int) -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares with its own empty tensors
    a = torch.randn(2, heads, 5, 7, requires_grad=True)
    b = torch.randn(2, heads, 4, 7).transpose(2, 3).requires_grad_()
    torch.library.opcheck(torch.ops.vtsum_kernels.memory_matmul, (a, b))
    got, expected = products.matmul(a, b), torch.matmul(a, b)
    torch.testing.assert_close(got, expected)
    for ours_, theirs in zip(*(torch.autograd.grad(y.square().sum(), (a, b)) for y in (got, expected)), strict=True):
        torch.testing.assert_close(ours_, theirs)
    wide = [t.detach().double().requires_grad_() for t in (a, b)]
    assert torch.autograd.gradgradcheck(torch.ops.vtsum_kernels.memory_matmul, wide)


def test_wrong_matrices_are_refused() -> None:
    x, out = torch.zeros(3, 4), torch.zeros(3, 3)
    wrong = [(out, x, x), (out.t()[::2], x, x.t()), (out, x, x.t().bfloat16()), (out.bfloat16(), x, x.t())]
    for tensors in wrong:
        with pytest.raises(RuntimeError, match=r"memory_product_: (out|this processor) "):
            torch.ops.vtsum_kernels.memory_product_(*tensors, False)
    if torch.float32 in products.OURS:
        for beside in ((True, torch.zeros(3)), (False, torch.zeros(4)), (False, torch.zeros(3).double())):
            with pytest.raises(RuntimeError, match="memory_product_: bias must be"):
                torch.ops.vtsum_kernels.memory_product_(out, x, x.t(), *beside)
        with pytest.raises(RuntimeError, match="memory_product_: rounded must be"):
            torch.ops.vtsum_kernels.memory_product_(out, x, x.t(), True, None, out.bfloat16())
    with pytest.raises(RuntimeError, match="memory_product_: this processor "):
        torch.ops.vtsum_kernels.memory_product_(out.double(), x.double(), x.double().t(), False)
