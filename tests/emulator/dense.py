"""What the tensor-core families are held to: a dense float64 oracle, and eager PyTorch at the tensors' own dtype."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tests.emulator.run import Call, Library

# A row with one key has ds = p (dp - delta) = 0: what float32 leaves of the difference.
CANCELLED = 1e-5
RMS_RATIO = {torch.float16: 5e-3, torch.bfloat16: 8e-3}


class Results(NamedTuple):
    out: Tensor
    lse: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor


def visible(call: Call) -> Tensor:
    """bool [B, T, T]: whether row i sees key j."""
    batch, _, frames, _ = call.q.shape
    i, j = torch.arange(frames)[:, None], torch.arange(frames)
    sees = torch.ones(frames, frames, dtype=torch.bool)
    if call.left >= 0:
        sees &= j >= i - call.left
    if call.right >= 0:
        sees &= j <= i + call.right
    sees = sees.expand(batch, frames, frames)
    return sees if call.mask is None else sees & call.mask[:, None, :]


def dense(call: Call, dout: Tensor, dlse: Tensor | None, dtype: torch.dtype) -> Results:
    """All results by dense attention in `dtype`; dk and dv have q's heads. Padded frames are taken as zeros."""
    groups = call.q.shape[1] // call.k.shape[1]
    q, k, v = (x.detach().to(dtype) for x in (call.q, call.k, call.v))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    if call.mask is not None:
        k, v = (x.masked_fill(~call.mask[:, None, :, None], 0.0) for x in (k, v))
    q, k, v = (x.clone().requires_grad_() for x in (q, k, v))
    sees = visible(call)[:, None]
    scores = (q @ k.transpose(-1, -2) * call.scale_used).masked_fill(~sees, -torch.inf)
    lse = scores.logsumexp(-1)
    alone = ~sees.any(-1, keepdim=True)
    weights = scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
    out = weights @ v
    loss = (out * dout.to(dtype)).sum()
    if dlse is not None:
        loss = loss + (lse * dlse.to(dtype)).masked_fill(alone[..., 0], 0.0).sum()
    dq, dk, dv = torch.autograd.grad(loss, (q, k, v))
    return Results(out.detach(), lse.detach(), dq.nan_to_num(), dk.nan_to_num(), dv)


def check(got: Results, call: Call, dout: Tensor, dlse: Tensor | None = None) -> None:
    """Raises where an error is more than twice eager's plus the output's rounding, or the RMS ratio too high."""
    oracle, eager = dense(call, dout, dlse, torch.float64), dense(call, dout, dlse, call.q.dtype)
    epsilon = torch.finfo(call.q.dtype).eps
    torch.testing.assert_close(got.lse.double(), oracle.lse, rtol=1e-4, atol=1e-4)
    for name in ("out", "dq", "dk", "dv"):
        ours, right, theirs = (getattr(x, name).double() for x in (got, oracle, eager))
        assert torch.isfinite(ours).all(), f"{name} is not finite everywhere"
        if ours.numel() == 0:
            continue
        size = right.abs().max()
        error, allowed = (ours - right).abs().max(), 2 * (theirs - right).abs().max() + epsilon * size + CANCELLED
        ratio = (ours - right).square().mean().sqrt() / right.square().mean().sqrt().clamp_min(1e-30)
        print(f"{name}: error {error:.2e} of {allowed:.2e} allowed, RMS ratio {ratio:.2e}")
        assert error <= allowed, f"{name}: error {error:.3e}, allowed {allowed:.3e}"
        assert ratio < RMS_RATIO[call.q.dtype] or size < CANCELLED, f"{name}: RMS ratio {ratio:.3e}"


def make(
    batch: int,
    heads: int,
    frames: int,
    width: int,
    dtype: torch.dtype,
    *,
    key_heads: int | None = None,
    transposed: bool = False,
    amplitude: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and dout; `transposed`: views of [B, T, H, D] tensors."""
    generator = torch.Generator().manual_seed(frames * 1000 + width)

    def one(count: int, size: float) -> Tensor:
        shape = (batch, frames, count, width) if transposed else (batch, count, frames, width)
        x = (torch.randn(shape, generator=generator) * size).to(dtype)
        return x.transpose(1, 2) if transposed else x

    return one(heads, amplitude), one(key_heads or heads, amplitude), one(key_heads or heads, 1.0), one(heads, 1.0)


def run(
    library: Library, family: str, call: Call, dout: Tensor, dlse: Tensor | None = None, *, hand_on: bool = False
) -> Results:
    """Forward and backward by one family; `hand_on`: the backward is given out and lse."""
    assert library.takes(family, call, backward=False)
    out, lse = library.forward(call, family)
    assert lse is not None
    given = (out, lse) if hand_on else (None, None)
    dq, dk, dv, _ = library.backward(call, dout, dlse, family, out=given[0], lse=given[1])
    return Results(out, lse, dq, dk, dv)
