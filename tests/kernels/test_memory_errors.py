"""memory_attention and memory_fuse: every message of both ops, and which backend says what."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels import dispatch
from vtsum_kernels.memory_attention import plan
from vtsum_kernels.tensors import near_rows

X, BANK, WEIGHT = torch.zeros(4, 8), torch.zeros(5, 8), torch.zeros(6, 16)
BATCH, PAIR = torch.zeros(3, 4, 8), (torch.zeros(2, 4), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": 1.0}, TypeError, "x must be a torch.Tensor, got float"),
        ({"x": X.long()}, TypeError, "x must be float32, float16, bfloat16 or float64, got torch.int64"),
        ({"x": X[0]}, ValueError, r"x must be of shape \[..., T, D\], got \[8\]"),
        (
            {"x": X[:, :6]},
            ValueError,
            r"x must be of shape \[..., T, [CD]\] with [CD] = 8, as the keys have, got \[4, 6\]",
        ),
        ({"keys": BANK.double()}, TypeError, "keys must be of the dtype of x, torch.float32, got torch.float64"),
        ({"keys": BANK[0]}, ValueError, r"keys must be of shape \[S, D\], \[H, S, d\], or, for x .*, got \[8\]"),
        ({"num_heads": 3}, ValueError, r"keys must be \[S, D\] with D divisible by num_heads = 3, got \[5, 8\]"),
        (
            {"keys": BANK[None], "num_heads": 2},
            ValueError,
            r"keys must be \[H, S, d\] with H = num_heads = 2 and d = 4, got \[1, 5",
        ),
        ({"num_heads": 0}, ValueError, "num_heads must be at least 1, got 0"),
        ({"values": BANK[:4]}, ValueError, "values must be of as many slots as keys, 5, got 4"),
        ({"scale": "x"}, TypeError, "scale must be a float, a tensor of one element or None .*, got str"),
        ({"scale": float("inf")}, ValueError, "scale must be finite, got inf"),
        ({"scale": torch.ones(2)}, ValueError, r"scale must be a float or a tensor of one element, got \[2\]"),
        ({"scale": torch.tensor(1)}, TypeError, "scale must be of a floating dtype, got torch.int64"),
        ({"slot_mask": torch.ones(5)}, TypeError, "slot_mask must be bool"),
        (
            {"slot_mask": torch.ones(4, dtype=torch.bool)},
            ValueError,
            r"slot_mask must be of shape \[S\] = \[5\], got \[4\]",
        ),
        (
            {"query_mask": torch.ones(5, dtype=torch.bool)},
            ValueError,
            r"query_mask must be of shape x's \[..., T\] = \[4\]",
        ),
        (
            {"x": BATCH, "keys": BANK[None].expand(2, -1, -1)},
            ValueError,
            r"keys must be \[H, S, d\] with H = num_heads = 1 and d = 8, got \[2",
        ),
        ({"x": BATCH, "keys": torch.zeros(2, 1, 5, 8)}, ValueError, r"keys must be \[B, H, S, d\] for x \[B, T, D\]"),
        (
            {"x": BATCH, "keys": torch.zeros(3, 1, 5, 8), "values": torch.zeros(5, 8)},
            ValueError,
            r"values must be a shared bank or one a batch entry, as the keys are, got \[5, 8\]",
        ),
        ({"keys": (BANK,)}, ValueError, r"keys must be one tensor or a pair \(product keys\), got 1 tensors"),
        ({"keys": PAIR}, ValueError, "values must be given with product keys, got None"),
        ({"keys": PAIR, "values": X}, ValueError, "values must be of as many slots as keys, 6, got 4"),
        ({"keys": PAIR, "values": torch.zeros(6, 8)}, ValueError, "top_k must be given with product keys"),
        (
            {"keys": (BANK, PAIR[1]), "values": torch.zeros(15, 8)},
            ValueError,
            r"keys\[0\] must be of 4 features in all heads, half of a query's, got 8",
        ),
        (
            {"keys": PAIR, "values": torch.zeros(6, 8), "top_k": 2, "normalize": True},
            ValueError,
            "normalize must be False with product keys",
        ),
        (
            {"keys": PAIR, "values": torch.zeros(6, 8), "top_k": 2, "slot_bias": torch.zeros(6)},
            ValueError,
            "slot_mask and slot_bias must be None with product keys",
        ),
        ({"slot_bias": torch.zeros(4)}, ValueError, r"slot_bias must be of shape .* = \[5\] or \[1, 5\], got \[4\]"),
        ({"slot_bias": torch.zeros(5).long()}, TypeError, "slot_bias must be float32, .*, got torch.int64"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
        ({"top_k": 1.5}, TypeError, "top_k must be an int, got float"),
        ({"dropout_p": 1.0}, ValueError, "dropout_p must be at least 0 and less than 1, got 1.0"),
        ({"dropout_p": "x"}, TypeError, "dropout_p must be a float, got str"),
        ({"normalize": 1}, TypeError, "normalize must be True or False, got 1"),
        ({"backend": "cudnn"}, ValueError, "backend must be one of auto, cpp, cuda, triton, reference, got cudnn"),
    ],
)
@pytest.mark.parametrize("op", ["memory_attention", "memory_fuse"])
def test_message(op: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    values = options.pop("values", None) if "values" in (options := dict(options)) else None
    arguments = [options.pop("x", X), options.pop("keys", BANK), values]
    if op == "memory_fuse":
        arguments.append(WEIGHT)
    with pytest.raises(error, match=f"^{op}: {message}"):
        getattr(vk, op)(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": WEIGHT[:, :9]}, r"weight must be of shape \[O, C \+ E\] = \[6, 16\], got \[6, 9\]"),
        ({"weight": WEIGHT[0]}, r"weight must be of shape \[O, C \+ E\], got \[16\]"),
        ({"bias": torch.zeros(5)}, r"bias must be of shape \[O\] = \[6\], got \[5\]"),
        ({"residual": X}, r"residual must be of shape \[..., T, O\] = \[4, 6\], got \[4, 8\]"),
        ({"query_weight": torch.zeros(8, 7)}, r"query_weight must be of shape \[D, C\] = \[8, 8\], got \[8, 7\]"),
        ({"query_weight": torch.zeros(6, 8)}, r"query_weight must be of shape \[D, C\] with D = 8, .*, got \[6, 8\]"),
        ({"norm": (torch.ones(7), None, 1e-5)}, r"norm\[0\] must be of shape \[E\] = \[8\], got \[7\]"),
        ({"norm": (None, None, 1e-5), "fold": True}, 'fold must be "auto" or False with a norm'),
        ({"fold": "yes"}, "fold must be \"auto\", True, False or what fold_bank makes, got 'yes'"),
    ],
)
def test_message_of_fuse(options: dict[str, Any], message: str) -> None:
    options = dict(options)
    with pytest.raises(ValueError, match=f"^memory_fuse: {message}"):
        vk.memory_fuse(X, BANK, None, options.pop("weight", WEIGHT), **options)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (1e-5, r"norm must be a tuple \(weight, bias, eps\) or None, got float"),
        ((None, None, "x"), r"norm\[2\] must be a float, the eps, got str"),
        ((torch.ones(8).double(), None, 1e-5), r"norm\[0\] must be of the dtype of x"),
    ],
)
def test_type_of_the_norm(norm: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^memory_fuse: {message}"):
        vk.memory_fuse(X, BANK, None, WEIGHT, norm=norm)


def test_explain_describes_every_backend(cpp: None) -> None:
    text = vk.explain("memory_attention", X, BANK, top_k=2)
    assert "-> cpp: serves this call (the best that can run)" in text
    assert "   cuda: cannot: it runs on CUDA, the tensors are on cpu" in text
    assert "   triton: cannot: it runs on CUDA, the tensors are on cpu" in text
    assert "   reference: could run; another is faster for it" in text
    forced = vk.explain("memory_fuse", X, BANK, None, WEIGHT, backend="cuda")
    assert "->" not in forced
    assert "memory_fuse: backend cuda cannot serve this call: it runs on CUDA" in forced
    with pytest.raises(NotImplementedError, match=r"^memory_attention: backend cuda cannot serve .*: it runs on"):
        vk.memory_attention(X, BANK, backend="cuda")


def test_what_the_sparse_ops_cannot_count_is_refused_before_any_work(
    cpp: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scatter, which the backward pass needs, counts n k choices in 32 bits; a block of CUDA threads sorts 1,024."""
    many, bank = X[:1].expand(2**21, 8), BANK[:1].expand(2000, 8)
    asked: dict[str, Any] = {"top_k": 1024, "backend": "cpp"}
    too_many = re.escape("top_k must be less than 2^31, got 2097152 * 1024")
    with pytest.raises(NotImplementedError, match=f"backend cpp cannot serve this call: .*{too_many}"):
        vk.memory_attention(many, bank, **asked)
    with pytest.raises(NotImplementedError, match=f"memory_fuse: backend cpp cannot serve this call: .*{too_many}"):
        vk.memory_fuse(many, bank, None, WEIGHT, **asked)
    assert "-> cpp" in vk.explain("memory_attention", many[1:], bank, **asked)
    assert "-> cpp" in vk.explain("memory_attention", many.view(2, -1, 8), bank.expand(2, 1, -1, -1), **asked)
    monkeypatch.setattr(dispatch, "cuda_can_run", lambda x: None)
    asked["backend"] = "cuda"
    assert "-> cuda" in vk.explain("memory_attention", X, bank, **asked)
    with pytest.raises(NotImplementedError, match=f"backend cuda cannot serve this call: .*{too_many}"):
        vk.memory_attention(many, bank, **asked)
    with pytest.raises(NotImplementedError, match=r"backend cuda .*: top_k must be at most 1024, got 1025"):
        vk.memory_attention(X, bank, top_k=1025, backend="cuda")
    halves = PAIR[0][:1].expand(50, 4), PAIR[0][:1].expand(40, 4)  # of either, 50 at most are searched for
    assert "-> cuda" in vk.explain("memory_attention", X, halves, bank, top_k=1025, backend="cuda")


