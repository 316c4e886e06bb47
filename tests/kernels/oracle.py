"""What a kernel is held against: an oracle in float64, eager PyTorch at the kernel's own dtype, and the house's bounds.

The oracle for sliding windows is written apart from the package's reference (a dense mask built row by row), so that a
mistake in the reference cannot excuse one in a kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

RMS_BOUND = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 8e-3}


def windows(
    frames: int,
    left: int,
    right: int,
    dilation: int = 1,
    shift: bool = False,
    ends: Sequence[int] | None = None,
) -> list[list[int]]:
    """The keys of each row, from the definition; padding aside. ends: where packed sequences begin and end."""
    ends = [0, frames] if ends is None else ends
    sees: list[list[int]] = []
    for first, last in itertools.pairwise(ends):
        for i in range(first, last):
            phase = [j for j in range(first, last) if (j - i) % dilation == 0]
            own = phase.index(i)
            before = len(phase) if left < 0 else left
            after = len(phase) if right < 0 else right
            begin = own - before
            if shift:
                begin = max(min(begin, len(phase) - (left + right + 1)), 0)
            sees.append(phase[max(begin, 0) : begin + before + after + 1])
    return sees


def window_mask(frames: int, sees: list[list[int]], key_mask: Tensor | None = None, batch: int = 1) -> Tensor:
    """bool [B, 1, T, T], True where row i sees key j."""
    mask = torch.zeros(batch, 1, frames, frames, dtype=torch.bool, device="cpu")
    for i, keys in enumerate(sees):
        mask[:, :, i, keys] = True
    if key_mask is not None:
        mask &= key_mask[:, None, None, :].cpu()
    return mask


def spread_bias(bias: Tensor, frames: int, before: int, dilation: int) -> Tensor:
    """[H, T, T] from a relative bias [H, N] whose entry `before` is that of the query's own frame; 0 beyond it."""
    steps = (torch.arange(frames)[None] - torch.arange(frames)[:, None]) / dilation + before
    inside = (steps == steps.round()) & (steps >= 0) & (steps < bias.shape[1])
    return bias[:, steps.clamp(0, bias.shape[1] - 1).long()] * inside


def keep_mask(seed: int, shape: tuple[int, int, int], p: float) -> Tensor:
    """[B, H, T, T]: 0 where dropout drops a weight, 1 / (1 - p) elsewhere. Philox4x32-10 in plain integers."""
    batch, heads, frames = shape
    kept = torch.zeros(batch, heads, frames, frames, dtype=torch.float64, device="cpu")
    for b in range(batch):
        for h in range(heads):
            for i in range(frames):
                for j in range(frames):
                    c, key = [i, j, b * heads + h, 0], [seed & 0xFFFFFFFF, seed >> 32]
                    for _ in range(10):
                        x, y = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
                        c = [(y >> 32) ^ c[1] ^ key[0], y & 0xFFFFFFFF, (x >> 32) ^ c[3] ^ key[1], x & 0xFFFFFFFF]
                        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
                    kept[b, h, i, j] = c[0] >= int(p * 2**32)
    return kept / (1 - p)


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    scale: float | None = None,
    bias: Tensor | None = None,
    keep: Tensor | None = None,
    whole: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Masked attention and its lse, in the inputs' dtype throughout: the oracle in float64, eager PyTorch else.

    bias [H, T, T] is added to the scores, keep [B, H, T, T] multiplies the weights; with `whole`, a mask, the softmax
    runs among all that it leaves, and `mask` then cuts its part out.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    mask = mask.to(q.device)
    over = mask if whole is None else whole.to(q.device)
    scores = q @ k.transpose(-1, -2) * scale
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    scores = scores.masked_fill(~over, torch.finfo(q.dtype).min)
    some = over.any(-1, keepdim=True)
    weights = torch.softmax(scores, -1).masked_fill(~mask, 0.0)
    if keep is not None:
        weights = weights * keep.to(weights)
    lse = torch.logsumexp(scores, -1).masked_fill(~some[..., 0].expand(scores.shape[:-1]), -math.inf)
    return weights @ v, lse


def gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Gradients of a random linear functional of the outputs; rows of -inf count for nothing."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        along = torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu").to(output.device)
        finite = torch.where(output.isinf(), torch.zeros_like(output), output)
        total = total + (finite.double() * along).sum()
    return list(torch.autograd.grad(total, list(inputs), allow_unused=False))


def hold(
    name: str, got: Tensor, oracle: Tensor, eager: Tensor, condition: float = 1.0, dtype: torch.dtype | None = None
) -> None:
    """At most twice eager's error plus the output's rounding, and an RMS ratio under the dtype's bound.

    `condition` widens the second bound alone, where the problem itself magnifies rounding: a score of 1,000 rounded to
    float32 is off by 6e-5, and exp turns that into a relative error of 6e-5 of the weight, whoever computes it.
    `dtype` is that of the inputs, whose rounding bounds what can be had, where it is not the result's own.
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
    dtype = dtype or eager.dtype
    print(f"{name} {dtype}: max error {error.max():.2e} (allowed {allowed:.2e}), RMS ratio {rms:.2e}")
    assert error.max() <= allowed, f"{name}: max error {error.max():.3e}, allowed {allowed:.3e}"
    if exact.abs().max() > 1e-20:
        bound = RMS_BOUND[dtype] * condition
        assert rms < bound, f"{name}: RMS ratio {rms:.3e}, allowed {bound:.0e}"
