"""NaN and infinities reach what the mask lets them reach, on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels.spoilt import hold_apart, seen_by

CASES: dict[str, dict[str, Any]] = {
    "band": {"sides": (4, 4)},
    "one-sided": {"sides": (7, 0)},
    "wide": {"sides": (30, 12)},
    "unbounded": {"sides": (-1, 0), "spots": {"k": [150], "v": [161]}, "quiet": range(155, 200)},
    "dilated": {"sides": (3, 3), "dilation": 4},
    "shifted": {"sides": (4, 4), "shift": True},
    "shifted, dilated": {"sides": (5, 2), "shift": True, "dilation": 3},
    "packed": {"sides": (20, 20), "ends": [0, 90, 90, 150, 200]},
    "packed, shifted": {"sides": (6, 6), "shift": True, "ends": [0, 90, 107, 200]},
    "padded": {"sides": (9, 9), "padded": [3, 40, 41, 150]},
    "dropout": {"sides": (5, 5), "dropout_p": 0.3},
    "softcap": {"sides": (5, 5), "softcap": 4.0},
    "global": {"sides": (4, 4), "normalize": "global", "spots": {"q": [100], "v": [160, 199]}},
    "global, packed": {
        "sides": (4, 4), "normalize": "global", "ends": [0, 90, 150, 200], "sees": (-1, -1),
        "spots": {"q": [99], "k": [152, 170]}, "quiet": range(90, 200),
    },
}  # fmt: skip


@pytest.mark.parametrize("dim", [64, 12])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", ["reference", "cpp", "blockwise"])
def test_what_a_row_does_not_see_does_not_reach_it(
    name: str, case: dict[str, Any], dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = {key: case[key] for key in ("dilation", "shift", "ends") if key in case}
    frames, ends = 200, case.get("ends")
    key_mask = None
    if "padded" in case:
        key_mask = torch.ones(1, frames, dtype=torch.bool)
        key_mask[:, case["padded"]] = False
    options: dict[str, Any] = {"key_mask": key_mask, "dilation": case.get("dilation", 1)}
    options["border"] = "shift" if case.get("shift") else "truncate"
    options.update({key: case[key] for key in ("dropout_p", "softcap", "normalize") if key in case})
    if ends is not None:
        options["cu_seqlens"] = torch.tensor(ends)

    def compute(q: Tensor, k: Tensor, v: Tensor, dout: Tensor) -> Sequence[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        given = leaves if ends is None else [x[0].transpose(0, 1) for x in leaves]
        torch.manual_seed(5)
        out, lse = vk.sliding_window_attention(*given, case["sides"], return_lse=True, backend=name, **options)
        if ends is not None:
            out, lse = out.transpose(0, 1)[None], lse[None]
        return out.detach(), lse.detach(), *torch.autograd.grad(out, leaves, dout)

    qkv = [torch.randn(1, heads, frames, dim) for heads in (2, 2, 2)]
    spots = case.get("spots", {"q": [100], "k": [3, 40, 150], "v": [0, 41, 160, 199]})
    quiet = case.get("quiet", range(90, 200))
    hold_apart(
        compute, qkv, torch.randn(1, 2, frames, dim),
        seen_by(frames, case.get("sees", case["sides"]), key_mask, **window), spots, quiet,
        reaches=name != "reference" and "dropout_p" not in case and "normalize" not in case,
    )  # fmt: skip


FORMS: dict[str, dict[str, Any]] = {
    "all slots": {},
    "cosine": {"normalize": True, "num_heads": 2},
    "k best": {"top_k": 4},
    "dropout": {"dropout_p": 0.2},
}


@pytest.mark.parametrize("out_by", ["slot_mask", "slot_bias"])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_what_slots_left_out_hold_reaches_nobody(backend: str, options: dict[str, Any], out_by: str) -> None:
    """Keys and values that nobody may read: results and gradients are those of zeros there, and their own are 0."""
    x, keys, values, weight = (torch.randn(shape) for shape in ((9, 16), (12, 16), (12, 16), (16, 32)))
    open_slots = torch.rand(12) > 0.4
    how = {out_by: open_slots if out_by == "slot_mask" else torch.zeros(12).masked_fill(~open_slots, -torch.inf)}
    results = []
    for fill in (0.0, torch.nan, torch.inf):
        for bank in (keys, values):
            bank[~open_slots] = fill
        leaves = [t.clone().requires_grad_() for t in (x, keys, values)]
        torch.manual_seed(3)
        out, lse, usage = vk.memory_attention(
            *leaves, return_lse=True, return_usage=True, backend=backend, **how, **options
        )
        gradients = torch.autograd.grad(out.square().sum() + lse.sum() + usage.square().sum(), leaves)
        torch.manual_seed(3)
        y = vk.memory_fuse(*leaves, weight, backend=backend, **how, **options)
        results.append([out, lse, usage, *gradients, y, *torch.autograd.grad(y.square().sum(), leaves)])
        if fill != 0:
            for got, wanted in zip(results[-1], results[0], strict=True):
                torch.testing.assert_close(got, wanted)
    assert all((results[0][n][~open_slots] == 0).all() for n in (4, 5, 8, 9))


def test_a_folded_bank_hides_what_slots_left_out_hold(cpp: None) -> None:
    x, keys, weight, mask = torch.randn(300, 16), torch.randn(12, 16), torch.randn(16, 32), torch.rand(12) > 0.4
    results = []
    for fill in (0.0, torch.nan):
        keys[~mask] = fill
        folded = vk.fold_bank(keys, None, weight)
        assert folded.values is not None
        results.append(vk.memory_fuse(x, keys, None, weight, fold=folded, slot_mask=mask))
    torch.testing.assert_close(results[1], results[0])
