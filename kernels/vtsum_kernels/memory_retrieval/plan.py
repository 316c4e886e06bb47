"""Which way a call takes, by counted work and memory: the thresholds of memory retrieval, all in one place."""

from __future__ import annotations

import torch

#: Weights of all slots are kept for the backward pass up to so many bytes; beyond, they are computed twice. Computing
#: them again costs one product of seven.
KEPT_WEIGHTS = 512 * 2**20
#: On a GPU flash attention is the better read from so many slots on, while a head's rows fit in registers.
FLASH_SLOTS_GPU = 1024
FLASH_DIM_GPU = 256
#: Calls that share the cost of folding where the folded constants are kept.
CALLS_OF_KEPT = 16
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


def keeps_weights(device: torch.device, rows: int, heads: int, slots: int, dim: int, item: int, grad: bool) -> bool:
    """Whether a dense read keeps the weights of all slots; `rows` counts those of all groups."""
    size = rows * heads * slots * item
    if device.type == "cpu":
        return size <= (KEPT_WEIGHTS if grad else BLOCK_SCORES * item)
    return slots < FLASH_SLOTS_GPU or dim > FLASH_DIM_GPU


def folds(
    frames: int,
    dim: int,
    heads: int,
    slots: int,
    key_dim: int,
    value_dim: int,
    out_dim: int,
    groups: int,
    top_k: int | None,
    kept: bool,
) -> tuple[bool, bool]:
    """Whether folding saves multiplications: the query projection into the keys, the linear layer into the values.

    frames counts those of all groups, each of which has a bank of its own. With top_k, a frame reads that many slots
    and not all of them, but is compared with all. kept: later calls find what this one folds.
    """
    bank = groups * heads * slots // (CALLS_OF_KEPT if kept else 1)
    read = slots if top_k is None else min(top_k, slots)
    keys_apart = frames * heads * key_dim * (dim + slots)
    keys_folded = bank * dim * key_dim + frames * heads * slots * dim
    values_apart = frames * heads * value_dim * (out_dim + read)
    values_folded = bank * out_dim * value_dim + frames * heads * read * out_dim
    return keys_folded < keys_apart, values_folded < values_apart


def shortlists(rows: int, slots: int, k: int) -> bool:
    """Whether to search by rounded products first."""
    return rows >= SHORTLIST_ROWS and slots >= SHORTLIST_SLOTS and k * SHORTLIST_SHARE <= slots
