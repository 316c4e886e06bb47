"""How far what was read from a bank is off the ops' references in float64, some rows at a time.

Of many frames a forward pass is checked at stretches of them; the gradients of what all frames share are sums over
every frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench.kit.accuracy import Errors, Sums, finite, stretches, total
from bench.kit.kernels import reference
from bench.ops.memory_attention.setting import Inputs, Setting

#: Numbers in the largest table of a block of rows.
BLOCK_NUMBERS = 2**24


class Check:
    """Right results for the first set of inputs, computed once, when asked."""

    def __init__(self, setting: Setting, inputs: Inputs) -> None:
        self.setting = setting
        x, gather = inputs.x[0].detach(), setting.case == "gather"
        self.x = x if gather else x[0]
        self.dout = (inputs.dout[0] if gather else inputs.dout[0][0]).detach() if setting.gradients else None
        self.parameters = {name: tensor.detach().double() for name, tensor in inputs.parameters.items()}
        self.index = inputs.constants.get("index")
        self._out: list[tuple[slice, Tensor]] = []
        self._gradients: list[tuple[Tensor, float]] = []

    def errors(self, outputs: Sequence[Tensor]) -> Errors:
        """Of (out, gradients of x and of each parameter); for the search, of (scores, slots)."""
        if not finite(outputs):
            return Errors(math.inf, math.inf, len(self.x))
        if self.setting.case == "search":
            return self._search_errors(outputs[0], outputs[1].long())
        if not self._out:
            self._compute()
        out, result = outputs[0].detach().flatten(0, -2), Sums()
        for part, right in self._out:
            result.add(out[part], right)
        sums = [result]
        for output, (right, norm) in zip(outputs[1:], self._gradients, strict=True):
            sums.append(Sums(norm))
            sums[-1].add(output.reshape(right.shape), right)
        return total(sums, sum(len(right) for _, right in self._out))

    def _blocks(self, ranges: Sequence[tuple[int, int]]) -> Iterator[slice]:
        s = self.setting
        width = s.k * s.dim if s.case == "gather" else s.heads * s.slots
        step = max(BLOCK_NUMBERS // max(width, s.dim), 1)
        return (slice(i, min(i + step, b)) for a, b in ranges for i in range(a, b, step))

    def _compute(self) -> None:
        tokens = len(self.x)
        if self.dout is None:
            blocks = self._blocks(stretches(tokens))
            self._out = [(part, self._read(part, self.x[part].double(), **self.parameters)) for part in blocks]
            return
        leaves = {name: tensor.requires_grad_() for name, tensor in self.parameters.items() if name != "scale"}
        dx, sums = torch.empty_like(self.x, dtype=torch.float64), {n: torch.zeros_like(t) for n, t in leaves.items()}
        dscale, squares = 0.0, 0.0
        for part in self._blocks([(0, tokens)]):
            x, given, inputs = self.x[part].double().requires_grad_(), dict(leaves), list(leaves.values())
            if "scale" in self.parameters:  # one for each score: the terms of its gradient
                shape = (1, self.setting.heads, len(x), self.setting.slots)
                given["scale"] = self.parameters["scale"].expand(shape).clone().requires_grad_()
                inputs.append(given["scale"])
            out = self._read(part, x, **given)
            dx[part], *others = torch.autograd.grad(out, (x, *inputs), self.dout[part].double())
            for name, gradient in zip(leaves, others, strict=False):
                sums[name] += gradient
            if "scale" in given:
                dscale += float(others[-1].sum())
                squares += float(others[-1].square().sum())
            self._out.append((part, out.detach()))
        # The temperature's gradient is one number, the sum of a term for each frame and slot, of either sign. It is
        # held against the size that such a sum has by chance, since it may come out near 0 by chance.
        scale = (dx.new_tensor(dscale), math.sqrt(squares))
        found = {name: (sums[name], float(sums[name].norm())) for name in leaves} | {"scale": scale}
        self._gradients = [(dx, float(dx.norm())), *(found[name] for name in self.parameters)]

    def _read(self, part: slice, x: Tensor, **p: Tensor) -> Tensor:
        """[rows, C] of x [rows, C]."""
        s = self.setting
        if self.index is not None:
            return (x[..., None] * p["table"][self.index[part].long()]).sum(1)
        if s.case == "product_keys":
            keys = (p["first"][None, None], p["second"][None, None])
            read = reference(
                "memory_attention", x[None, :, None], keys, p["values"][None, None], scale=p["scale"], top_k=s.k
            )
            return read[0][0, :, 0]
        bank = p["bank"].unflatten(1, (s.heads, -1)).transpose(0, 1)[None]
        if "join_weight" not in p:
            queries = x.unflatten(1, (s.heads, -1))[None]
            read = reference(
                "memory_attention", queries, bank, bank, scale=p["scale"], normalize=s.cosine, top_k=s.k or None
            )
            return read[0][0].flatten(1)
        joined = reference(
            "memory_fuse",
            x[None],
            bank,
            bank,
            p["join_weight"],
            p["join_bias"],
            query_weight=p.get("query_weight"),
            scale=p["scale"],
            normalize=s.cosine,
        )
        return joined[0][0]

    def _search_errors(self, scores: Tensor, slots: Tensor) -> Errors:
        """Of the scores that are claimed, and of those that the slots really have: whoever ties is as right."""
        bank, sums, rows, twice = self.parameters["bank"], [Sums(), Sums()], 0, False
        for part in self._blocks(stretches(len(self.x))):
            x = self.x[part].double()
            right = torch.topk(x @ bank.t(), self.setting.k).values
            sums[0].add(scores[part], right)
            sums[1].add((bank[slots[part]] @ x[..., None]).squeeze(-1), right)
            twice |= bool((slots[part].sort(-1).values.diff(dim=-1) == 0).any())
            rows += len(x)
        return Errors(math.inf, math.inf, rows) if twice else total(sums, rows)
