"""Which backend serves a call, the words for it, the environment's say in it, and every instruction set of the CPU."""

from __future__ import annotations

import os
import sys

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels.integrations.flash_attn import flash_attn_func
from vtsum_kernels.integrations.natten import na1d
from vtsum_kernels.integrations.sdpa import scaled_dot_product_attention
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

from tests import forked

QKV = tuple(torch.zeros(1, 2, 9, 8) for _ in range(3))


def python(code: str, **environment: str) -> str:
    done = forked.run([sys.executable, "-c", code], env={**os.environ, **environment}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_explain_names_the_choice_and_the_reasons(cpp: None) -> None:
    text = vk.explain("sliding_window_attention", *QKV, 5)
    assert "-> cpp: serves this call (the best that can run)" in text
    assert "   reference: could run; another is faster for it" in text
    text = vk.explain(vk.sliding_window_attention, *QKV, 5, backend="reference")
    assert "-> reference: serves this call (asked for)" in text
    assert "   cpp: could run; another was asked for" in text
    wide = torch.zeros(1, 1, 2000, 8)
    text = vk.explain("sliding_window_attention", wide, wide, wide, (-1, -1))
    assert "   cpp: cannot: a window holds 3999 keys, more than 1025" in text
    assert "-> flash: serves this call (the fastest for it)" in text
    assert text.count("a NaN may reach rows that do not see it") == 1
    text = vk.explain("sliding_window_attention", wide, wide, wide, 601, dropout_p=0.1)
    assert "   flash: cannot: it does not serve dropout" in text
    assert "-> cpp: serves this call (the best that can run)" in text
    forced = vk.explain("sliding_window_attention", wide, wide, wide, (-1, -1), backend="cpp")
    assert "->" not in forced
    assert "backend cpp cannot serve this call" in forced


def test_explain_runs_what_calls_ops(cpp: None) -> None:
    q, k = torch.randn(1, 3, 2, 8), torch.randn(1, 9, 2, 8)
    text = vk.explain(flash_attn_func, q, k, k, window_size=(2, 0))
    assert text.startswith("flash_attn_func:\nsliding_window_attention:\n-> cpp: serves this call")
    text = vk.explain(na1d, k, k, k, 5, backend="cuda")
    assert "na1d:\nsliding_window_attention:\n   cpp: could run; another was asked for; holds " in text
    assert "na1d: " not in vk.explain(na1d, k, k, k, 5)  # a call that is refused leaves nothing behind
    heads = k.transpose(1, 2)
    text = vk.explain(scaled_dot_product_attention, heads, heads, heads)
    assert text == "scaled_dot_product_attention:\nno op of vtsum_kernels serves this call: torch's own do"
    text = vk.explain(torch.nn.Sequential(SlidingWindowAttention(8, 2, 5), MemoryBank(4, 8)), torch.randn(1, 9, 8))
    assert text.startswith("Sequential:\nsliding_window_attention:\n-> cpp")
    assert "\nmemory_fuse:\n-> cpp" in text
    with pytest.raises(ValueError, match="flash_attn_func: q must be of shape"):
        vk.explain(flash_attn_func, q[0], k, k)


def test_a_recorded_call_reads_no_schema_and_no_signature(cpp: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either takes longer than the kernel of a small call: torch.library's registration reads the one, a Function with
    `setup_context` the other."""

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("a call was slow")

    monkeypatch.setattr(torch._library.utils, "fill_defaults", refused)
    monkeypatch.setattr(torch.autograd.function.inspect, "signature", refused)
    q = torch.randn(1, 2, 9, 8, requires_grad=True)
    vk.sliding_window_attention(q, q, q, 5).sum().backward()
    x, bank = torch.randn(3, 8, requires_grad=True), torch.randn(64, 8, requires_grad=True)
    vk.memory_attention(x, bank, top_k=4).sum().backward()
    weight = torch.randn(8, 16, requires_grad=True)
    vk.memory_fuse(x, bank, None, weight).sum().backward()
    for given in (q, x, bank, weight):
        assert given.grad is not None


def test_explain_checks_the_call_and_the_name() -> None:
    with pytest.raises(ValueError, match=r"op must be one of memory_attention, memory_fuse, .*, got softmax"):
        vk.explain("softmax")
    with pytest.raises(ValueError, match="window_size must be odd"):
        vk.explain("sliding_window_attention", *QKV, 4)


CALL = """
import torch, vtsum_kernels as vk
q = torch.zeros(1, 1, 5, 8)
print(vk.explain('sliding_window_attention', q, q, q, 3))
"""


def test_the_environment_chooses_where_the_call_does_not() -> None:
    text = python(CALL, VTSUM_KERNELS_BACKEND="reference")
    assert "-> reference: serves this call (set by VTSUM_KERNELS_BACKEND)" in text
    failing = CALL.replace(
        "print(vk.explain('sliding_window_attention', q, q, q, 3))", "vk.sliding_window_attention(q, q, q, 3)"
    )
    with pytest.raises(AssertionError, match=r"VTSUM_KERNELS_BACKEND must be one of auto, .*, got fast"):
        python(failing, VTSUM_KERNELS_BACKEND="fast")


def test_without_the_compiled_kernels_the_reference_serves() -> None:
    text = python(CALL, VTSUM_KERNELS_DISABLE_COMPILED="1")
    assert "-> reference: serves this call (the best that can run)" in text
    assert "cpp: cannot: the compiled CPU kernels are not loaded: VTSUM_KERNELS_DISABLE_COMPILED=1" in text


LEVELS = """
import torch, vtsum_kernels as vk
torch.manual_seed(0)
print(vk.build_info()["cpu_level"])
for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12), (torch.float16, 5e-3), (torch.bfloat16, 8e-3)):
    for frames, dim, window in ((150, 64, 5), (70, 24, 9), (40, 7, (3, 0))):
        q, k, v = (torch.randn(2, 2, frames, dim).to(dtype).requires_grad_() for _ in range(3))
        mask = torch.rand(2, frames) > 0.2
        mask[0] = True
        results = []
        for backend in ("cpp", "reference"):
            out, lse = vk.sliding_window_attention(
                q, k, v, window, key_mask=mask, return_lse=True, backend=backend)
            lse = lse.masked_fill(lse.isinf(), 0)
            results.append((out, lse, *torch.autograd.grad((out * out).sum() + lse.sum(), (q, k, v))))
        for got, expected in zip(*results):
            ratio = ((got - expected).double().norm() / expected.double().norm()).item()
            assert ratio < bound, (dtype, frames, dim, window, ratio)
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    x, bank, weight = (torch.randn(n, d).to(dtype).requires_grad_() for n, d in ((50, 25), (37, 25), (25, 50)))
    bias = torch.randn(37)
    for top_k in (None, 5):
        results = []
        for backend in ("cpp", "reference"):
            options = dict(normalize=True, scale=16.0, slot_bias=bias, top_k=top_k, return_usage=True, backend=backend)
            out, usage = vk.memory_attention(x, bank, **options)
            y, _ = vk.memory_fuse(x, bank, None, weight, **options)
            total = (out * out).sum() + usage.square().sum() + y.square().sum()
            results.append((out, usage, y, *torch.autograd.grad(total, (x, bank, weight))))
        for got, expected in zip(*results):
            bound = 2e-4 if dtype != torch.bfloat16 else 2e-2
            torch.testing.assert_close(got, expected, rtol=bound, atol=bound * expected.abs().max().item())
