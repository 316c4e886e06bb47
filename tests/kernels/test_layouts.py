"""Fakes promise the strides that the ops give, for every layout of what they take. On CUDA: tests/emulator."""

from __future__ import annotations

import torch

from tests.kernels.layouts import agrees, calls

OPS = torch.ops.vtsum_kernels


def test_fakes_have_the_strides_of_the_ops(cpp: None) -> None:
    for name, arguments in calls():
        agrees(getattr(OPS, name), getattr(OPS, name), arguments)
