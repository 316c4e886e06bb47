"""Wide windows through torch's flash attention, on the CPU: the numbers of the definition."""

from __future__ import annotations

import pytest
import torch
import vtsum_kernels as vk

from tests.kernels import definitions
from tests.kernels.comparisons import gradients, hold


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(("frames", "sides"), [(96, (-1, -1)), (40, (-1, 39)), (7, (30, 6))])
def test_matches_the_definition(dtype: torch.dtype, frames: int, sides: tuple[int, int]) -> None:
    inputs = [torch.randn(2, n, frames, 16).to(dtype).requires_grad_() for n in (4, 2, 2)]
    results = []
    for which in (inputs, [x.detach().double().requires_grad_() for x in inputs]):
        out = definitions.sliding_window_attention(*which, *sides)[0]
        results.append([out, *gradients([out], which, 1)])
    out = vk.sliding_window_attention(*inputs, sides, backend="flash")
    got = [out, *gradients([out], inputs, 1)]
    for name, ours, eager, exact in zip(("out", "dq", "dk", "dv"), got, *results, strict=True):
        hold(name, ours, exact, eager, condition=2.0)  # torch's kernel sums in another order than eager does


def test_a_single_frame_gets_its_own_value() -> None:
    q, k, v = (torch.randn(1, 2, 1, 8, requires_grad=True) for _ in range(3))
    out = vk.sliding_window_attention(q, k, v, 5, backend="flash")
    torch.testing.assert_close(out, v)
    dq, dk, dv = torch.autograd.grad(out.sum(), (q, k, v))
    torch.testing.assert_close(dv, torch.ones_like(dv))
    assert max(dq.abs().max(), dk.abs().max()) < 1e-6


@pytest.mark.parametrize("shape", [(2, 3, 0, 8), (0, 3, 5, 8)])
def test_empty_input(shape: tuple[int, ...]) -> None:
    qkv = [torch.zeros(shape, requires_grad=True) for _ in range(3)]
    out = vk.sliding_window_attention(*qkv, 9, backend="flash")
    assert out.shape == shape
    assert all(gradient.shape == shape for gradient in torch.autograd.grad(out.sum(), qkv))


def test_what_it_does_not_serve_it_refuses_by_name() -> None:
    q = torch.zeros(1, 2, 9, 8)
    for options, reason in (
        ({"border": "shift"}, "shifted windows"),
        ({"bias": torch.zeros(2, 5)}, "a relative bias"),
        ({"dilation": 2}, "dilation"),
        ({"dropout_p": 0.1}, "dropout"),
        ({"return_lse": True}, "lse with a gradient"),
        ({"normalize": "global"}, "lse with a gradient"),
    ):
        with pytest.raises(NotImplementedError, match=f"backend flash cannot serve this call: .*{reason}"):
            vk.sliding_window_attention(q, q, q, 5, backend="flash", **options)
    for window, mask in (((8, 7), None), ((-1, -1), torch.ones(1, 9, dtype=torch.bool))):
        with pytest.raises(NotImplementedError, match="windows that hold the whole sequence, without padding"):
            vk.sliding_window_attention(q, q, q, window, key_mask=mask, backend="flash")
    with pytest.raises(NotImplementedError, match="does not serve packed sequences"):
        vk.sliding_window_attention(q[0], q[0], q[0], 5, cu_seqlens=torch.tensor([0, 2]), backend="flash")
