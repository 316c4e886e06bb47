"""What torch asks of the memory ops: gradcheck, torch.compile, strides; no second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan

pytestmark = pytest.mark.usefixtures("cpp")
OPS = torch.ops.vtsum_kernels


@pytest.fixture
def quiet_memory() -> None:
    """opcheck and gradcheck compare against their own empty tensors: no poison there."""
    torch.use_deterministic_algorithms(False)


def random(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=grad)


def still(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.detach() for t in tensors]


@pytest.mark.parametrize("full", [False, True])
def test_opcheck_of_the_layer(quiet_memory: None, full: bool) -> None:
    x, weight, bank, bias = random(9, 8), random(5, 8), random(7, 5), random(5) if full else None
    keys, scale = random(7, 8), torch.tensor(2.0, requires_grad=True)
    slot_bias, mask = (random(7), torch.rand(9) > 0.3) if full else (None, None)
    torch.library.opcheck(OPS.memory_layer_fwd, (x, keys, bank, weight, bias, scale, slot_bias, mask, full))
    y, kept, usage, inverse = OPS.memory_layer_fwd(x, keys, bank, weight, bias, scale, slot_bias, mask, full)
    saved = still(y, usage, x, keys, bank, weight, scale, mask, kept, inverse)
    for wanted in ([True] * 7, [full, False, True, False, False, full, False]):
        torch.library.opcheck(OPS.memory_layer_bwd, (*saved, full, wanted))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"normalize": True},
    "sparse": {"top_k": 3},
    "blocks": {},
    "unfolded": {"fold": False},
    "norm": {"norm": (None, None, 1e-5)},
}


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", list(OPTIONS))
def test_gradcheck(quiet_memory: None, monkeypatch: pytest.MonkeyPatch, backend: str, heads: int, kind: str) -> None:
    if kind == "blocks":
        monkeypatch.setattr(plan, "KEPT_WEIGHTS", 0)
        monkeypatch.setattr(plan, "BLOCK_SCORES", 8)
    wide = {"dtype": torch.float64}
    x, keys, values, weight = random(5, 6, **wide), random(4, 6, **wide), random(4, 4, **wide), random(3, 10, **wide)
    bias, projection = random(heads, 4, **wide), random(6, 6, **wide)
    scale = torch.tensor(1.5, **wide, requires_grad=True)
    mask = torch.tensor([True, True, False, True, True])
    options = {**OPTIONS[kind], "num_heads": heads, "query_mask": mask, "return_usage": True, "backend": backend}

    def layer(x: Tensor, keys: Tensor, values: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, q: Tensor) -> Any:
        return vk.memory_fuse(x, keys, values, weight, query_weight=q, slot_bias=bias, scale=scale, **options)

    assert torch.autograd.gradcheck(layer, (x, keys, values, weight, bias, scale, projection))
    apart = {name: value for name, value in options.items() if name not in ("fold", "norm", "query_mask")}

    def read(x: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Any:
        return vk.memory_attention(x, keys, values, slot_bias=bias, scale=scale, return_lse=True, **apart)

    assert torch.autograd.gradcheck(read, (x, keys, values, bias, scale))


def test_second_derivatives_are_refused_by_the_compiled_kernels_and_right_elsewhere(quiet_memory: None) -> None:
    x, keys, weight = (random(*shape, dtype=torch.float64) for shape in ((4, 3), (5, 3), (2, 6)))
    for call in (
        lambda backend: vk.memory_attention(x, keys, backend=backend),
        lambda backend: vk.memory_fuse(x, keys, None, weight, fold=True, backend=backend),
    ):
        (dx,) = torch.autograd.grad(call("cpp").square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"gradients of its gradients are not supported"):
            dx.sum().backward()
        (dx,) = torch.autograd.grad(call("reference").square().sum(), x, create_graph=True)
        dx.sum().backward()
    index = torch.randint(0, 5, (1, 1, 4, 2), dtype=torch.int32)
    weights = random(1, 1, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda w, t: OPS.memory_gather(w, index, t), (weights, keys[None, None]))


CALLS: dict[str, Callable[..., Any]] = {
    "cosine": lambda x, keys, weight, mask: vk.memory_attention(x, keys, normalize=True, num_heads=2, return_lse=True),
    "layer": lambda x, keys, weight, mask: vk.memory_fuse(
        x, keys, None, weight, normalize=True, scale=4.0, query_mask=mask, fold=True, return_usage=True
    ),
    "heads": lambda x, keys, weight, mask: vk.memory_fuse(x, keys, None, weight, num_heads=2, residual=x, fold=True),
    "unfolded": lambda x, keys, weight, mask: vk.memory_fuse(x, keys, None, weight, norm=(None, None, 1e-5)),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_compiles_to_one_graph_for_every_length(name: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    call = CALLS[name]
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    keys, weight = random(9, 16), random(16, 32)
    for frames in (12, 31):
        x, mask = random(2, frames, 16), torch.rand(2, frames) > 0.2
        results = []
        for form in (compiled, call):
            outputs = form(x, keys, weight, mask)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            total = sum(output.square().sum() for output in outputs)
            results.append([*outputs, *torch.autograd.grad(total, [x, keys])])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("batched", [False, True])
def test_strides_do_not_matter(batched: bool) -> None:
    x = random(2, 12, 30).transpose(1, 2)[:, ::2] if batched else random(12, 30).t()[::2]
    views = [x, random(12, 7).t(), random(10, 7).t(), random(22, 5).t()]
    for options in ({}, {"num_heads": 2}, {"normalize": True}, {"top_k": 3}):
        results = []
        for tensors in (views, [t.contiguous() for t in views]):
            outputs = [
                vk.memory_attention(*tensors[:3], **options),  # type: ignore[arg-type]
                vk.memory_fuse(*tensors[:3], tensors[3], **options),  # type: ignore[arg-type]
            ]
            total = outputs[0].square().sum() + outputs[1].sum()
            results.append([*outputs, *torch.autograd.grad(total, tensors)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected)


def test_autocast_and_inference_mode() -> None:
    x, keys, weight = random(2, 12, 16, grad=False), random(5, 16, grad=False), random(16, 32, grad=False)
    exact = vk.memory_fuse(x, keys, None, weight)
    with torch.inference_mode():
        torch.testing.assert_close(vk.memory_fuse(x, keys, None, weight), exact)
        torch.testing.assert_close(vk.memory_fuse(x.clone(), keys.clone(), None, weight.clone()), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = vk.memory_fuse(x, keys, None, weight)
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()
