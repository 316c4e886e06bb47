"""The right results of reading a bank, in float64: what contestants are held to.

Written apart from the package's own reference: from the definition, head by head, some rows at a time. Of many frames a
forward pass is checked at stretches of them; the gradients of what all frames share are sums over every frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench.kit.accuracy import Errors, stretches
from bench.ops.memory_attention.setting import Inputs, Setting

#: Numbers in the largest table of a block of rows.
BLOCK_NUMBERS = 2**25
#: Slots beyond the k best by float32 scores that are scored again in float64: rounding moves none further than that.
MORE_SLOTS = 32


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """The keys of all pairs of halves: slot i * Sb + j has [first_i, second_j]."""
    return torch.cat((first.repeat_interleave(len(second), 0), second.repeat(len(first), 1)), 1)


class Oracle:
    """Right results for the first set of inputs, computed once, when asked."""

    def __init__(self, setting: Setting, inputs: Inputs) -> None:
        self.setting = setting
        x, names = inputs.x[0].detach(), setting.case == "gather"
        self.x = x if names else x[0]
        self.dout = (inputs.dout[0] if names else inputs.dout[0][0]).detach() if setting.gradients else None
        self.parameters = {name: tensor.detach().double() for name, tensor in inputs.parameters.items()}
        self.index = inputs.constants.get("index")
        self._known: list[tuple[slice, Tensor]] | None = None
        self._gradients: list[tuple[Tensor, float]] = []
        self._scored: list[tuple[Tensor, Tensor]] = []  # scores before and after the temperature

    def errors(self, outputs: Sequence[Tensor]) -> Errors:
        """How far off (out, gradients of x and of each parameter) are; for the search, (scores, slots)."""
        if any(not bool(output.isfinite().all()) for output in outputs):
            return Errors(math.inf, math.inf, len(self.x))
        if self.setting.case == "search":
            return self._search_errors(outputs[0], outputs[1].long())
        if self._known is None:
            self._known = self._results()
        out, largest, wrong, size, rows = outputs[0].detach().flatten(0, -2), 0.0, 0.0, 0.0, 0
        for part, truth in self._known:
            error = out[part].double() - truth
            largest = max(largest, float(error.abs().max()))
            wrong += float(error.square().sum())
            size += float(truth.square().sum())
            rows += len(truth)
        ratios = [math.sqrt(wrong / max(size, 1e-300))]
        for output, (truth, norm) in zip(outputs[1:], self._gradients, strict=True):
            error = output.detach().double().reshape(truth.shape) - truth
            largest = max(largest, float(error.abs().max()))
            ratios.append(float(error.norm()) / max(norm, 1e-300))
        return Errors(largest, max(ratios), rows)

    def _blocks(self, a: int, b: int) -> Iterator[slice]:
        s = self.setting
        width = s.k * s.dim if s.k else s.heads * s.slots
        step = max(BLOCK_NUMBERS // max(width, s.dim), 1)
        return (slice(i, min(i + step, b)) for i in range(a, b, step))

    def _results(self) -> list[tuple[slice, Tensor]]:
        tokens = len(self.x)
        if self.dout is None:
            return [
                (part, self._out(part, **self.parameters)) for a, b in stretches(tokens) for part in self._blocks(a, b)
            ]
        leaves = {name: tensor.requires_grad_() for name, tensor in self.parameters.items()}
        known, dx = [], torch.empty_like(self.x, dtype=torch.float64)
        sums = {name: torch.zeros_like(tensor) for name, tensor in leaves.items()}
        squares = 0.0
        for part in self._blocks(0, tokens):
            x = self.x[part].double().requires_grad_()
            self._scored.clear()
            out = self._out(part, x=x, **leaves)
            scaled = [after for _, after in self._scored]
            slopes = torch.autograd.grad(out, (x, *leaves.values(), *scaled), self.dout[part].double())
            dx[part] = slopes[0]
            for name, slope in zip(leaves, slopes[1:], strict=False):
                sums[name] += slope
            for (before, _), slope in zip(self._scored, slopes[1 + len(leaves) :], strict=True):
                squares += float((before.detach() * slope).square().sum())
            known.append((part, out.detach()))
        # The temperature's gradient is one number, the sum of a term for each frame and slot, of either sign. It is
        # held against the size that such a sum has by chance, since it may come out near 0 by chance.
        norms = {name: float(tensor.norm()) for name, tensor in sums.items()} | {"scale": math.sqrt(squares)}
        self._gradients = [(dx, float(dx.norm())), *((sums[name], norms[name]) for name in sums)]
        return known

    def _out(self, part: slice, x: Tensor | None = None, **p: Tensor) -> Tensor:
        """[rows, C]."""
        x = self.x[part].double() if x is None else x
        if self.index is not None:
            return (x[..., None] * p["table"][self.index[part].long()]).sum(1)
        if self.setting.k:
            return self._best(part, x, **p)
        queries = x @ p["query_weight"].t() if "query_weight" in p else x
        read = []
        for q, slots in zip(queries.chunk(self.setting.heads, 1), p["bank"].chunk(self.setting.heads, 1), strict=True):
            scores = _unit(q) @ _unit(slots).t() if self.setting.cosine else q @ slots.t()
            read.append(torch.softmax(self._scale(scores, p["scale"]), -1) @ slots)
        retrieved = torch.cat(read, 1)
        if "join_weight" not in p:
            return retrieved
        return torch.cat((x, retrieved), 1) @ p["join_weight"].t() + p["join_bias"]

    def _scale(self, scores: Tensor, scale: Tensor) -> Tensor:
        scaled = scores * scale
        self._scored.append((scores, scaled))
        return scaled

    def _best(self, part: slice, x: Tensor, scale: Tensor, **p: Tensor) -> Tensor:
        if self.setting.case == "product_keys":
            keys, values = _pairs(p["first"], p["second"]), p["values"]
        else:
            keys, values = _unit(p["bank"]), p["bank"]
            x = _unit(x)
        index = best_slots(x.detach(), keys.detach(), self.setting.k)
        scores = self._scale((keys[index] @ x[..., None]).squeeze(-1), scale)
        return (torch.softmax(scores, -1)[:, None] @ values[index]).squeeze(1)

    def _search_errors(self, scores: Tensor, slots: Tensor) -> Errors:
        """Of the scores that are claimed, and of those that the slots really have: whoever ties is as right."""
        bank, largest, ratios, rows = self.parameters["bank"], 0.0, [], 0
        for a, b in stretches(len(self.x)):
            for part in self._blocks(a, b):
                x = self.x[part].double()
                right = best_slots(x, bank, self.setting.k)
                truth = (bank[right] @ x[..., None]).squeeze(-1)
                real = (bank[slots[part]] @ x[..., None]).squeeze(-1)
                twice = (slots[part].sort(-1).values.diff(dim=-1) == 0).any()
                for claim in (scores[part].double(), real):
                    error = math.inf if bool(twice) else float((claim - truth).abs().max())
                    largest = max(largest, error)
                    ratios.append(math.inf if bool(twice) else float((claim - truth).norm() / truth.norm()))
                rows += len(x)
        return Errors(largest, max(ratios), rows)


def best_slots(x: Tensor, keys: Tensor, k: int) -> Tensor:
    """int64 [rows, k]: chosen among a few more by float32 scores, and ranked in float64."""
    few = min(k + MORE_SLOTS, len(keys))
    near = torch.topk(x.float() @ keys.float().t(), few).indices
    exact = (keys[near] @ x[..., None]).squeeze(-1)
    return near.gather(1, torch.topk(exact, min(k, few)).indices)
