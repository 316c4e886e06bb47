"""`memory_attention` in Triton: weights of all slots, and flash attention over many slots, forward and backward.

Shapes: n rows of each of G groups (1 where all share a bank), H heads, S slots. x is [G, n, H, d], a bank [G, H, S, d].
Each kernel writes an element in the one program that owns it, and sums go by way of shares added in order: no atomics,
the same bits in every run. Rows that a query mask leaves out are never read, and may hold anything; so may gradients of
weights that are 0. The values of slots that a bias of -inf leaves out must be finite.

Tile sizes are measured at the first call of a kind and remembered, see triton_kit/tuning.py. Imported at the first call
that needs it: this folder needs the package triton.
"""

from __future__ import annotations

from .flash_launch import flash_backward, flash_forward
from .launch import weights_backward, weights_forward

__all__ = ["flash_backward", "flash_forward", "weights_backward", "weights_forward"]
