"""The rule about NaN and infinities: what a row does not see reaches neither its results nor, by it, anybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.kernels import definitions

#: Computes out, lse, dq, dk and dv of q, k, v and dout.
Compute = Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]

ODD = (torch.nan, torch.inf, -torch.inf)


def hold_apart(
    compute: Compute,
    qkv: Sequence[Tensor],
    dout: Tensor,
    sees: Tensor,
    spots: dict[str, Sequence[int]],
    quiet: Sequence[int] = (),
    reaches: bool = True,
    results: Sequence[str] = ("out", "lse", "dq", "dk", "dv"),
    beside: float = 0.0,
) -> None:
    """Puts NaN and infinities into frames of all heads, and holds everything that they may not reach to what it was.

    Args:
        sees: bool [B, 1, T, T] of `definitions.window_mask`.
        spots: for "q", "k" and "v" the frames. quiet: rows without a gradient, which add nothing to dk and dv.
        results: what `compute` gives of these, in order.
        reaches: whether NaN must show in the rows that see it, and in dk of the keys that those with a gradient see.
        beside: how far results beside what is spoilt may be off, relative to 1: where they are computed in another way,
            in float32, than results with nothing spoilt near, whose weights are rounded to 16 bits.
    """
    dout = dout.clone()
    dout[:, :, list(quiet)] = 0
    clean = compute(*qkv, dout)
    tensors = dict(zip("qkv", (x.clone() for x in qkv), strict=True))
    for name, frames in spots.items():
        for n, frame in enumerate(frames):
            tensors[name][:, :, frame, 3 + n % 2] = ODD[n % 3]
    got = compute(*tensors.values(), dout)
    sees = sees[:, 0]  # [B, T, T]
    loud = torch.ones(sees.shape[1], dtype=torch.bool)
    loud[list(quiet)] = False

    def reached(of: Sequence[float]) -> tuple[Tensor, Tensor]:
        """bool [B, T]: the rows that hold or see one of these, and the keys seen by such rows with a gradient."""
        odd = {name: torch.zeros(sees.shape[:2], dtype=torch.bool) for name in "qkv"}
        for name, frames in spots.items():
            odd[name][:, [frame for n, frame in enumerate(frames) if ODD[n % 3] in of]] = True
        rows = odd["q"] | (sees & (odd["k"] | odd["v"])[:, None]).any(-1)
        return rows, (sees & (rows & loud)[..., None]).any(1)

    (rows, keys), (sure_rows, sure_keys) = reached(ODD), reached(ODD[:1])
    assert sure_rows.any()
    assert not rows.all()
    for name, x, before in zip(results, got, clean, strict=True):
        free = ~(keys if name in ("dk", "dv") else rows)[:, None].expand(x.shape[:3])
        bound = {"rtol": beside, "atol": beside} if beside else {}
        torch.testing.assert_close(x[free], before[free], msg=lambda text, name=name: f"{name}: {text}", **bound)
        if reaches and name in ("out", "dk"):
            sure = (sure_rows if name == "out" else sure_keys)[:, None].expand(x.shape[:3])
            assert not x.isfinite().all(-1)[sure].any(), name


def seen_by(
    frames: int, sides: tuple[int, int], key_mask: Tensor | None = None, batch: int = 1, **window: Any
) -> Tensor:
    """bool [B, 1, T, T]."""
    return definitions.window_mask(frames, definitions.windows(frames, *sides, **window), key_mask, batch)