def test_triton_has_no_top_k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TRITON_INTERPRETED", True)
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    with pytest.raises(
        NotImplementedError, match=r"backend triton cannot serve .*: it has no form of the ops that top_k"
    ):
        vk.memory_attention(X, BANK, top_k=2, backend="triton")


def test_what_triton_cannot_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of a grid, and in 32 bits the elements from one row of a tile to its last."""
    monkeypatch.setattr(dispatch, "triton_can_run", lambda x: None)

    def said(x: torch.Tensor, bank: torch.Tensor, **options: Any) -> str:
        return vk.explain("memory_attention", x, bank, backend="triton", **options)

    def of(*shape: int) -> torch.Tensor:
        return torch.zeros(1).expand(shape)

    assert "-> triton" in said(of(2**30 - 1, 8), of(5, 8), num_heads=2)
    assert "B * H * max(T, S) must be at most 2147483647, got 2147483648" in said(of(2**30, 8), of(5, 8), num_heads=2)
    assert "B * H * max(T, S) must be at most 2147483647, got 2147483648" in said(of(4, 8), of(2**30, 8), num_heads=2)
    assert "-> triton" in said(of(4, 2**22 - 1), of(5, 2**22 - 1))
    assert "rows must be of less than 4194304 numbers, got 4194304" in said(of(4, 2**22), of(5, 2**22))
    assert "-> triton" in said(of(4, 8), of(2**22, 8))
    assert "rows must be of less than 4194304 numbers, got 4194304" in said(of(4, 8), of(2**22, 8), dropout_p=0.1)
    fused = vk.explain("memory_fuse", of(4, 8), of(5, 8), None, of(2**22, 16), backend="triton")
    assert "rows must be of less than 4194304 numbers, got 4194304" in fused


def test_triton_is_preferred_where_it_alone_stores_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many scores of 16-bit rows and many slots, each no wider than its tiles; else the compiled library is."""
    monkeypatch.setattr(dispatch, "cpp_can_run", lambda x: "it runs on the CPU")
    monkeypatch.setattr(dispatch, "cuda_can_run", lambda x: None)
    monkeypatch.setattr(dispatch, "triton_can_run", lambda x: None)
    monkeypatch.setattr(plan, "keeps_weights", lambda *_: False)  # as on a GPU; of it, `holds` alone is seen here

    def of(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.zeros(1, dtype=dtype).expand(shape)

    def said(*tensors: torch.Tensor, op: str = "memory_attention", **options: Any) -> str:
        return vk.explain(op, *tensors, **options)

    rows, bank = of(8192, 64), of(1024, 64)
    text = said(rows, bank)
    assert "-> triton: serves this call (the fastest for it); holds no weights" in text
    assert "   cuda: could run; another is faster for it; holds 48.0 MiB of weights at a time" in text
    assert "-> triton" in said(of(8192, 64, dtype=torch.float16), of(1024, 64, dtype=torch.float16))
    assert "-> triton" in said(of(2, 4096, 64), of(2, 1, 1024, 64))
    assert "-> triton" in said(of(8192, 256), of(1024, 256))
    assert "-> cuda" in said(rows, bank, backend="cuda")
    for tensors, options in (
        ((of(8191, 64), bank), {}),
        ((of(16384, 64), of(1023, 64)), {}),
        ((of(8192, 257), of(1024, 257)), {}),
        ((rows, bank, of(1024, 257)), {}),
        ((of(8192, 64, dtype=torch.float32), of(1024, 64, dtype=torch.float32)), {}),
        ((rows, bank), {"top_k": 4}),
        ((rows, bank), {"dropout_p": 0.1}),
    ):
        assert "-> cuda: serves this call (the best that can run)" in said(*tensors, **options)
    # Of memory_fuse, what is read after folding counts: frames and results are wider than tiles.
    heads, weight = {"num_heads": 12, "op": "memory_fuse"}, of(768, 1536)
    assert "-> triton" in said(of(8192, 768), of(1024, 768), None, weight, fold=False, **heads)
    assert "-> cuda" in said(of(8192, 768), of(1024, 768), None, weight, fold=True, **heads)
    fused = {"op": "memory_fuse", "query_weight": of(256, 300)}
    narrow = of(8192, 300), of(1024, 256), None, of(2000, 556)
    assert "-> triton" in said(*narrow, **fused, fold=False)
    assert "-> cuda" in said(*narrow, **fused)
    assert "-> triton" in said(*narrow, **fused, normalize=True)  # whose keys do not fold
    with torch.no_grad():
        folded = vk.fold_bank(*narrow[1:], query_weight=fused["query_weight"])
        assert folded.projected
        assert folded.values is None
        assert "-> cuda" in said(*narrow, **fused, fold=folded)
    monkeypatch.setattr(dispatch, "triton_can_run", lambda x: "the package triton is not installed")
    assert "-> cuda: serves this call (the best that can run); holds 48.0 MiB" in said(rows, bank)


def test_rows_further_apart_than_32_bits_count_are_copied() -> None:
    x = torch.empty_strided((2, 3, 4), (1, 2**22, 1), device="meta")
    assert near_rows(x, 1).stride() == (12, 4, 1)
    assert near_rows(x[:, :1], 1).stride() == (1, 2**22, 1)  # a single row
    assert near_rows(x, 0) is x
    x = torch.empty_strided((2, 3, 4), (1, 2**22 - 1, 1), device="meta")
    assert near_rows(x, 1) is x


@pytest.mark.gpu
def test_which_backend_serves_a_call(cuda: None) -> None:
    x, bank = torch.randn(9, 16), torch.randn(5, 16)
    assert "-> cuda: serves this call" in vk.explain("memory_attention", x, bank)
    assert "-> cuda: serves this call" in vk.explain("memory_fuse", x, bank, None, torch.randn(4, 32), top_k=2)
    assert "-> reference: serves this call" in vk.explain("memory_attention", x.double(), bank.double())
    exact = vk.memory_attention(x.double().cpu(), bank.double().cpu(), backend="reference")
    torch.testing.assert_close(vk.memory_attention(x.double(), bank.double()).cpu(), exact)
    with pytest.raises(NotImplementedError, match="backend triton cannot serve this call: it has no form of the ops"):
        vk.memory_attention(x, bank, top_k=2, backend="triton")
    if dispatch.HAS_TRITON:
        many = torch.zeros(1, dtype=torch.bfloat16)
        text = vk.explain("memory_attention", many.expand(8192, 64), many.expand(1024, 64))
        assert "-> triton: serves this call (the fastest for it)" in text
