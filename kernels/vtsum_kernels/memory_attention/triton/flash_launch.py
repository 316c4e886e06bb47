"""Flash attention over slots: its three passes backward and two forward, and how their work is cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...tensors import contiguous, dense_rows, near_rows
from ...triton_kit.launch import (
    aligned,
    aligned_strides,
    cdiv,
    launch,
    mask_arguments,
    on_its_device,
    power_of_two,
    run,
    strides,
)
from ...triton_kit.tuning import Config
from . import configs
from .configs import PRECISION, about
from .flash import memory_flash_fwd_kernel, memory_usage_kernel
from .flash_bwd import memory_flash_bwd_rows_kernel, memory_flash_bwd_slots_kernel

#: Programs that fill the widest GPU twice. A constant, so that sums are cut alike on each.
ENOUGH_PROGRAMS = 264


def cut(rows: int, block: int, programs: int) -> tuple[int, int]:
    """How many chunks the rows fall into so that `programs` times as many fill a GPU, and the rows of a chunk.

    Chunks are of whole blocks, and of four at least.
    """
    blocks = -(-rows // block)
    chunks = min(-(-ENOUGH_PROGRAMS // programs), max(blocks // 4, 1))
    size = -(-blocks // chunks)
    return -(-blocks // size), size * block


def block_sums(values: Tensor, block: int) -> Tensor:
    """Sums in float32 over blocks of slots: [G, H, blocks, e] of [G, H, S, e], the last block perhaps short."""
    whole = values.shape[2] // block * block
    sums = values[:, :, :whole].unflatten(2, (-1, block)).sum(3, dtype=torch.float32)
    if whole == values.shape[2]:
        return sums
    return torch.cat((sums, values[:, :, whole:].sum(2, keepdim=True, dtype=torch.float32)), 2)


def _arguments(
    x: Tensor, keys: Tensor, values: Tensor, factor: Tensor, slot_bias: Tensor | None, query_mask: Tensor | None
) -> dict[str, Any]:
    (_, n, heads, dim), (_, _, slots, value_dim) = x.shape, values.shape
    bias = None if slot_bias is None else dense_rows(slot_bias)
    return {
        "x_ptr": x, "keys_ptr": keys, "values_ptr": values, "factor_ptr": factor.contiguous(), "bias_ptr": bias,
        "n": n, **aligned("S", slots), "H": heads, "D": dim, "E": value_dim, "BLOCK_D": power_of_two(dim),
        "BLOCK_E": power_of_two(value_dim), "HAS_BIAS": bias is not None, "PRECISION": PRECISION,
        "HALF": x.dtype != torch.float32, **aligned_strides("x", x, "gnh"), **aligned_strides("keys", keys, "ghs"),
        **aligned_strides("values", values, "ghs"), **strides("bias", bias, "gh"), **mask_arguments(query_mask, "gn"),
    }  # fmt: skip


def _words(name: str, arguments: dict[str, Any], rows: int) -> tuple[Any, ...]:
    options = [arguments[option] for option in ("HAS_BIAS", "HAS_MASK")]
    return (
        f"memory_{name}", arguments["x_ptr"].dtype, arguments["D"], arguments["E"], power_of_two(arguments["S"]),
        about(rows), *options,
    )  # fmt: skip


@on_its_device
def flash_forward(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    need_usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """sum_s softmax_s(factor x . k_s + bias_s) v_s, [G, n, H, e]; lse [G, H, n]; usage [G, H, S], or [0] if not needed.

    Args: as of `weights_forward`; values (Tensor): [G, H, S, e]. d and e are at most 256.
    """
    (groups, n, heads, dim), (_, _, slots, value_dim) = x.shape, values.shape
    statistics: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    out = torch.empty((groups, n, heads, value_dim), dtype=x.dtype, device=x.device)
    lse = torch.empty((groups, heads, n), **statistics)
    if lse.numel() == 0 or slots == 0:
        usage = torch.zeros((groups, heads, slots) if need_usage else (0,), **statistics)
        return out.zero_(), lse.fill_(-torch.inf), usage
    x, keys, values = near_rows(x, 1), near_rows(keys, 2), near_rows(values, 2)
    arguments = _arguments(x, keys, values, factor, slot_bias, query_mask)
    arguments |= {"out_ptr": out, "lse_ptr": lse}
    pairs, width = groups * heads, power_of_two(max(dim, value_dim))
    options = slot_bias is not None or query_mask is not None

    def call(config: Config) -> None:
        m, block = config.block_m, config.block_n
        blocks, slot_blocks = cdiv(n, m), cdiv(slots, block)
        sizes = {"BLOCK_M": m, "BLOCK_N": block, "EVEN_S": slots % block == 0}
        others = {"blocks": blocks, "slot_blocks": slot_blocks, **sizes}
        sums = block_sums(values, block) if arguments["HALF"] else None
        launch(memory_flash_fwd_kernel, pairs * blocks, config, arguments, **others, sums_ptr=sums)

    def call_usage(config: Config) -> Tensor:
        m, block = config.block_m, config.block_n
        slot_blocks = cdiv(slots, block)
        chunks, chunk_rows = cut(n, m, pairs * slot_blocks)
        shares = torch.empty((chunks, groups, heads, slots), **statistics)
        sizes = {"BLOCK_M": m, "BLOCK_N": block, "EVEN_S": slots % block == 0, "partial_ptr": shares}
        others = {"slot_blocks": slot_blocks, "chunks": chunks, "chunk_rows": chunk_rows, "pairs": pairs, **sizes}
        launch(memory_usage_kernel, pairs * slot_blocks * chunks, config, arguments, **others)
        return shares.sum(0)

    candidates = configs.flash_forward_candidates(x.dtype, width, options)
    run(_words("flash_fwd", arguments, pairs * n), x.device, candidates, call)
    if not need_usage:
        return out, lse, lse.new_empty(0)
    words = _words("usage", arguments, pairs * n)
    return out, lse, run(words, x.device, configs.usage_candidates(x.dtype), call_usage)


@on_its_device
def flash_backward(
    dout: Tensor,
    dlse: Tensor | None,
    dusage: Tensor | None,
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `flash_forward`: dx, dkeys, dvalues, dfactor, and dslot_bias [G, H, S], zeros without a bias."""
    (groups, n, heads, dim), (_, _, slots, value_dim) = x.shape, values.shape
    statistics: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    dx = torch.empty((groups, n, heads, dim), dtype=x.dtype, device=x.device)
    dfactor = torch.empty((groups, heads, n), **statistics)
    if lse.numel() == 0 or slots == 0:
        dbias = torch.zeros((groups, heads, slots), **statistics)
        dkeys, dvalues = (torch.zeros(bank.shape, dtype=bank.dtype, device=x.device) for bank in (keys, values))
        return dx.zero_(), dkeys, dvalues, dfactor.zero_(), dbias
    x, dout, out = (near_rows(tensor, 1) for tensor in (x, dout, out))
    keys, values = near_rows(keys, 2), near_rows(values, 2)
    pairs, width = groups * heads, power_of_two(max(dim, value_dim))
    options = any(option is not None for option in (slot_bias, query_mask, dusage)) or (dim | value_dim) % 16 != 0
    by_rows = configs.flash_rows_candidates(x.dtype, width, options)
    by_slots = configs.flash_slots_candidates(x.dtype, width, options)
    summed = min(config.block_m for config in (*by_rows, *by_slots))  # rows whose dout one kernel sums for the other
    arguments = _arguments(x, keys, values, factor, slot_bias, query_mask)
    arguments |= {
        "dout_ptr": dout, "out_ptr": out, "lse_ptr": lse.contiguous(), "dx_ptr": dx, "dfactor_ptr": dfactor,
        "dlse_ptr": contiguous(dlse), "HAS_DLSE": dlse is not None,
        "dusage_ptr": contiguous(dusage), "HAS_DUSAGE": dusage is not None,
        **{f"{name}_ptr": torch.empty_like(dfactor) for name in ("steep", "shift", "delta")},
        "sums_ptr": torch.empty((groups, heads, cdiv(n, summed), value_dim), **statistics), "SUMMED": summed,
        **aligned_strides("dout", dout, "gnh"), **aligned_strides("out", out, "gnh"),
    }  # fmt: skip

    def call_rows(config: Config) -> None:
        m, block = config.block_m, config.block_n
        blocks = cdiv(n, m)
        others = {"BLOCK_M": m, "BLOCK_N": block, "EVEN_S": slots % block == 0, "blocks": blocks}
        launch(memory_flash_bwd_rows_kernel, pairs * blocks, config, arguments, **others)

    def call_slots(config: Config) -> tuple[Tensor, Tensor, Tensor]:
        m, block = config.block_m, config.block_n
        slot_blocks = cdiv(slots, block)
        chunks, chunk_rows = cut(n, m, pairs * slot_blocks)
        dtype = x.dtype if chunks == 1 else torch.float32
        shape = (chunks, groups, heads, slots)
        dkeys = torch.empty((*shape, dim), dtype=dtype, device=x.device)
        dvalues = torch.empty((*shape, value_dim), dtype=dtype, device=x.device)
        dbias = None if slot_bias is None else torch.empty(shape, **statistics)
        others = {
            "BLOCK_M": m, "BLOCK_N": block, "slot_blocks": slot_blocks, "chunks": chunks, "chunk_rows": chunk_rows,
            "pairs": pairs, "dkeys_ptr": dkeys, "dvalues_ptr": dvalues, "dbias_ptr": dbias,
        }  # fmt: skip
        launch(memory_flash_bwd_slots_kernel, pairs * slot_blocks * chunks, config, arguments, **others)
        if chunks > 1:
            dkeys, dvalues = (share.sum(0, keepdim=True).to(x.dtype) for share in (dkeys, dvalues))
        return dkeys[0], dvalues[0], dfactor.new_zeros(shape[1:]) if dbias is None else dbias.sum(0)

    told = dusage is not None
    run((*_words("flash_rows", arguments, pairs * n), told), x.device, by_rows, call_rows)
    words = (*_words("flash_slots", arguments, pairs * n), told)
    dkeys, dvalues, dbias = run(words, x.device, by_slots, call_slots)
    return dx, dkeys, dvalues, dfactor, dbias
