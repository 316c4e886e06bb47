"""What torch asks of an op: gradcheck, torch.compile, and a clear word about second derivatives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

pytestmark = pytest.mark.usefixtures("cpp")


@pytest.fixture
def quiet_memory() -> Any:
    """gradcheck compares against their own empty tensors: no poison there."""
    torch.use_deterministic_algorithms(False)


def random(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=grad)


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


def test_second_derivatives_are_refused_by_the_compiled_kernels_and_right_in_the_reference(quiet_memory: None) -> None:
    def window(backend: str) -> Callable[..., torch.Tensor]:
        return lambda *qkv: vk.sliding_window_attention(*qkv, 3, backend=backend)

    qkv = tuple(random(1, 1, 5, 3, dtype=torch.float64) for _ in range(3))
    (dq,) = torch.autograd.grad(window("cpp")(*qkv).square().sum(), qkv[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='not supported by the compiled kernels; use backend="reference"'):
        dq.sum().backward()
    assert torch.autograd.gradgradcheck(window("reference"), qkv)


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
