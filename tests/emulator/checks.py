"""How a family of kernels is held against the definition, and against itself in another order of threads."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.emulator.cases import Case
from tests.emulator.run import Call, Library
from tests.kernels import definitions
from tests.kernels.comparisons import hold

Results = dict[str, Tensor]


def expected(call: Call, dout: Tensor, dlse: Tensor | None, dtype: torch.dtype) -> Results:
    """Outputs and gradients by the definition with the inputs in `dtype`; dk and dv are those of each query head."""
    group = call.q.shape[1] // call.k.shape[1]
    keys = [x.repeat_interleave(group, 1) for x in (call.k, call.v)]
    if call.mask is not None:
        keys = [x.masked_fill(~call.mask[:, None, :, None], 0.0) for x in keys]
    leaves = {name: x.to(dtype, copy=True).requires_grad_() for name, x in zip("qkv", (call.q, *keys), strict=True)}
    if call.bias is not None:
        # Statistics, and the bias with its gradient, are float32 in the kernels whatever q is.
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        leaves["bias"] = call.bias.to(wide, copy=True).requires_grad_()
    out, lse = definitions.sliding_window_attention(
        *(leaves[name] for name in "qkv"), call.left, call.right, scale=call.scale_used, dilation=call.dilation,
        shift=call.shift, ends=None if call.cu_seqlens is None else call.cu_seqlens.tolist(), key_mask=call.mask,
        bias=leaves.get("bias"), seed=None if call.seed is None else int(call.seed), dropout_p=call.dropout_p,
        row_offset=call.row_offset, sinks=call.sinks, softcap=call.softcap,
    )  # fmt: skip
    total, delta = (out * dout.to(dtype)).sum(), (out.detach() * dout.to(dtype)).sum(-1)
    if dlse is not None:
        total, delta = total + (lse.masked_fill(lse.isinf(), 0.0) * dlse.to(dtype)).sum(), delta - dlse
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    found = {"out": out.detach(), "lse": lse.detach()} | {f"d{name}": g for name, g in zip(leaves, grads, strict=True)}
    return found if call.sinks is None else found | {"delta": delta}


def results(
    lib: Library, family: str | None, call: Call, dout: Tensor, dlse: Tensor | None, *, hand_on: bool = False
) -> Results:
    """Forward and backward; `hand_on`: the backward is given out and lse."""
    out, lse = lib.forward(call, family)
    assert lse is not None
    dq, dk, dv, *others = lib.backward(call, dout, dlse, family, **({"out": out, "lse": lse} if hand_on else {}))
    got = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
    return got | {name: x for name, x in zip(("dbias", "delta"), others, strict=True) if x is not None}


class Check:
    """A call, and what the definition makes of it."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.call, self.hand_on, self.dtype = case.call(dtype), case.hand_on, dtype
        self.dout, self.dlse = case.gradients(dtype)
        # A score of 100 rounded to float32 is off by 4e-6, and exp turns that into a relative error of its weight.
        self.condition = 8.0 if case.amplitude > 4 else 1.0

    def run(self, lib: Library, family: str | None) -> Results:
        return results(lib, family, self.call, self.dout, self.dlse, hand_on=self.hand_on)

    def taken_by(self, lib: Library, family: str) -> bool:
        return all(lib.takes(family, self.call, backward=b, handed_on=self.hand_on) for b in (False, True))

    def hold(self, found: dict[str | None, Results]) -> None:
        """What each family found is right within the house's bounds, and exactly 0 where nothing is seen."""
        exact, eager = (expected(self.call, self.dout, self.dlse, dtype) for dtype in (torch.float64, self.dtype))
        for family, got in found.items():
            assert got.keys() == exact.keys()
            for name, x in got.items():
                # Of weights as they were computed, or of out as it was rounded.
                dtype = torch.float32 if name == "delta" and not self.hand_on else self.dtype
                hold(f"{family or 'dispatched'} {name}", x, exact[name], eager[name], self.condition, dtype)
            alone = exact["lse"].isinf()
            assert not got["out"][alone].any()
            assert not got["dq"][alone].any()
            if self.call.mask is not None:
                assert not any(got[name].transpose(1, 2)[~self.call.mask].any() for name in ("dk", "dv"))
