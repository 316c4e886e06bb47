"""A shape of the sliding-window benchmark: its inputs, the pass to measure, and the check of its results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.kit.accuracy import Errors, Sums, finite, stretches, total
from bench.kit.clock import Call
from bench.kit.kernels import reference

OP = "sliding_window_attention"
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]

#: Tensors that each pass has to read and to write: q, k, v, out; dout, q, k, v, dq, dk, dv; both.
TENSORS = {"fwd": 4, "fwd_recorded": 4, "bwd": 7, "fwd+bwd": 11}


@dataclass(frozen=True)
class Setting:
    case: str
    device: str
    dtype: str
    direction: str
    """fwd, fwd_recorded (for autograd), bwd, or fwd+bwd."""
    batch: int
    heads: int
    frames: int
    dim: int
    window: int
    layout: str = "bhtd"
    """bhtd: contiguous [B, H, T, D]; bthd: a transposed view of [B, T, H, D]."""

    @property
    def element_bytes(self) -> int:
        return int(getattr(torch, self.dtype).itemsize)

    @property
    def tensor_bytes(self) -> int:
        return self.batch * self.heads * self.frames * self.dim * self.element_bytes

    @property
    def moved_bytes(self) -> int:
        """What the pass has to read and to write at the least."""
        return TENSORS[self.direction] * self.tensor_bytes

    @property
    def gradients(self) -> bool:
        return self.direction in ("bwd", "fwd+bwd")

    @property
    def shape(self) -> dict[str, int]:
        return {"B": self.batch, "H": self.heads, "T": self.frames, "D": self.dim, "window": self.window}

    @property
    def title(self) -> str:
        layout = "" if self.layout == "bhtd" else f" {self.layout}"
        return f"window {self.direction} {self.dtype} B {self.batch} T {self.frames} w {self.window}{layout}"


def make_inputs(setting: Setting, seed: int = 0) -> Inputs:
    """q, k, v and the output's gradient, in the setting's layout."""
    generator = torch.Generator(setting.device).manual_seed(seed)
    dtype = getattr(torch, setting.dtype)
    made = []
    for name in ("q", "k", "v", "dout"):
        shape = [setting.batch, setting.heads, setting.frames, setting.dim]
        if setting.layout == "bthd":
            shape[1], shape[2] = shape[2], shape[1]
        x = torch.randn(shape, generator=generator, dtype=dtype, device=setting.device)
        x = x.transpose(1, 2) if setting.layout == "bthd" else x
        made.append(x.requires_grad_(name != "dout" and setting.direction != "fwd"))
    return made[0], made[1], made[2], made[3]


def call_of(attend: Attend, inputs: Sequence[Inputs], direction: str) -> Call:
    """The pass to measure."""
    if direction in ("fwd", "fwd_recorded"):
        return lambda i: (attend(*inputs[i][:3]),)
    if direction == "bwd":
        recorded = [attend(*tensors[:3]) for tensors in inputs]
        return lambda i: torch.autograd.grad(recorded[i], inputs[i][:3], inputs[i][3], retain_graph=True)

    def both(i: int) -> tuple[Tensor, ...]:
        q, k, v, dout = inputs[i]
        out = attend(q, k, v)
        return out, *torch.autograd.grad(out, (q, k, v), dout)

    return both


class Check:
    """How far results are off the reference in float64, at stretches of frames; each is computed once, when asked."""

    def __init__(self, inputs: Inputs, window: int) -> None:
        self.inputs, self.window = tuple(x.detach() for x in inputs), window
        self.right = functools.cache(self._right)

    def errors(self, outputs: Sequence[Tensor], gradients: bool, shift: bool = False) -> Errors:
        """Of (out,), or, with gradients, of (out, dq, dk, dv) or the last three; `shift`: windows are moved inside."""
        frames = self.inputs[0].shape[2]
        if not finite(outputs):
            return Errors(float("inf"), float("inf"), frames)
        sums, rows = [Sums() for _ in outputs], 0
        for a, b in stretches(frames):
            for one, output, right in zip(
                sums, outputs, self.right(a, b, gradients, shift)[-len(outputs) :], strict=True
            ):
                one.add(output[:, :, a:b], right)
            rows += b - a
        return total(sums, rows)

    def _right(self, a: int, b: int, gradients: bool, shift: bool) -> tuple[Tensor, ...]:
        """For frames a to b - 1, from those that can reach them: whoever sees or is seen is less than a window away."""
        frames, reach = self.inputs[0].shape[2], self.window - 1
        begin, end = (max(a - reach, 0), min(b + reach, frames)) if gradients else (a, b)
        low, high = max(begin - reach, 0), min(end + reach, frames)
        q, k, v = (x[:, :, low:high].double().requires_grad_(gradients) for x in self.inputs[:3])
        side = self.window // 2
        out = _banded(q, k, v, side)
        if shift:  # at the sequence's ends every row sees the first or the last whole window
            if low == 0:
                out = torch.cat((_seeing_all(q, k, v, slice(self.window))[:, :, :side], out[:, :, side:]), 2)
            if high == frames:
                last = _seeing_all(q, k, v, slice(-self.window, None))
                out = torch.cat((out[:, :, :-side], last[:, :, -side:]), 2)
        results = [out.detach()]
        if gradients:  # rows from `begin` to `end` alone see all that they see in the whole sequence
            dout = torch.zeros_like(out)
            dout[:, :, begin - low : end - low] = self.inputs[3][:, :, begin:end]
            results += torch.autograd.grad(out, (q, k, v), dout)
        return tuple(x[:, :, a - low : b - low].clone() for x in results)


def _banded(q: Tensor, k: Tensor, v: Tensor, side: int) -> Tensor:
    """The reference of a window, as products of all pairs under a bias of -inf: much sooner done than key by key."""
    frames = q.shape[2]
    apart = torch.arange(1 - frames, frames, device=q.device).abs()
    bias = torch.zeros(q.shape[1], len(apart), dtype=q.dtype, device=q.device).masked_fill(apart > side, -torch.inf)
    return reference(OP, q, k, v, frames - 1, frames - 1, scale=q.shape[-1] ** -0.5, bias=bias)[0]


def _seeing_all(q: Tensor, k: Tensor, v: Tensor, part: slice) -> Tensor:
    parts = (x[:, :, part] for x in (q, k, v))
    return reference(OP, *parts, -1, -1, scale=q.shape[-1] ** -0.5)[0]
