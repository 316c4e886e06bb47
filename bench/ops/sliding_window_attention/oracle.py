"""The right results of a sliding window, in float64, for chosen stretches of frames: what contestants are held to.

Written apart from the package's own reference: a dense band, block by block. A stretch is computed from the frames that
can reach it alone, so that sequences of any length can be checked at their borders and at places in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.kit.accuracy import Errors, stretches


def bounds(frames: int, window: int, border: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """First and last key that each row sees."""
    reach = window // 2
    if border == "shift":
        first = (rows - reach).clamp(0, max(frames - window, 0))
        return first, (first + window - 1).clamp(max=frames - 1)
    return (rows - reach).clamp(min=0), (rows + reach).clamp(max=frames - 1)


class Oracle:
    """Right results for inputs [B, H, T, D] and the gradient of the output; each is computed once, when asked."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, window: int) -> None:
        self.inputs = (q.detach(), k.detach(), v.detach(), dout.detach())
        self.window = window
        self._known: dict[tuple[str, bool], list[tuple[Tensor, ...]]] = {}

    def errors(self, outputs: Sequence[Tensor], gradients: bool, border: str) -> Errors:
        """How far off the results are: (out,), or, with gradients, (out, dq, dk, dv) or the last three."""
        frames, largest = self.inputs[0].shape[2], 0.0
        if any(not bool(output.isfinite().all()) for output in outputs):
            return Errors(math.inf, math.inf, frames)
        right = self._results(border, gradients)
        squares = [[0.0, 0.0] for _ in outputs]
        for (a, b), exact in zip(stretches(frames), right, strict=True):
            for square, output, truth in zip(squares, outputs, exact[-len(outputs) :], strict=True):
                error = output[:, :, a:b].detach().double() - truth
                largest = max(largest, float(error.abs().max()))
                square[0] += float(error.square().sum())
                square[1] += float(truth.square().sum())
        ratio = max(math.sqrt(wrong / max(size, 1e-300)) for wrong, size in squares)
        return Errors(largest, ratio, sum(b - a for a, b in stretches(frames)))

    def _results(self, border: str, gradients: bool) -> list[tuple[Tensor, ...]]:
        key = (border, gradients)
        if key not in self._known:
            frames = self.inputs[0].shape[2]
            self._known[key] = [self._stretch(a, b, border, gradients) for a, b in stretches(frames)]
        return self._known[key]

    def _stretch(self, a: int, b: int, border: str, gradients: bool) -> tuple[Tensor, ...]:
        """Results for frames a to b - 1. Whoever sees or is seen by a row is less than a window away from it."""
        frames, halo = self.inputs[0].shape[2], self.window - 1
        begin, end = (max(a - halo, 0), min(b + halo, frames)) if gradients else (a, b)
        low, high = max(begin - halo, 0), min(end + halo, frames)
        first, last = bounds(frames, self.window, border, torch.arange(begin, end, device=self.inputs[0].device))
        keys = torch.arange(low, high, device=first.device)
        sees = (keys >= first[:, None]) & (keys <= last[:, None])
        q = self.inputs[0][:, :, begin:end].double().requires_grad_(gradients)
        k = self.inputs[1][:, :, low:high].double().requires_grad_(gradients)
        v = self.inputs[2][:, :, low:high].double().requires_grad_(gradients)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        out = torch.softmax(scores.masked_fill(~sees, -math.inf), -1) @ v
        own = out[:, :, a - begin : b - begin].detach()
        if not gradients:
            return (own,)
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), self.inputs[3][:, :, begin:end].double())
        return own, dq[:, :, a - begin : b - begin], dk[:, :, a - low : b - low], dv[:, :, a - low : b - low]
