"""Wide windows by blocks of products: the definition's numbers, memory of a block, and who serves which call."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels.sliding_window_attention import blockwise

from tests.kernels.window_calls import compare


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, and parts of the heads, in a short sequence."""
    monkeypatch.setattr(blockwise, "_ROWS", 16)
    monkeypatch.setattr(blockwise, "_SCORES", 16 * 50 * 2)


CASES: dict[str, dict[str, Any]] = {
    "band": {"sides": (20, 5)},
    "narrow": {},
    "unbounded": {"sides": (-1, 3), "key_heads": 1},
    "whole": {"sides": (-1, -1), "padded": 0.3, "shape": (3, 2, 70, 8)},
    "dilated": {"sides": (5, 9), "dilation": 3},
    "shifted": {"sides": (7, 3), "border": "shift"},
    "shifted past the ends": {"sides": (60, 30), "border": "shift"},
    "shifted, dilated, bias": {"sides": (7, 3), "border": "shift", "dilation": 4, "with_bias": True},
    "bias": {"sides": (20, 9), "with_bias": True, "padded": 0.2},
    "bias past the ends": {"sides": (100, 100), "with_bias": True},
    "packed": {"shape": (1, 4, 70, 8), "key_heads": 2, "ends": [0, 20, 20, 70], "sides": (15, 4), "with_bias": True},
    "all": {
        "shape": (1, 4, 40, 8), "key_heads": 2, "ends": [0, 20, 20, 40], "sides": (15, 4), "dropout_p": 0.3,
        "padded": 0.2, "dilation": 2,
    },
    "all shifted": {
        "shape": (1, 2, 30, 7), "border": "shift", "sides": (4, 4), "dropout_p": 0.5, "with_bias": True, "padded": 0.1,
    },
    "global": {"normalize": "global", "sides": (9, 9)},
    "one frame": {"shape": (1, 1, 1, 4)},
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_matches_the_definition(small_blocks: None, case: dict[str, Any], dtype: torch.dtype) -> None:
    compare("blockwise", dtype, **case)


@pytest.mark.parametrize("shape", [(2, 3, 0, 8), (0, 3, 5, 8), (2, 0, 5, 8)])
def test_empty_input(shape: tuple[int, ...]) -> None:
    qkv = [torch.zeros(shape, requires_grad=True) for _ in range(3)]
    out, lse = vk.sliding_window_attention(*qkv, 5, return_lse=True, backend="blockwise")
    assert (out.shape, lse.shape) == (shape, shape[:3])
    assert all(gradient.shape == shape for gradient in torch.autograd.grad(out.sum(), qkv))


def test_opcheck_and_one_graph(small_blocks: None) -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares with its own empty tensors: no poison there
    q, k, v = (torch.randn(1, heads, 40, 8, requires_grad=True) for heads in (4, 2, 2))
    ends, bias = torch.tensor([0, 25, 40], dtype=torch.int32), torch.randn(4, 19, requires_grad=True)
    extras = (torch.rand(1, 40) > 0.3, ends, bias, torch.tensor([7]))
    options = (6, 3, 1, True, 0.25, 0.3, 0)
    ops = torch.ops.vtsum_kernels
    torch.library.opcheck(ops.sliding_window_attention_blockwise_fwd, (q, k, v, *extras, *options, True))
    still = [x.detach() for x in (torch.randn(1, 4, 40, 8), q, k, v)]
    still_extras = [x.detach() for x in extras]
    tail = (torch.randn(1, 4, 40), None, None, *options)
    torch.library.opcheck(ops.sliding_window_attention_blockwise_bwd, (*still, *still_extras, *tail))
    call = torch.compile(
        lambda *qkv: vk.sliding_window_attention(*qkv, (30, 0), backend="blockwise"), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(call(q, k, v), vk.sliding_window_attention(q, k, v, (30, 0), backend="reference"))


def test_gradients_of_gradients_are_refused_by_name() -> None:
    q = torch.randn(1, 1, 9, 4, requires_grad=True)
    out = vk.sliding_window_attention(q, q, q, 5, backend="blockwise")
    (dq,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="gradients of its gradients are not supported"):
        dq.sum().backward()


PEAK = """
import torch, vtsum_kernels as vk

def peak():  # what resource says of it begins with that of the process that started this one
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

def call(frames, window, packed=0, dim=32, **options):
    shape = (frames, 2, dim) if packed else (1, 2, frames, dim)
    if packed:
        options["cu_seqlens"] = torch.arange(0, frames + 1, packed)
    if options.pop("bias", False):
        options["bias"] = torch.randn(2, sum(window) + 1)
    if options.pop("mask", False):
        options["key_mask"] = torch.rand(1, frames) > 0.1
    leaves = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    out = vk.sliding_window_attention(*leaves, window, **options)
    out = out[0] if options.get("return_lse") else out
    torch.autograd.grad(out.square().sum(), leaves)

call(1500, (1100, 0))  # what is loaded once
CASES = {
    "cpp": (1024, 0), "beyond it": (1025, 0), "causal": (-1, 0), "whole": (-1, -1),
}
for name, window in CASES.items():
    before = peak()
    call(5000, window)
    print(name, peak() - before)
for name, options in {
    "lse": {"return_lse": True}, "dropout": {"dropout_p": 0.1}, "bias": {"bias": True}, "padding": {"mask": True},
    "shift": {"border": "shift"}, "packed": {"packed": 2500}, "global": {"normalize": "global"},
}.items():
    before = peak()
    call(2600 if name == "dropout" else 5000, (1200, 0), **options)  # whose words are slow to draw
    print(name, peak() - before)
"""


def test_no_option_takes_memory_of_all_pairs(cpp: None) -> None:
    """5,000 x 5,000 scores of two heads are 191 MiB in float32, and a dense form holds several copies."""
    # What is freed goes back at once: holes that malloc kept would count, and how many they are is chance.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    grown = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert len(grown) == 11
    assert {name: float(size) for name, size in grown.items() if float(size) > 100} == {}


def chosen(*args: Any, **kwargs: Any) -> str:
    lines = vk.explain("sliding_window_attention", *args, **kwargs).splitlines()
    return next(line for line in lines if line.startswith("->"))


def test_who_serves_a_wide_window_and_what_it_holds(cpp: None) -> None:
    q = torch.zeros(1, 2, 2048, 8)
    assert chosen(q, q, q, (1024, 0)).startswith("-> cpp")
    assert "-> blockwise: serves this call (the fastest for it); holds 1.1 MiB" in chosen(q, q, q, (1025, 0))
    for options in ({"dropout_p": 0.1}, {"return_lse": True}, {"border": "shift"}, {"dilation": 1}):
        assert chosen(q, q, q, (1100, 0), **options).startswith("-> blockwise"), options
    assert chosen(q, q, q, (-1, -1)).startswith("-> flash")
    packed, ends = q[0].transpose(0, 1), torch.arange(0, 2049, 512)
    assert chosen(packed, packed, packed, (-1, 2), cu_seqlens=ends).startswith("-> blockwise")
    # By the longest sequence, not by all frames: a window of 128 frames' sequences is narrow, whatever was asked for.
    ends = torch.arange(0, 2049, 128)
    assert chosen(packed, packed, packed, (-1, 0), cu_seqlens=ends).startswith("-> cpp")
    text = vk.explain("sliding_window_attention", q, q, q, (1100, 0))
    assert "   reference: could run; another is faster for it; holds 17.2 MiB of scores, several times" in text
