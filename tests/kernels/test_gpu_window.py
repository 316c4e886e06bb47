"""Sliding windows on a GPU in the sizes it is made for: sequences of many strips, very many heads, wide windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.sliding_window_attention.reference import sliding_window_attention_reference

from tests.kernels import test_flash
from tests.kernels.comparisons import TOLERANCE, gradients
from tests.kernels.pretended_gpu import PRETENDED, large
from tests.kernels.spoilt import hold_apart, seen_by

pytestmark = pytest.mark.gpu


class Case(NamedTuple):
    """batch, heads, key heads, frames, D; and how far a row looks."""

    shape: tuple[int, int, int, int, int]
    dtype: torch.dtype
    sides: tuple[int, int]
    dilation: int = 1


#: In the order of the kernels' families: rings, strips, tiles, general; then grids wider than 65,535 blocks.
CASES = {
    "ring": Case((2, 8, 8, 20_011, 64), torch.bfloat16, (2, 2)),
    "ring of float32": Case((1, 4, 2, 20_011, 64), torch.float32, (4, 4)),
    "dilated ring": Case((1, 4, 4, 20_011, 128), torch.float16, (1, 1), 50),
    "strip": Case((2, 4, 4, 20_011, 64), torch.bfloat16, (8, 8)),
    "strip of half": Case((1, 4, 1, 9_999, 128), torch.float16, (0, 32)),
    "tile": Case((1, 2, 2, 3_001, 64), torch.bfloat16, (64, 64)),
    "one-sided tile": Case((1, 2, 2, 1_500, 128), torch.float16, (200, 0)),
    "general": Case((1, 3, 3, 5_003, 40), torch.float32, (9, 9)),
    "odd general": Case((2, 3, 3, 5_003, 7), torch.bfloat16, (3, 4), 3),
    "many heads": Case((3, 30_000, 30_000, 9, 64), torch.bfloat16, (2, 2)),
    "many entries": Case((70_000, 1, 1, 9, 32), torch.float32, (2, 2)),
    "many entries, wide": Case((70_000, 1, 1, 40, 32), torch.bfloat16, (18, 18)),
    "many frames": Case((1, 1, 1, 2_000_003, 8), torch.float32, (1, 1)),
}
#: Each of these compiles three kernels or more.
OF_TRITON = ("ring", "strip", "tile", "general", "many heads")


def near(name: str, got: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    """Within some roundings of the dtype, of the largest number."""
    assert got.shape == exact.shape, name
    assert torch.equal(got.isinf(), exact.isinf()), name
    finite = ~exact.isinf()
    error = (got[finite].double() - exact[finite]).abs().max().item()
    size = exact[finite].abs().max().clamp_min(1.0).item()
    print(f"{name}: max error {error:.2e} of {size:.2e}")
    assert error <= TOLERANCE[dtype] * size, (name, error, size)


@pytest.mark.parametrize(
    ("backend", "name"), [("cuda", name) for name in CASES] + [("triton", name) for name in OF_TRITON]
)
def test_large_sizes(request: pytest.FixtureRequest, backend: str, name: str) -> None:
    if backend == "cuda":
        request.getfixturevalue("cuda")
    (batch, heads, key_heads, frames, dim), dtype, (left, right), dilation = CASES[name]
    batch, heads, key_heads, frames = large(batch), large(heads), large(key_heads), large(frames)
    with torch.device("cuda"):
        inputs = [torch.randn(batch, n, frames, dim).to(dtype) for n in (heads, key_heads, key_heads)]
        mask = torch.rand(batch, frames) > 0.1
        results = []
        for wide in (False, True):
            leaves = [(x.double() if wide else x.clone()).requires_grad_() for x in inputs]
            if wide:
                outputs: Any = sliding_window_attention_reference(
                    *leaves, left, right, scale=dim**-0.5, dilation=dilation, key_mask=mask
                )
            else:
                outputs = vk.sliding_window_attention(
                    *leaves, (left, right), dilation=dilation, key_mask=mask, return_lse=True, backend=backend
                )
            results.append([x.detach() for x in (*outputs, *gradients(outputs, leaves, 1))])
    for part, got, exact in zip(("out", "lse", "dq", "dk", "dv"), *results, strict=True):
        near(f"{name} {part}", got, exact, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("frames", "sides"), [(100, (20, 20)), (97, (-1, 3)), (40, (-1, -1)), (7, (30, 2))])
def test_torchs_flash_attention(dtype: torch.dtype, frames: int, sides: tuple[int, int]) -> None:
    with torch.device("cuda"):
        test_flash.test_matches_the_definition(dtype, frames, sides)


@pytest.mark.parametrize("sides", [(2, 2), (4, 3), (20, 12), (40, 20)], ids=["ring", "strip", "wide strip", "tile"])
def test_what_a_row_does_not_see_does_not_reach_it(cuda: None, sides: tuple[int, int]) -> None:
    def compute(*qkvg: Tensor) -> list[Tensor]:
        with torch.device("cuda"):
            *leaves, dout = (x.to("cuda") for x in qkvg)
            for x in leaves:
                x.requires_grad_()
            out, lse = vk.sliding_window_attention(*leaves, sides, return_lse=True, backend="cuda")
            found = [out, lse, *torch.autograd.grad(out, leaves, dout)]
        return [x.detach().to("cpu").float() for x in found]

    frames = 200
    with torch.device("cpu"):
        q, k, v, dout = (torch.randn(1, 2, frames, 64).to(torch.bfloat16) for _ in range(4))
        spots = {"q": [100], "k": [3, 42, 190], "v": [1, 20, 199]}
        beside = 2e-2  # a bfloat16 weight is off by 4e-3
        hold_apart(compute, (q, k, v), dout, seen_by(frames, sides), spots, range(95, 200), beside=beside)


def chosen(*args: Any, **kwargs: Any) -> str:
    lines = vk.explain("sliding_window_attention", *args, **kwargs).splitlines()
    return next(line.split()[1].rstrip(":") for line in lines if line.startswith("->"))


def test_which_backend_serves_a_call(cuda: None) -> None:
    """And that the call is right by it."""
    for dtype, dim, window, wanted in (
        (torch.bfloat16, 64, 5, "cuda"),
        (torch.float32, 64, 301, "cuda"),
        (torch.bfloat16, 64, 301, "flash"),
        (torch.bfloat16, 68, 301, "cuda"),  # 8 does not divide D
        (torch.float64, 64, 5, "reference"),
        (torch.float16, 264, 5, "reference"),
    ):
        inputs = [torch.randn(1, 2, 400, dim).to(dtype) for _ in range(3)]
        assert chosen(*inputs, window) == wanted, (dtype, dim, window)
        got = vk.sliding_window_attention(*inputs, window)
        wide = [x.double() for x in inputs]
        exact, _ = sliding_window_attention_reference(*wide, window // 2, window // 2, scale=dim**-0.5)
        near(wanted, got, exact, dtype)
    q = torch.randn(1, 2, 9, 8)
    with pytest.raises(NotImplementedError, match="backend cpp cannot serve this call: it runs on the CPU"):
        vk.sliding_window_attention(q, q, q, 5, backend="cpp")


def test_wide_gradients_of_the_reference_are_right_on_a_gpu() -> None:
    q, k, v = (torch.randn(1, 2, 7, 3, dtype=torch.float64, device="cuda", requires_grad=True) for _ in range(3))
    got = torch.autograd.grad(vk.sliding_window_attention(q, k, v, 3).square().sum(), (q, k, v))
    there = [x.detach().cpu().requires_grad_() for x in (q, k, v)]
    wanted = torch.autograd.grad(vk.sliding_window_attention(*there, 3, backend="reference").square().sum(), there)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b)


def test_what_sequences_frames_belong_to_is_not_looked_at_on_a_gpu(gpu_backend: str) -> None:
    """Frames outside of every sequence see nothing; nothing waits for the device to find that out."""
    if PRETENDED and gpu_backend == "cuda":
        pytest.skip("the CPU's kernels, which stand in for those of CUDA, refuse such sequences")
    q, k, v = (torch.randn(40, 2, 16, requires_grad=True) for _ in range(3))
    ends = torch.tensor([3, 20, 36])
    out, lse = vk.sliding_window_attention(q, k, v, 5, cu_seqlens=ends, return_lse=True, backend=gpu_backend)
    outside = torch.tensor([*range(3), *range(36, 40)])
    assert (out[outside] == 0).all()
    assert (lse[:, outside] == -torch.inf).all()
    assert lse[:, 3:36].isfinite().all()
    dq, dk, dv = torch.autograd.grad(out.sum(), (q, k, v))
    assert all((x[outside] == 0).all() for x in (dq, dk, dv))
    assert dv[3:36].abs().sum() > 0
