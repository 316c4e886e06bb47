"""What a kernel is held against: an oracle in float64, eager PyTorch at the kernel's own dtype, and the house's bounds.

The oracle for sliding windows is written apart from the package's reference (a dense mask built row by row), so that a
mistake in the reference cannot excuse one in a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RMS_BOUND = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 8e-3}


def window_mask(frames: int, left: int, right: int, dilation: int, key_mask: Tensor | None, batch: int) -> Tensor:
    """bool [B, 1, T, T], True where row i sees key j; built key by key from the definition."""
    mask = torch.zeros(batch, 1, frames, frames, dtype=torch.bool)
    for i in range(frames):
        for j in range(frames):
            steps, rest = divmod(j - i, dilation)
            mask[:, :, i, j] = rest == 0 and (left < 0 or steps >= -left) and (right < 0 or steps <= right)
    if key_mask is not None:
        mask &= key_mask[:, None, None, :]
    return mask


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Masked attention and its lse, in the inputs' dtype throughout: the oracle in float64, eager PyTorch else."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~mask, torch.finfo(q.dtype).min)
    some = mask.any(-1, keepdim=True)
    weights = torch.softmax(scores, -1).masked_fill(~mask, 0.0)
    lse = torch.logsumexp(scores, -1).masked_fill(~some[..., 0].expand(scores.shape[:-1]), -math.inf)
    return weights @ v, lse


def gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Gradients of a random linear functional of the outputs; rows of -inf count for nothing."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        along = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        finite = torch.where(output.isinf(), torch.zeros_like(output), output)
        total = total + (finite.double() * along).sum()
    return list(torch.autograd.grad(total, list(inputs), allow_unused=False))


def hold(name: str, got: Tensor, oracle: Tensor, eager: Tensor, condition: float = 1.0) -> None:
    """At most twice eager's error plus the output's rounding, and an RMS ratio under the dtype's bound.

    `condition` widens the second bound alone, where the problem itself magnifies rounding: a score of 1,000 rounded to
    float32 is off by 6e-5, and exp turns that into a relative error of 6e-5 of the weight, whoever computes it.
    """
    assert got.shape == oracle.shape, f"{name}: shape {list(got.shape)}, not {list(oracle.shape)}"
    assert got.dtype == eager.dtype or got.dtype == torch.float32, f"{name}: dtype {got.dtype}, not {eager.dtype}"
    assert torch.equal(got.isinf(), oracle.isinf()), f"{name}: infinities differ"
    if got.numel() == 0:
        return
    finite = ~oracle.isinf()
    exact = oracle[finite].double()
    error = (got[finite].double() - exact).abs()
    assert not error.isnan().any(), f"{name}: NaN"
    if exact.numel() == 0:
        return
    of_eager = (eager[finite].double() - exact).abs().max()
    rounding = torch.finfo(got.dtype).eps * exact.abs().max()
    # Where the problem magnifies rounding, one row with two nearly equal scores decides the largest error: a lottery.
    allowed = (2 if condition == 1 else 8) * of_eager + rounding
    if eager.dtype == torch.float64:
        allowed = 100 * rounding * condition  # the oracle has no more digits than the kernel
    rms = error.square().mean().sqrt() / exact.square().mean().sqrt().clamp_min(1e-30)
    dtype = eager.dtype
    print(f"{name} {dtype}: max error {error.max():.2e} (allowed {allowed:.2e}), RMS ratio {rms:.2e}")
    assert error.max() <= allowed, f"{name}: max error {error.max():.3e}, allowed {allowed:.3e}"
    if exact.abs().max() > 1e-20:
        bound = RMS_BOUND[dtype] * condition
        assert rms < bound, f"{name}: RMS ratio {rms:.3e}, allowed {bound:.0e}"
