"""The strides that the CUDA glue gives are those that the ops' fakes promise."""

from __future__ import annotations

from typing import Any

import torch

from tests.emulator.conftest import OPS
from tests.kernels.layouts import agrees_throughout, calls


def test_fakes_have_the_strides_of_the_glue(emulated: Any) -> None:
    tried = set()
    for name, arguments in calls():
        if name in OPS:
            agrees_throughout(getattr(emulated, name), getattr(torch.ops.vtsum_kernels, name), arguments)
            tried.add(name)
    assert tried == set(OPS)
