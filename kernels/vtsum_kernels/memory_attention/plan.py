"""Which way a call takes, by counted work and memory: the thresholds of the read, all in one place."""

from __future__ import annotations

import torch

#: Weights of all slots are kept for the backward pass up to so many bytes; beyond, they are computed twice. Computing
#: them again costs one product of seven.
KEPT_WEIGHTS = 512 * 2**20
#: On a GPU flash attention is the better read from so many slots on, while a head's rows fit in registers.
FLASH_SLOTS_GPU = 1024
FLASH_DIM_GPU = 256
#: From so many scores on, 32 MB in float32, flash attention in one kernel is the faster form: what a block of scores
#: passes on no longer stays in the L2 cache of 40 to 50 MB. Fewer take some 20 us, less than Triton takes to launch.
FUSED_SCORES_GPU = 2**23
#: Elements of a block of scores that a read without weights holds: 64 MB in float32.
BLOCK_SCORES = 16 * 2**20
#: A shortlist by rounded products pays for large banks, many rows and few slots a row.
SHORTLIST_SLOTS = 2048
SHORTLIST_ROWS = 256
SHORTLIST_SHARE = 32
#: Rows and slots of a block of rounded scores: 4 MB in bfloat16.
SHORTLIST_BLOCK = (512, 4096)


def block_rows(slots: int) -> int:
    """Rows of a block of scores."""
    return max(BLOCK_SCORES // max(slots, 1), 16)


def block_rows_cuda(slots: int) -> int:
    """The same of the compiled library on a GPU, whose blocks are of all groups and heads: `slots` counts them all."""
    return max(BLOCK_SCORES // max(slots, 1), 64)


def keeps_weights(device: torch.device, rows: int, heads: int, slots: int, dim: int, item: int, grad: bool) -> bool:
    """Whether a dense read keeps the weights of all slots; `rows` counts those of all groups."""
    if device.type == "cpu" and torch.compiler.is_exporting():
        return False  # it serves any number of rows
    size = rows * heads * slots * item
    if device.type == "cpu":
        return size <= (KEPT_WEIGHTS if grad else BLOCK_SCORES * item)
    return slots < FLASH_SLOTS_GPU or dim > FLASH_DIM_GPU


def fuses(dtype: torch.dtype, rows: int, heads: int, slots: int, dim: int) -> bool:
    """Whether a dense read on a GPU, of rows of all groups, gains by a kernel that never stores scores.

    In float32, which tensor cores do not multiply, the products take as long as the scores' way through memory, and
    the BLAS does them best. Exported, a call must run where there is no Triton, for any number of rows.
    """
    if torch.compiler.is_exporting() or dtype not in (torch.float16, torch.bfloat16):
        return False
    return slots >= FLASH_SLOTS_GPU and dim <= FLASH_DIM_GPU and rows * heads * slots >= FUSED_SCORES_GPU


def shortlists(rows: int, slots: int, k: int) -> bool:
    """Whether to search by rounded products first."""
    return rows >= SHORTLIST_ROWS and slots >= SHORTLIST_SLOTS and k * SHORTLIST_SHARE <= slots
