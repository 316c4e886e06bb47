"""The strides that Triton's forms give are those that the ops' fakes promise.

On the GPU where there is one; else in Triton's interpreter, in the process that test_triton.py starts for it.
"""

from __future__ import annotations

import pytest
import torch

from tests.kernels.layouts import agrees_throughout, calls
from tests.kernels.pretended_gpu import PRETENDED

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from tests.kernels.triton_reads import DEVICE, MARKS

pytestmark = MARKS


@pytest.mark.skipif(PRETENDED, reason="a fake of a pretended GPU's tensor is none")
def test_fakes_have_the_strides_of_the_ops() -> None:
    tried = set()
    with torch.device(DEVICE):
        for name, arguments in calls():
            stem, _, direction = name.rpartition("_")
            op = getattr(torch.ops.vtsum_kernels, f"{stem}_triton_{direction}", None)
            if op is not None and name not in tried:
                agrees_throughout(op, op, arguments)
                tried.add(name)
    stems = ("sliding_window_attention", "memory_weights", "memory_flash")
    assert tried == {"memory_join_fwd", *(f"{stem}_{direction}" for stem in stems for direction in ("fwd", "bwd"))}
