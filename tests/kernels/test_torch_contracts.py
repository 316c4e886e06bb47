"""What torch asks of an op: opcheck, gradcheck, torch.compile, and a clear word about second derivatives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

pytestmark = pytest.mark.usefixtures("cpp")
OPS = torch.ops.vtsum_kernels


@pytest.fixture
def quiet_memory() -> Any:
    """opcheck and gradcheck compare against their own empty tensors: no poison there."""
    torch.use_deterministic_algorithms(False)


def random(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("need_lse", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_opcheck_of_the_window(quiet_memory: None, dtype: torch.dtype, need_lse: bool, full: bool) -> None:
    """full: with a mask, packed sequences, a bias, dropout, shifted windows and fewer key heads."""
    q = random(1, 4, 20, 16, dtype=dtype)
    k = random(1, 2 if full else 4, 20, 16, dtype=dtype)
    v = random(1, 20, k.shape[1], 16, dtype=dtype).transpose(1, 2).detach().requires_grad_()
    extras: tuple[Any, ...] = (None, None, None, None)
    if full:
        cu_seqlens = torch.tensor([0, 12, 20], dtype=torch.int32)
        extras = (torch.rand(1, 20) > 0.3, cu_seqlens, random(4, 7), torch.tensor([7]))
    options = (2, 1, 1, full, 0.25, 0.3 if full else 0.0)
    torch.library.opcheck(OPS.sliding_window_attention_fwd, (q, k, v, *extras, *options, need_lse))
    dlse = random(1, 4, 20, grad=False) if need_lse else None
    grads = [x.detach() for x in (random(1, 4, 20, 16, dtype=dtype), q, k, v)]
    extras = tuple(x if x is None else x.detach() for x in extras)
    torch.library.opcheck(OPS.sliding_window_attention_bwd, (*grads, *extras, dlse, None, None, *options))


def test_opcheck_of_the_whole_sequences_lse(quiet_memory: None) -> None:
    q, k, bias = random(1, 4, 12, 8), random(1, 2, 12, 8), random(4, 4)
    mask, cu_seqlens = torch.rand(1, 12) > 0.3, torch.tensor([0, 5, 12], dtype=torch.int32)
    torch.library.opcheck(OPS.global_lse_fwd, (q, k, mask, cu_seqlens, bias, 2, 1, 1, False, 0.25))


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_gradcheck_of_the_window(quiet_memory: None, backend: str, dilation: int) -> None:
    qkv = tuple(random(1, 2, 9, 3, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[:, 4:6] = False

    def call(*qkv: torch.Tensor) -> Any:
        return vk.sliding_window_attention(
            *qkv, 3, dilation=dilation, key_padding_mask=mask, return_lse=True, backend=backend
        )

    # Two padded keys leave every row at least one, so that lse is finite and has a derivative.
    assert torch.autograd.gradcheck(call, qkv)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradcheck_of_the_memory(quiet_memory: None, backend: str, normalize: bool) -> None:
    x, keys, values = (random(n, 6, dtype=torch.float64) for n in (5, 4, 4))
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> Any:
        return vk.memory_attention(
            x,
            keys,
            values,
            num_heads=2,
            scale=scale,
            normalize=normalize,
            return_lse=True,
            return_usage=True,
            backend=backend,
        )

    assert torch.autograd.gradcheck(call, (x, keys, values, scale))


def test_second_derivatives_are_refused_by_the_compiled_kernels_and_right_in_the_reference(quiet_memory: None) -> None:
    def window(backend: str) -> Callable[..., torch.Tensor]:
        return lambda *qkv: vk.sliding_window_attention(*qkv, 3, backend=backend)

    qkv = tuple(random(1, 1, 5, 3, dtype=torch.float64) for _ in range(3))
    (dq,) = torch.autograd.grad(window("cpp")(*qkv).square().sum(), qkv[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='not supported by the compiled kernels; use backend="reference"'):
        dq.sum().backward()
    assert torch.autograd.gradgradcheck(window("reference"), qkv)
    x, keys = random(4, 3, dtype=torch.float64), random(5, 3, dtype=torch.float64)
    (dx,) = torch.autograd.grad(vk.memory_attention(x, keys, backend="cpp").square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="gradients of its gradients are not supported"):
        dx.sum().backward()


def model_and_call() -> tuple[list[torch.Tensor], Callable[..., torch.Tensor]]:
    window, bank = SlidingWindowAttention(16, 2, 5), MemoryBank(8, 16)
    return [window.qkv.weight, bank.memory, bank.log_scale], lambda x, mask: bank(window(x, mask), mask)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles_to_one_graph_for_every_length(compiler: str) -> None:
    if compiler == "inductor" and not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("inductor needs a C++ compiler on the CPU, none was found")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if compiler == "inductor":
        compiled: Any = torch.compile(lambda *a: vk.sliding_window_attention(*a, 5) * 2, fullgraph=True, dynamic=True)
        plain: Any = lambda *a: vk.sliding_window_attention(*a, 5) * 2  # noqa: E731
        parameters: list[torch.Tensor] = []
    else:
        parameters, plain = model_and_call()
        compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend=compiler)
    for frames in (12, 31, 46):
        if compiler == "inductor":
            inputs: list[torch.Tensor] = [random(1, 2, frames, 8) for _ in range(3)]
            wanted = inputs
        else:
            mask = torch.ones(2, frames, dtype=torch.bool)
            mask[1, 9:] = False
            inputs, wanted = [random(2, frames, 16), mask], []
        results = []
        for call in (compiled, plain):
            out = call(*inputs)
            results.append([out, *torch.autograd.grad(out.square().sum(), [*wanted, *parameters])])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_autocast_and_inference_mode() -> None:
    window, bank = SlidingWindowAttention(16, 2, 5), MemoryBank(8, 16, fuse="gate")
    x = torch.randn(2, 12, 16)
    exact = bank(window(x))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = bank(window(x))
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()
