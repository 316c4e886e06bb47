"""Sliding-window attention in Triton, forward and backward: the op for GPUs without the compiled extension.

Three forms of kernels share the work (see configs.py for which serves what):
- strip: rows in registers, the window's offsets one after the other, plain float32 products; narrow windows.
- tile: tensor cores, blocks of rows against blocks of keys; narrow windows take one block, wide ones a running softmax.
- fused: tensor cores, the whole backward of a narrow window in one kernel.
In each of them an output element is written by the one program that owns it: no atomics, the same bits each time. dbias
is summed from each program's share, in a fixed order.

Values that tile and fused multiply by zero must be finite: padded keys are never loaded, but a NaN or infinity in v
(backward: also in q, k and dout) of a frame that is not padded may reach rows beyond its window that share its tile.

Options that a call leaves out are left out of its kernel. Tile sizes are measured at the first call of a kind and
remembered, see triton_kit/tuning.py.

Imported at the first call that needs it: this folder needs the package triton.
"""

from __future__ import annotations

from .launch import backward, forward

__all__ = ["backward", "forward"]
