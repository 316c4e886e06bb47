"""Calls of the Triton kernels that read a memory, held to the definition.

On the GPU where there is one; else in Triton's interpreter, in the process that test_triton.py starts for it.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from tests.kernels import definitions
from tests.kernels.comparisons import hold_all
from tests.kernels.pretended_gpu import PRETENDED

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from vtsum_kernels.memory_attention import triton as memory

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not PRETENDED
MARKS = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"
Results = dict[str, Tensor]


def on_device(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.to(DEVICE) for tensor in tensors]


class Read:
    """Random tensors for a call: of the weights' kernels, or with `width`, that of the values, of flash attention's."""

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],  # G, n, H, S, d
        dtype: torch.dtype,
        *,
        width: int | None = None,
        bias: str | None = None,
        mask: bool = False,
        gradients: str = "wlu",
        strided: bool = False,
    ) -> None:
        groups, n, heads, slots, dim = shape
        self.dtype, self.slots = dtype, slots
        self.x, self.keys = (
            torch.randn(groups, n, heads, dim).to(dtype),
            torch.randn(groups, heads, slots, dim).to(dtype),
        )
        self.values = None if width is None else torch.randn(groups, heads, slots, width).to(dtype)
        if strided:  # heads first in rows with gaps, and banks as one matrix of all heads
            self.x = torch.randn(n, heads, groups, dim + 3).to(dtype).permute(2, 0, 1, 3)[..., :dim]
            self.keys = torch.randn(groups, slots, heads * dim).to(dtype).unflatten(2, (heads, dim)).transpose(1, 2)
            if width is not None:
                self.values = torch.randn(groups, heads, width, slots).to(dtype).transpose(2, 3)
        self.factor = torch.rand(groups, heads, n) * 0.5
        self.bias = None
        if bias is not None:
            self.bias = torch.randn(groups if "G" in bias else 1, heads if "H" in bias else 1, slots)
            self.bias[..., 1::3] = -torch.inf
            if "0" in bias:
                self.bias[0, 0] = -torch.inf  # rows that find no slot
        self.mask = torch.rand(groups, n) > 0.3 if mask else None
        weights = torch.randn(groups, heads, n, slots).to(dtype) if "w" in gradients else None
        self.along = {
            **({"weights": weights} if width is None else {"out": torch.randn(groups, n, heads, width).to(dtype)}),
            "lse": torch.randn(groups, heads, n) if "l" in gradients else None,
            "usage": torch.randn(groups, heads, slots) if "u" in gradients else None,
        }
        leaves = {"x": self.x, "keys": self.keys, "values": self.values, "factor": self.factor, "bias": self.bias}
        self.leaves = {name: leaf for name, leaf in leaves.items() if name != "values" or leaf is not None}

    def compute(
        self, x: Tensor, keys: Tensor, factor: Tensor, bias: Tensor | None, values: Tensor | None = None
    ) -> Results:
        weights, lse, usage = definitions.memory_weights(x, keys, factor, bias, self.mask)
        if values is None:
            return {"weights": weights, "lse": lse, "usage": usage}
        return {"out": torch.einsum("ghns,ghse->gnhe", weights, values), "lse": lse, "usage": usage}

    def run(self) -> Results:
        """What rows that the mask leaves out hold, and are asked for, is NaN."""
        x, factor, (main, dlse, dusage) = self.x, self.factor, self.along.values()
        if self.mask is not None:
            out, by_head = ~self.mask[:, :, None, None], ~self.mask[:, None]
            x, factor = x.masked_fill(out, torch.nan), factor.masked_fill(by_head, torch.nan)
            dlse = None if dlse is None else dlse.masked_fill(by_head, torch.nan)
            if main is not None:
                main = main.masked_fill(out if self.values is not None else by_head[..., None], torch.nan)
        gradients = on_device(main, dlse, dusage)
        if self.values is None:
            inputs = on_device(x, self.keys, factor, self.bias, self.mask)
            weights, lse, usage = memory.weights_forward(*inputs, self.dtype)
            dx, dkeys, dfactor, dbias = memory.weights_backward(
                *gradients, weights, *inputs[:3], inputs[4], self.bias is not None
            )
            found = {"weights": weights, "lse": lse, "usage": usage, "dx": dx, "dkeys": dkeys, "dfactor": dfactor}
            assert self.bias is not None or dbias.shape == (0,)
        else:
            inputs = on_device(x, self.keys, self.values, factor, self.bias, self.mask)
            out, lse, usage = memory.flash_forward(*inputs, True)
            dx, dkeys, dvalues, dfactor, dbias = memory.flash_backward(*gradients, *inputs, out, lse)
            found = {"out": out, "lse": lse, "usage": usage, "dx": dx, "dkeys": dkeys, "dvalues": dvalues}
            found["dfactor"] = dfactor
            assert self.bias is not None or not dbias.any()
        if self.bias is not None:
            found["dbias"] = dbias.sum_to_size(self.bias.shape) if dbias.numel() else dbias
        return {name: tensor.cpu() for name, tensor in found.items()}

    def check(self) -> None:
        found = self.run()
        # bfloat16 is cut off, not rounded, in the interpreter; and gradients start from weights rounded to it.
        condition = 1.0 if self.dtype == torch.float32 else 4.0
        hold_all(found, self.compute, self.leaves, self.along, self.dtype, condition, list(found))