from vtsum_kernels.memory_attention import search
x, keys, factor = torch.randn(70, 45), torch.randn(3000, 45), torch.ones(70)
found = []
for short in (False, True):
    search.FAST_BFLOAT16, search.shortlists = short, lambda *sizes: True
    found.append(torch.ops.vtsum_kernels.memory_topk(x[None, :, None], keys[None, None], factor[None, None], None, 9))
assert all(torch.equal(a, b) for a, b in zip(*found))
# Half precision's corners through the conversion: subnormals, the largest, infinities.
corners = torch.tensor([0.0, -0.0, 6e-8, 6.1e-5, 65504.0, -65504.0, 1.0, float("inf")], dtype=torch.float16)
v = corners.repeat(1, 1, 20, 1)
q = torch.zeros_like(v)
assert torch.equal(vk.sliding_window_attention(q, q, v, 1, backend="cpp"), v)
"""


@pytest.mark.parametrize("level", ["avx512", "avx2", "portable"])
def test_every_instruction_set_gives_the_same_numbers(cpp: None, level: str) -> None:
    if level not in vk.build_info()["build"]["libraries"]["_cpu"]["levels"]:
        pytest.skip(f"this processor's architecture has no {level}")
    got = python(LEVELS, VTSUM_KERNELS_CPU_LEVEL=level).split()[0]
    order = ["portable", "avx2", "avx512"]
    widest = vk.build_info()["cpu_level"]
    assert got == min(level, widest, key=order.index)
