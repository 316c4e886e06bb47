"""torch.utils.flop_counter counts the ops' products, forward and backward."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from vtsum_kernels.flops import FORMULAS, window_pairs
from vtsum_kernels.memory_attention import plan


def counted(call: Callable[..., Tensor], *given: Tensor, backward: bool = True) -> tuple[int, int]:
    """Of the forward and of the backward pass."""
    leaves = [x.requires_grad_(backward) for x in given]
    with FlopCounterMode(display=False) as forward:
        out = call(*leaves)
    if not backward:
        return forward.get_total_flops(), 0
    with FlopCounterMode(display=False) as back:
        out.sum().backward()
    return forward.get_total_flops(), back.get_total_flops()


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 3, 20])
@pytest.mark.parametrize("sides", [(2, 2), (0, 3), (4, 0), (9, 30)])
def test_pairs_of_a_window(sides: tuple[int, int], dilation: int, shift: bool) -> None:
    """As many as the weights that plain PyTorch does not set to 0."""
    for frames in (1, 2, 7, 20):
        q, values = torch.zeros(1, 1, frames, 1), torch.eye(frames)[None, None]
        zeros = torch.zeros(1, 1, frames, frames)
        border = "shift" if shift else "truncate"
        seen = vk.sliding_window_attention(
            zeros, zeros, values, sides, dilation=dilation, border=border, backend="reference"
        )
        assert window_pairs(frames, *sides, dilation, shift) == int((seen > 0).sum()), (frames, q.shape)
    assert window_pairs(20, -1, -1, 1, False) == 400
    assert window_pairs(20, -1, 0, 1, False) == 210


def test_windows(cpp: None) -> None:
    q = torch.randn(2, 4, 20, 8)
    k = torch.randn(2, 2, 20, 8)
    pairs = 2 * 4 * window_pairs(20, 3, 1, 2, False)
    call = lambda q, k: vk.sliding_window_attention(q, k, k, (3, 1), dilation=2, backend="cpp")  # noqa: E731
    assert counted(call, q, k) == (4 * pairs * 8, 10 * pairs * 8)
    whole = lambda q, k: vk.sliding_window_attention(q, k, k, 5, normalize="global", backend="cpp")  # noqa: E731
    narrow, square = 2 * 4 * window_pairs(20, 2, 2, 1, False), 2 * 4 * 400
    assert counted(whole, q, k) == ((4 * narrow + 2 * square) * 8, (10 * narrow + 6 * square) * 8)


N, D, S, E, O = 18, 8, 5, 6, 3


def test_reads(cpp: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward count is that of plain PyTorch; the backward one that of two products for each, or of five."""
    x, keys, values = torch.randn(2, 9, D), torch.randn(S, D), torch.randn(S, E)
    each = lambda backend: lambda *t: vk.memory_attention(*t, backend=backend)  # noqa: E731
    forward = 2 * N * S * (D + E)
    assert counted(each("reference"), x, keys, values) == (forward, 2 * forward)
    assert counted(each("cpp"), x, keys, values) == (forward, 2 * forward)
    monkeypatch.setattr(plan, "keeps_weights", lambda *_: False)
    assert counted(each("cpp"), x, keys, values) == (forward, 2 * N * S * (3 * D + 2 * E))
    best = lambda *t: vk.memory_attention(*t, top_k=2, backend="cpp")  # noqa: E731
    # Searched, scored anew and read; usage adds up numbers, of which each has the size 1.
    found = 2 * N * (S * D + 2 * (D + E + 1))
    assert counted(best, x, keys, values)[0] == found


def test_layers(cpp: None) -> None:
    x, keys, weight = torch.randn(2, 9, D), torch.randn(S, D), torch.randn(O, 2 * D)
    unfolded = lambda backend: lambda *t: vk.memory_fuse(t[0], t[1], None, t[2], fold=False, backend=backend)  # noqa: E731
    plain = 2 * N * (2 * S * D + 2 * O * D)
    assert counted(unfolded("reference"), x, keys, weight) == (plain, 2 * plain)
    assert counted(unfolded("cpp"), x, keys, weight) == (plain, 2 * plain)
    folded = lambda *t: vk.memory_fuse(t[0], t[1], None, t[2], fold=True, backend="cpp")  # noqa: E731
    once, each = 2 * S * D * O, 2 * N * (S * D + O * D + O * S)
    assert counted(folded, x, keys, weight) == (once + each, 2 * once + 2 * each)
    assert counted(folded, x, keys, weight, backward=False) == (once + each, 0)


def test_every_op_with_a_gradient_has_a_formula() -> None:
    from vtsum_kernels import library

    assert set(FORMULAS) == set(library._PLAIN)


def test_the_counter_is_not_loaded_with_the_package_and_knows_the_ops_whenever_it_is() -> None:
    code = (
        "import sys; {first}; {second}; import torch, vtsum_kernels as vk; q = torch.zeros(1, 1, 4, 2)\n"
        "from torch.utils.flop_counter import FlopCounterMode\n"
        "with FlopCounterMode(display=False) as counter: torch.ops.vtsum_kernels.global_lse_fwd"
        "(q, q, None, None, None, 1, 1, 1, False, 1.0)\n"
        "print(counter.get_total_flops())"
    )
    package = "import vtsum_kernels; assert 'torch.utils.flop_counter' not in sys.modules"
    for first, second in ((package, "pass"), ("import torch.utils.flop_counter", "import vtsum_kernels")):
        done: Any = subprocess.run(
            [sys.executable, "-c", code.format(first=first, second=second)], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout.strip()) == (0, "64"), done.stderr
