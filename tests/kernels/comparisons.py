"""How a kernel is held against its definition: in float64, and in eager PyTorch at the kernel's own dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

RMS_BOUND = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 8e-3}
#: How far a result may be off relative to its largest number: some roundings of the dtype, and of sums in float32.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}


def gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Gradients of a random linear functional of the outputs; rows of -inf count for nothing.

    Its factors are numbers of 16 bits, so that outputs of any dtype get the same gradients.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        along = torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu")
        along = along.bfloat16().double().to(output.device)
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


def results_and_gradients(
    compute: Callable[..., Mapping[str, Tensor]],
    leaves: Mapping[str, Tensor | None],
    along: Mapping[str, Tensor | None],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """What `compute` makes of the leaves in `dtype`, and the leaves' gradients along those of the results."""
    wide = {
        name: None if leaf is None else leaf.detach().to("cpu", dtype, copy=True).requires_grad_()
        for name, leaf in leaves.items()
    }
    results = compute(**wide)
    total = torch.zeros((), dtype=dtype)
    for name, direction in along.items():
        if direction is not None:
            finite = results[name].masked_fill(results[name].isinf(), 0.0)
            total = total + (finite * direction.cpu().to(dtype)).sum()
    present = {name: leaf for name, leaf in wide.items() if leaf is not None}
    found = torch.autograd.grad(total, list(present.values()), allow_unused=True)
    gradients = {
        f"d{name}": torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(present.items(), found, strict=True)
    }
    return {**{name: result.detach() for name, result in results.items()}, **gradients}


def hold_all(
    found: Mapping[str, Tensor],
    compute: Callable[..., Mapping[str, Tensor]],
    leaves: Mapping[str, Tensor | None],
    along: Mapping[str, Tensor | None],
    dtype: torch.dtype,
    condition: float,
    names: Sequence[str],
) -> None:
    """Holds what a kernel found under these names against its definition, by the house's bounds."""
    exact = results_and_gradients(compute, leaves, along, torch.float64)
    eager = results_and_gradients(compute, leaves, along, dtype)
    assert set(found) == set(names)
    for name in names:
        # Sums of weights and gradients carry the scores' rounding, which the softmax magnifies: a lottery, see `hold`.
        of_weights = max(condition, 2.0) if name == "usage" or name.startswith("d") else condition
        hold(name, found[name].cpu(), exact[name], eager[name], of_weights, dtype)
