"""torch's call: bands recognised in masks, and the same numbers as torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vtsum_kernels.integrations import sdpa
from vtsum_kernels.integrations.sdpa import Band, scaled_dot_product_attention, window_from_mask

from tests.kernels.comparisons import gradients, hold
from tests.kernels.integrations.dense import close, random, same


def band_mask(frames: int, left: int, right: int, dilation: int = 1, valid: Tensor | None = None) -> Tensor:
    """bool [T, T], or [B, 1, T, T] with padded keys; key by key from the definition."""
    rows = [
        [(j - i) % dilation == 0 and -left <= (j - i) // dilation <= right for j in range(frames)]
        for i in range(frames)
    ]
    mask = torch.tensor(rows)
    return mask if valid is None else mask & valid[:, None, None, :]


VALID = torch.tensor([[False] * 2 + [True] * 9, [True] * 7 + [False] * 4, [True] * 11])


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The windows of the calls that reached the op."""
    windows: list[tuple[int, int]] = []
    op = sdpa.sliding_window_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, window: tuple[int, int], **rest: Any) -> Any:
        windows.append(window)
        return op(q, k, v, window, **rest)

    monkeypatch.setattr(sdpa, "sliding_window_attention", watched)
    return windows


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize(("left", "right"), [(2, 2), (0, 0), (3, 0), (0, 2), (1, 3)])
def test_bands_are_recognised(left: int, right: int, dilation: int) -> None:
    for valid in (None, VALID):
        mask = band_mask(11, left, right, dilation, valid)
        band = window_from_mask(mask)
        assert band is not None
        assert torch.equal(band.mask().expand_as(mask[(None,) * (4 - mask.dim())]), mask[(None,) * (4 - mask.dim())])
        if valid is None:
            step = dilation if left + right else 1
            assert band == Band(min(left, 10 // dilation), min(right, 10 // dilation), step, None, 11)
        else:
            assert torch.equal(band.key_mask, valid)


@settings(max_examples=150, deadline=None)
@given(
    frames=st.integers(1, 12),
    left=st.integers(0, 13),
    right=st.integers(0, 13),
    dilation=st.integers(1, 5),
    data=st.data(),
)
def test_a_band_is_found_exactly_where_there_is_one(
    frames: int, left: int, right: int, dilation: int, data: st.DataObject
) -> None:
    """Whatever is recognised is the mask itself; a band always is; with one entry flipped it is not that band."""
    valid = torch.tensor([data.draw(st.lists(st.booleans(), min_size=frames, max_size=frames)) for _ in range(2)])
    mask = band_mask(frames, left, right, dilation, valid)
    band = window_from_mask(mask)
    assert (band is None) == (not mask.any())
    if band is not None:
        assert torch.equal(band.mask().expand_as(mask), mask)
    flipped = mask.clone()
    place = tuple(data.draw(st.integers(0, size - 1)) for size in mask.shape)
    flipped[place] = ~flipped[place]
    other = window_from_mask(flipped)
    assert other is None or torch.equal(other.mask().expand_as(flipped), flipped)


def test_floats_are_read_too() -> None:
    mask = band_mask(11, 2, 1, 1, VALID)
    additive = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    assert torch.equal(window_from_mask(additive).mask(), mask)
    additive[0, 0, 4, 4] = 0.5
    assert window_from_mask(additive) is None


@pytest.mark.parametrize(
    "mask",
    [
        torch.rand(9, 9) > 0.5,
        band_mask(9, 2, 2) & ~torch.eye(9, dtype=torch.bool),
        band_mask(9, 2, 2) & (torch.arange(9) < 6)[:, None],  # padded queries
        torch.stack([band_mask(9, 2, 2), band_mask(9, 1, 1)]),  # heads that differ
        torch.block_diag(torch.ones(4, 4), torch.ones(5, 5)).bool(),
        torch.ones(9, 8, dtype=torch.bool),
        torch.zeros(9, 9, dtype=torch.bool),
        torch.ones(9, 9, dtype=torch.long),
        torch.zeros(9, 9, requires_grad=True),
        torch.ones(0, 0, dtype=torch.bool),
        torch.ones(9, dtype=torch.bool),
    ],
)
def test_other_masks_are_not_called_bands(mask: Tensor) -> None:
    assert window_from_mask(mask) is None


@pytest.mark.parametrize("how", ["mask", "float mask", "band"])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_as_torch(how: str, dilation: int, groups: int, served: list[tuple[int, int]]) -> None:
    inputs = q, k, v = random((3, 4, 11, 6), (3, 4 // groups, 11, 6), (3, 4 // groups, 11, 6), seed=1)
    for valid in (None, VALID):
        mask = band_mask(11, 2, 1, dilation, valid)
        wanted = F.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=groups > 1)
        given_: Any = mask
        if how == "float mask":
            given_ = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
        elif how == "band":
            given_ = window_from_mask(mask)
        got = scaled_dot_product_attention(q, k, v, given_, scale=0.3, enable_gqa=groups > 1)
        assert served.pop() == (2, 1)
        same("", [got], [wanted], inputs, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    mask = band_mask(30, 4, 4)
    low = [x.detach().to(dtype).requires_grad_() for x in random(*[(2, 2, 30, 16)] * 3, seed=0)]
    exact = [x.detach().double().requires_grad_() for x in low]
    results = []
    for call, inputs in (
        (scaled_dot_product_attention, low),
        (F.scaled_dot_product_attention, exact),
        (F.scaled_dot_product_attention, low),
    ):
        found = call(*inputs, mask)
        results.append([found, *gradients([found], inputs, 1)])
    for name, got, oracle, eager in zip(("out", "dq", "dk", "dv"), *results, strict=True):
        assert got.dtype == dtype
        hold(name, got, oracle, eager)


def test_torch_serves_the_rest(served: list[tuple[int, int]]) -> None:
    q, k, v = (x.detach() for x in random((2, 2, 9, 6), (2, 2, 9, 6), (2, 2, 9, 6), seed=2))
    short = k[:, :, :7], v[:, :, :7]
    for asked in (
        {},
        {"is_causal": True},
        {"attn_mask": torch.rand(9, 9) > 0.4},
        {"attn_mask": torch.rand(2, 2, 9, 9, dtype=q.dtype)},
        {"attn_mask": torch.ones(9, 9, dtype=torch.bool)},
    ):
        assert torch.equal(
            scaled_dot_product_attention(q, k, v, **asked), F.scaled_dot_product_attention(q, k, v, **asked)
        )
    mask = torch.ones(9, 7, dtype=torch.bool).tril(-2)
    close(
        "short",
        scaled_dot_product_attention(q, *short, mask),
        F.scaled_dot_product_attention(q, *short, mask),
        0.0,
    )
    wide = torch.cat([v, v], -1)  # values wider than keys: torch's again, the band written out
    band = window_from_mask(band_mask(9, 1, 1))
    wanted = F.scaled_dot_product_attention(q, k, wide, band_mask(9, 1, 1))
    close("wide", scaled_dot_product_attention(q, k, wide, band), wanted, 0.0)
    flat = [x[:, 0] for x in (q, k, v)]
    close(
        "rank 3",
        scaled_dot_product_attention(*flat, band_mask(9, 1, 1)),
        F.scaled_dot_product_attention(*flat, band_mask(9, 1, 1)),
        0.0,
    )
    got = scaled_dot_product_attention(*flat, band)
    close("rank 3, band", got, F.scaled_dot_product_attention(*flat, band_mask(9, 1, 1)), 0.0)
    assert served == []


def test_three_dimensions_are_heads_as_in_torch(served: list[tuple[int, int]]) -> None:
    q, k, v = random((3, 3, 11, 6), (3, 3, 11, 6), (3, 3, 11, 6), seed=3)
    mask = torch.stack([band_mask(11, 1, 1)] * 3)
    padded = band_mask(11, 1, 1, 1, VALID)[:, 0]
    close("same", scaled_dot_product_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask), 1e-12)
    assert served == [(1, 1)]
    close("padded", scaled_dot_product_attention(q, k, v, padded), F.scaled_dot_product_attention(q, k, v, padded), 0.0)
    assert served == [(1, 1)]


def test_dropout() -> None:
    q = torch.randn(1, 2, 9, 6)
    band = window_from_mask(band_mask(9, 2, 2))
    exact = scaled_dot_product_attention(q, q, q, band)
    draws = torch.stack([scaled_dot_product_attention(q, q, q, band, dropout_p=0.3) for _ in range(600)])
    sigma = draws.std(0) / draws.shape[0] ** 0.5
    assert sigma.max() > 0
    assert ((draws.mean(0) - exact).abs() <= 5 * sigma + 1e-6).all()


def test_errors() -> None:
    q = torch.zeros(1, 1, 9, 4)
    band = window_from_mask(band_mask(8, 1, 1))
    with pytest.raises(ValueError, match=r"^scaled_dot_product_attention: attn_mask must be a Band of T = 9, got 8$"):
        scaled_dot_product_attention(q, q, q, band)
    band = window_from_mask(band_mask(9, 1, 1))
    with pytest.raises(ValueError, match="is_causal must be False where there is an attn_mask, got True"):
        scaled_dot_product_attention(q, q, q, band, is_causal=True)
    with pytest.raises(TypeError, match=r"^window_from_mask: mask must be a torch\.Tensor, got list$"):
        window_from_mask([[True]])
