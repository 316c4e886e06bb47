"""Memory retrieval as dense products of whatever dtype it is asked for: float64 is the oracle, others eager PyTorch.

Written apart from the package's reference. Shapes as in the registered ops: x [G, n, H, d], a bank [G, H, S, d].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tests.kernels import oracle


def weights_of(
    x: Tensor, keys: Tensor, factor: Tensor, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [G, H, n, S], lse [G, H, n] and usage [G, H, S], in x's dtype."""
    if mask is not None:
        x = x.masked_fill(~mask[:, :, None, None], 0.0)
        factor = factor.masked_fill(~mask[:, None], 0.0)
    scores = torch.einsum("gnhd,ghsd->ghns", x, keys) * factor[..., None]
    if bias is not None:
        scores = scores + bias[:, :, None]
    seen = (scores > -torch.inf).any(-1)
    if mask is not None:
        seen = seen & mask[:, None]
    weights = torch.softmax(scores.masked_fill(~seen[..., None], 0.0), -1).masked_fill(~seen[..., None], 0.0)
    lse = torch.logsumexp(scores.masked_fill(~seen[..., None], 0.0), -1).masked_fill(~seen, -torch.inf)
    return weights, lse, weights.sum(2)


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
    """Holds what a kernel found under these names against the oracle, by the house's bounds."""
    exact = results_and_gradients(compute, leaves, along, torch.float64)
    eager = results_and_gradients(compute, leaves, along, dtype)
    assert set(found) == set(names)
    for name in names:
        # Sums of weights and gradients carry the scores' rounding, which the softmax magnifies: a lottery, see `hold`.
        of_weights = max(condition, 2.0) if name == "usage" or name.startswith("d") else condition
        oracle.hold(name, found[name].cpu(), exact[name], eager[name], of_weights, dtype)
