"""Gradients by torch.autograd.gradcheck, and a clear word about second derivatives."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan

OPS = torch.ops.vtsum_kernels


@pytest.fixture(autouse=True)
def quiet_memory(poison: None) -> None:
    """gradcheck compares against its own empty tensors: no poison there."""
    torch.use_deterministic_algorithms(False)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=True)


#: Options of the window op. Padded keys leave every row at least one, so that lse is finite and has a derivative.
WINDOWS: dict[str, dict[str, Any]] = {
    "padding": {"padded": [4, 5]},
    "dilation": {"padded": [4, 5], "dilation": 2},
    "shift": {"border": "shift", "entries": 5, "ends": [0, 5, 8], "dropout_p": 0.3},
    "global": {"normalize": "global", "entries": 3, "ends": [0, 5, 8], "dropout_p": 0.3},
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(cpu_backend: str, name: str) -> None:
    options = dict(WINDOWS[name])
    entries, ends, padded = (options.pop(key, None) for key in ("entries", "ends", "padded"))
    leaves = [random(1, heads, 8, 2) for heads in (2, 1, 1)]
    if padded:
        options["key_mask"] = torch.ones(1, 8, dtype=torch.bool).index_fill_(1, torch.tensor(padded), False)
    if ends:
        options["cu_seqlens"] = torch.tensor(ends)
        leaves = [x.detach()[0].transpose(0, 1).contiguous().requires_grad_() for x in leaves]
    if entries:
        leaves.append(random(2, entries))

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Any:
        torch.manual_seed(0)
        return vk.sliding_window_attention(q, k, v, 3, bias=bias, return_lse=True, backend=cpu_backend, **options)

    assert torch.autograd.gradcheck(call, leaves)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"normalize": True},
    "sparse": {"top_k": 3},
    "blocks": {},
    "unfolded": {"fold": False},
    "norm": {"norm": (None, None, 1e-5)},
}


@pytest.mark.parametrize(
    ("kind", "heads"), [*((kind, 2) for kind in OPTIONS), ("plain", 1), ("cosine", 1)]
)  # one head: all in one op
def test_reads(monkeypatch: pytest.MonkeyPatch, cpu_backend: str, heads: int, kind: str) -> None:
    if kind == "blocks":
        monkeypatch.setattr(plan, "KEPT_WEIGHTS", 0)
        monkeypatch.setattr(plan, "BLOCK_SCORES", 8)
    x, keys, values, weight = random(5, 4), random(4, 4), random(4, 2), random(2, 6)
    bias, projection = random(heads, 4), random(4, 4)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, True, False, True, True])
    options = {**OPTIONS[kind], "num_heads": heads, "query_mask": mask, "return_usage": True, "backend": cpu_backend}

    def layer(x: Tensor, keys: Tensor, values: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, q: Tensor) -> Any:
        return vk.memory_fuse(x, keys, values, weight, query_weight=q, slot_bias=bias, scale=scale, **options)

    assert torch.autograd.gradcheck(layer, (x, keys, values, weight, bias, scale, projection))
    if kind in ("unfolded", "norm"):
        return  # a read is that of "plain"
    apart = {name: value for name, value in options.items() if name != "query_mask"}

    def read(x: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Any:
        return vk.memory_attention(x, keys, values, slot_bias=bias, scale=scale, return_lse=True, **apart)

    assert torch.autograd.gradcheck(read, (x, keys, values, bias, scale))


def test_second_derivatives_are_refused_by_the_compiled_kernels(compiled: str) -> None:
    q, k, v = (random(1, 1, 5, 8, dtype=torch.float32) for _ in range(3))
    x, keys, weight = (random(*shape, dtype=torch.float32) for shape in ((4, 8), (5, 8), (2, 16)))
    of_windows, of_reads = (
        'not supported by the compiled kernels; use backend="reference"',
        "gradients of its gradients",
    )
    for out, leaf, said in (
        (vk.sliding_window_attention(q, k, v, 3, backend=compiled), q, of_windows),
        (vk.memory_attention(x, keys, backend=compiled), x, of_reads),
        (vk.memory_fuse(x, keys, None, weight, fold=True, backend=compiled), x, of_reads),
    ):
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match=said):
            gradient.sum().backward()


def test_second_derivatives_of_the_references_and_of_sums_over_chosen_slots_are_right(cpp: None) -> None:
    q, k, v = (random(1, 1, 4, 2) for _ in range(3))
    window = functools.partial(vk.sliding_window_attention, window_size=3, backend="reference")
    assert torch.autograd.gradgradcheck(window, (q, k, v))
    x, keys, weight = random(3, 2), random(4, 2), random(2, 4)
    for call in (vk.memory_attention, lambda x, keys, **o: vk.memory_fuse(x, keys, None, weight, fold=True, **o)):
        assert torch.autograd.gradgradcheck(lambda *t, call=call: call(*t, backend="reference"), (x, keys))
    index, weights = torch.randint(0, 4, (1, 1, 3, 2), dtype=torch.int32), random(1, 1, 3, 2)
    assert torch.autograd.gradgradcheck(lambda w, t: OPS.memory_gather(w, index, t), (weights, keys[None, None]))
