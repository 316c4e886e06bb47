"""NaN and infinities reach what the mask lets them reach, in the CUDA kernels, on the emulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.emulator.checks import results
from tests.emulator.run import Call, Library, library
from tests.kernels.spoilt import hold_apart, seen_by

DROPPED = {"ring": (2, 2), "strip": (9, 9), "tile": (12, 8), "general": (4, 4)}
CASES: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "ring": ("ring", (2, 2), {}),
    "general": ("general", (4, 4), {}),
    "general, wide": ("general", (30, 0), {}),
    "general, shifted": ("general", (4, 4), {"shift": True}),
    "general, dilated": ("general", (3, 2), {"dilation": 3}),
    "general, packed": ("general", (9, 9), {"ends": [0, 40, 47, 100]}),
    "general, padded": ("general", (5, 5), {"padded": [3, 40, 80]}),
    "ring, packed": ("ring", (2, 2), {"ends": [0, 40, 47, 100]}),
    "ring, padded": ("ring", (2, 2), {"padded": [3, 40, 80]}),
    "ring, dilated": ("ring", (2, 1), {"dilation": 3}),
    "ring, 9 keys": ("ring", (4, 4), {}),
    "ring, sinks": ("ring", (2, 2), {"sinks": [1.5]}),
    "general, sinks": ("general", (4, 4), {"sinks": [1.5]}),
    "strip": ("strip", (4, 3), {}),
    "strip, wide": ("strip", (20, 12), {}),
    "strip, sinks": ("strip", (9, 9), {"sinks": [1.5]}),
    "strip, two warps": ("strip", (9, 9), {"width": 128}),
    "strip, two warps, sinks": ("strip", (4, 3), {"width": 128, "sinks": [1.5]}),
    "strip, padded": ("strip", (9, 9), {"padded": [3, 40, 80]}),
    "tile": ("tile", (10, 10), {}),
    "tile, one-sided": ("tile", (0, 14), {}),
    "tile, sinks": ("tile", (9, 9), {"sinks": [1.5]}),
    "tile, padded": ("tile", (9, 9), {"padded": [3, 40, 80]}),
    **{f"{family}, dropout": (family, sides, {"dropout_p": 0.3}) for family, sides in DROPPED.items()},
}


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


@pytest.mark.parametrize(("family", "sides", "window"), CASES.values(), ids=CASES)
def test_what_a_row_does_not_see_does_not_reach_it(
    lib: Library, family: str, sides: tuple[int, int], window: dict[str, Any]
) -> None:
    window, frames = dict(window), 100
    width = window.pop("width", 64)
    padded, sinks, dropout_p = window.pop("padded", None), window.pop("sinks", None), window.pop("dropout_p", 0.0)
    seed = torch.tensor([5]) if dropout_p else None
    sinks = None if sinks is None else torch.tensor(sinks)
    key_mask = None
    if padded is not None:
        key_mask = torch.ones(1, frames, dtype=torch.bool)
        key_mask[:, padded] = False
    options = {key: value for key, value in window.items() if key != "ends"}
    ends = window.get("ends")
    cu_seqlens = None if ends is None else torch.tensor(ends, dtype=torch.int32)

    def compute(q: Tensor, k: Tensor, v: Tensor, dout: Tensor) -> Sequence[Tensor]:
        call = Call(
            q,
            k,
            v,
            *sides,
            **options,
            mask=key_mask,
            cu_seqlens=cu_seqlens,
            sinks=sinks,
            seed=seed,
            dropout_p=dropout_p,
        )
        return [x.float() for x in results(lib, family, call, dout, None, hand_on=family == "tile").values()]

    torch.manual_seed(0)
    q, k, v, dout = (torch.randn(1, 1, frames, width).to(torch.bfloat16) for _ in range(4))
    quiet = range(45, 100)
    spots = {"q": [60, 41], "k": [3, 42, 80], "v": [1, 20, 99]}  # row 41, which has a gradient, beside padding
    beside = 2e-2 if family in ("strip", "tile") else 0.0  # a bfloat16 weight is off by 4e-3
    sees = seen_by(frames, sides, key_mask, **window)
    of_rows = ("out", "lse", "dq", "dk", "dv", *["delta"] * (sinks is not None))
    hold_apart(compute, (q, k, v), dout, sees, spots, quiet, results=of_rows, beside=beside, reaches=not dropout_p)


@pytest.mark.parametrize("family", ["ring", "general"])
def test_a_row_without_a_gradient_adds_nothing_to_that_of_the_bias(lib: Library, family: str) -> None:
    torch.manual_seed(0)
    q, k, v, dout = (torch.randn(1, 1, 50, 64) for _ in range(4))
    bias = torch.randn(1, 5)
    dout[:, :, 20:] = 0
    clean = results(lib, family, Call(q, k, v, 2, 2, bias=bias), dout, None)
    for x, odd in ((q, torch.nan), (k, torch.nan), (v, torch.inf)):
        spoilt = x.clone()
        spoilt[:, :, 30, 3] = odd
        tensors = [spoilt if x is y else y for y in (q, k, v)]
        got = results(lib, family, Call(*tensors, 2, 2, bias=bias), dout, None)
        for name in ("dk", "dv", "dbias"):
            assert torch.equal(got[name], clean[name]), name
