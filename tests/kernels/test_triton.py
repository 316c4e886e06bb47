"""The Triton kernels' numbers, in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

CODE = """
import torch, vtsum_kernels as vk
torch.manual_seed(0)
blind = 0
cases = [(torch.float32, 70, 64, 5, 1, 1e-5), (torch.bfloat16, 33, 24, (3, 0), 2, 8e-3),
         (torch.float16, 20, 40, (-1, 2), 1, 5e-3),
         (torch.float32, 1, 8, 3, 1, 1e-5), (torch.float32, 0, 8, 3, 1, 1e-5)]
for dtype, frames, dim, window, dilation, bound in cases:
    qkv = [torch.randn(2, frames, 2, dim).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    padded = torch.rand(2, frames) > 0.4
    padded[0] = True
    padded[1, 10 if frames > 10 else 0 :] = False
    for mask in (None, padded):
        results, hidden = [], []
        for backend in ("triton", "reference"):
            inputs = [x.detach().double().requires_grad_() if backend == "reference" else x for x in qkv]
            out, lse = vk.sliding_window_attention(
                *inputs, window, dilation=dilation, key_padding_mask=mask, return_lse=True, backend=backend)
            finite = lse.masked_fill(lse.isinf(), 0)
            results.append((out, finite, *torch.autograd.grad((out * out).sum() + finite.sum(), inputs)))
            hidden.append(lse.isinf())
        assert torch.equal(*hidden)
        blind += hidden[0].sum().item()
        for name, got, expected in zip(("out", "lse", "dq", "dk", "dv"), *results):
            assert got.shape == expected.shape
            error, size = (got.double() - expected).norm().item(), expected.norm().item()
            assert error <= bound * size + 1e-6, (name, dtype, frames, dim, window, error, size)
assert blind > 0  # some rows saw nothing
q = torch.zeros(1, 1, 4, 8)
print(vk.explain("sliding_window_attention", q, q, q, 3, backend="triton"))
"""


@pytest.mark.slow
def test_numbers_in_the_interpreter() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed (pip install triton)")
    done = subprocess.run(
        [sys.executable, "-c", CODE], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "-> triton: serves this call (asked for)" in done.stdout
