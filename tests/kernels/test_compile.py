"""What torch.compile, torch.export and fake tensors make of the ops, beyond one graph for every length."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from vtsum_kernels.integrations.flash_attn import flash_attn_varlen_func
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.fixture
def compiled_anew() -> None:
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize("dims", [(2, 3), (1, 3), (1, 2)])
def test_compiles_for_rows_that_are_not_dense(cpp: None, compiled_anew: None, dims: tuple[int, int]) -> None:
    def attend(x: Tensor) -> Tensor:
        q = x.transpose(*dims)
        out = vk.sliding_window_attention(q, q.exp(), q, 5)
        assert isinstance(out, Tensor)
        return out

    x = torch.randn(2, 3, 8, 12, requires_grad=True)
    results = []
    for form in (torch.compile(attend, backend="aot_eager", fullgraph=True), attend):
        out = form(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), x)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
    assert results[0][0].stride() == results[1][0].stride()


@pytest.mark.parametrize("layout", [(2, 3), (0, 1)])
def test_opcheck_over_layouts(cpp: None, layout: tuple[int, int]) -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares with its own empty tensors: no poison there
    q, k, v = (torch.randn(3, 2, 4, 5).transpose(*layout).requires_grad_() for _ in range(3))
    options = (1, 1, 1, False, 0.5, 0.0, 0)
    torch.library.opcheck(torch.ops.vtsum_kernels.sliding_window_attention_fwd, (q, k, v, *[None] * 4, *options, True))
    x, keys, values = (torch.randn(2, 3, 2, 4), torch.randn(2, 2, 4, 5), torch.randn(2, 2, 5, 4))
    laid_out = (x.transpose(2, 3).contiguous().transpose(2, 3), keys.transpose(2, 3), values)
    inputs = [t.detach().requires_grad_() for t in (*laid_out, torch.rand(2, 3, 2).transpose(1, 2))]
    torch.library.opcheck(torch.ops.vtsum_kernels.memory_flash_fwd, (*inputs, None, None, True))


def test_one_graph_serves_many_windows(cpp: None, compiled_anew: None) -> None:
    """0, 1 and what is wide are each compiled apart; nothing else is."""

    def attend(q: Tensor, window: Any, dilation: int) -> Any:
        return vk.sliding_window_attention(q, q, q, window, dilation=dilation)

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    q = torch.randn(1, 2, 24, 4, requires_grad=True)
    for cases in ([(n, 1) for n in range(3, 32, 2)], [((2, 2), n) for n in range(2, 12)]):
        torch._dynamo.reset()
        before = graphs()
        for window, dilation in cases:
            out, plain = compiled(q, window, dilation), attend(q, window, dilation)
            torch.testing.assert_close(out, plain)
            torch.testing.assert_close(*(torch.autograd.grad(o.square().sum(), q)[0] for o in (out, plain)))
        assert graphs() - before <= 2


def test_one_graph_serves_many_counts_of_slots(cpp: None, compiled_anew: None) -> None:
    compiled = torch.compile(vk.memory_attention, backend="aot_eager", fullgraph=True)
    x, keys = torch.randn(9, 8), torch.randn(20, 8)
    for top_k in range(2, 14):
        torch.testing.assert_close(compiled(x, keys, top_k=top_k), vk.memory_attention(x, keys, top_k=top_k))
    assert graphs() <= 2


MODULES = {
    "layer": lambda: MemoryBank(6, 8),
    "heads": lambda: MemoryBank(6, 8, num_heads=2),
    "best": lambda: MemoryBank(6, 8, top_k=3),
    "gate": lambda: MemoryBank(6, 8, fuse="gate", query_proj=True),
    "window": lambda: SlidingWindowAttention(8, 2, 5),
}


@pytest.mark.parametrize("name", MODULES)
def test_exports_for_every_length_and_saves(cpp: None, name: str) -> None:
    module = MODULES[name]().eval()
    frames = torch.export.Dim("frames", min=2)
    program = torch.export.export(module, (torch.randn(2, 5, 8),), dynamic_shapes=({1: frames},))
    kept = io.BytesIO()
    torch.export.save(program, kept)
    kept.seek(0)
    loaded = torch.export.load(kept).module()
    for count in (2, 3, 40):
        x = torch.randn(2, count, 8)
        torch.testing.assert_close(loaded(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["cpp", "reference", "auto"])
@pytest.mark.parametrize("normalize", ["window", "global"])
def test_packed_sequences_of_fake_tensors(cpp: None, backend: str, normalize: str) -> None:
    """Their values are not there to be looked at."""
    given = [torch.randn(10, 2, 8) for _ in "qkv"]
    ends = torch.tensor([0, 4, 10])
    options: dict[str, Any] = {"normalize": normalize, "return_lse": True, "backend": backend}
    real = vk.sliding_window_attention(*given, 5, cu_seqlens=ends, **options)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in (*given, ends)]
        fake = vk.sliding_window_attention(*fakes[:3], 5, cu_seqlens=fakes[3], **options)
    assert [(x.shape, x.stride()) for x in fake] == [(x.shape, x.stride()) for x in real]


def test_packed_calls_compile_whatever_their_ends(cpp: None, compiled_anew: None) -> None:
    """Two tensors of ends may hold the same values, or others: the graph is one."""
    q = torch.randn(10, 2, 8, requires_grad=True)

    def attend(q: Tensor, ours: Tensor, theirs: Tensor) -> Any:
        return flash_attn_varlen_func(q, q, q, ours, theirs, 7, 7, causal=True, window_size=(3, 0))

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    ends = [torch.tensor(values, dtype=torch.int32) for values in ([0, 4, 10], [0, 4, 10], [0, 7, 10], [0, 0, 10])]
    for theirs in ends[1:]:
        out, plain = compiled(q, ends[0], theirs), attend(q, ends[0], theirs)
        torch.testing.assert_close(out, plain)
        torch.testing.assert_close(*(torch.autograd.grad(o.square().sum(), q)[0] for o in (out, plain)))
    assert graphs() == 1
    torch.testing.assert_close(compiled(q, ends[0], ends[0]), attend(q, ends[0], ends[0]))
