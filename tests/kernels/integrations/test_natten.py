"""na1d against what NATTEN wrote down, against NATTEN itself where it is installed, and against dense attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vtsum_kernels.integrations.natten import na1d

from tests.kernels.comparisons import gradients, hold
from tests.kernels.integrations.dense import attention, close, random, same
from tests.kernels.integrations.natten_golden import CASES, PATH, Case, by_natten, inputs


def recorded(case: Case) -> tuple[Tensor, Tensor]:
    number = CASES.index(case)
    with np.load(PATH) as arrays:
        return torch.from_numpy(arrays[f"out{number}"]), torch.from_numpy(arrays[f"lse{number}"])


SOURCES: dict[str, Callable[[Case], tuple[Tensor, Tensor]]] = {"recorded": recorded}
if importlib.util.find_spec("natten") is not None:
    SOURCES["natten"] = by_natten


def arguments(case: Case) -> dict[str, Any]:
    return {
        "kernel_size": case.kernel_size,
        "dilation": case.dilation,
        "is_causal": case.is_causal,
        "scale": case.scale,
    }


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_natten(case: Case, source: str) -> None:
    out, lse = SOURCES[source](case)
    got = na1d(*inputs(case), **arguments(case), return_lse=True)
    close("out", got[0], out, 2e-6)
    close("lse", got[1], lse, 2e-6)
    assert torch.equal(na1d(*inputs(case), **arguments(case)), got[0])


def neighbourhoods(frames: int, size: int, dilation: int, causal: bool) -> Tensor:
    """bool [T, T]: row i sees `size` frames of its phase, around it where there is room; or the last ones up to it."""
    seen = torch.zeros(frames, frames, dtype=torch.bool)
    for i in range(frames):
        phase = list(range(i % dilation, frames, dilation))
        place = phase.index(i)
        if causal:
            chosen = phase[max(place - size + 1, 0) : place + 1]
        else:
            first = min(max(place - size // 2, 0), len(phase) - size)
            chosen = phase[first : first + size]
        seen[i, chosen] = True
    return seen


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_against_dense(case: Case) -> None:
    tensors = [x.requires_grad_() for x in inputs(case, torch.float64)]
    seen = neighbourhoods(case.frames, case.kernel_size, case.dilation, case.is_causal)
    out, lse = attention(*(x.transpose(1, 2) for x in tensors), seen, scale=case.scale)
    wanted = out.transpose(1, 2), lse.transpose(1, 2)
    got = na1d(*tensors, **arguments(case), return_lse=True)
    same("", got, wanted, tensors, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    low = [x.detach().to(dtype).requires_grad_() for x in random(*[(2, 40, 2, 16)] * 3, seed=0)]
    exact = [x.detach().double().requires_grad_() for x in low]
    seen = neighbourhoods(40, 7, 2, False)
    outs = [
        na1d(*low, 7, dilation=2),
        *(attention(*(x.transpose(1, 2) for x in xs), seen)[0].transpose(1, 2) for xs in (exact, low)),
    ]
    results = [[out, *gradients([out], xs, 1)] for out, xs in zip(outs, (low, exact, low), strict=True)]
    for name, got, oracle, eager in zip(("out", "dq", "dk", "dv"), *results, strict=True):
        assert got.dtype == dtype
        hold(name, got, oracle, eager)


def test_tuples_and_position_of_arguments() -> None:
    case = Case(11, 3, dilation=2)
    q, k, v = inputs(case)
    wanted = na1d(q, k, v, kernel_size=3, dilation=2)
    assert torch.equal(na1d(q, k, v, (3,), (1,), (2,), (False,)), wanted)
    assert torch.equal(na1d(q, k, v, 3, 1, 2, False, 8**-0.5), wanted)


X = torch.zeros(2, 9, 4, 8)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"kernel_size": 1}, ValueError, "kernel_size must be at least 2, got 1"),
        ({"kernel_size": 10}, ValueError, r"kernel_size \* dilation must be at most T = 9, got 10 \* 1"),
        ({"kernel_size": 5, "dilation": 2}, ValueError, r"kernel_size \* dilation must be at most T = 9, got 5 \* 2"),
        ({"kernel_size": 3, "dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
        ({"kernel_size": (3, 3)}, TypeError, r"kernel_size must be an int or a tuple of one int, got \(3, 3\)"),
        ({"kernel_size": 3.0}, TypeError, "kernel_size must be an int or a tuple of one int, got 3.0"),
        ({"kernel_size": 3, "is_causal": 1}, TypeError, "is_causal must be a bool or a tuple of one bool, got 1"),
        ({"kernel_size": 4, "stride": 2}, NotImplementedError, "stride must be 1, got 2"),
        (
            {"kernel_size": 3, "additional_keys": X, "additional_values": X},
            NotImplementedError,
            "additional_keys and additional_values must be None, got a tensor",
        ),
    ],
)
def test_errors(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^na1d: {message}$"):
        na1d(X, X, X, **asked)


def test_errors_of_shapes() -> None:
    with pytest.raises(ValueError, match=r"^na1d: key must be of shape \[B, T, H, D\], got \[9, 4, 8\]$"):
        na1d(X, X[0], X, 3)
    with pytest.raises(NotImplementedError, match=r"^na1d: value must have key's D = 8, got 4$"):
        na1d(X, X, X[..., :4], 3)
    with pytest.raises(ValueError, match=r"K, the number of k's heads, must be a divisor of H = 4, got 3"):
        na1d(X, X[:, :, :3], X[:, :, :3], 3)
