"""Launching of the joined product, and the sizes that it may run with, the default first."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...memory_attention.triton.configs import PRECISION, about, block_k, sizes_of
from ...tensors import contiguous, near_rows
from ...triton_kit.launch import aligned, cdiv, launch, on_its_device, power_of_two, run, strides
from ...triton_kit.tuning import Config
from .join import memory_join_fwd_kernel


@lru_cache(maxsize=1024)
def join_candidates(dtype: torch.dtype, columns: int, split: bool) -> list[Config]:
    """`split`: of weights in two terms, which are made in registers."""
    if dtype == torch.float32:
        return sizes_of("tile", (64, 64, 4, 2), (64, 128, 8, 2), (128, 64, 8, 2), (32, 64, 4, 2))
    if columns <= 64:
        sizes = [(128, 64, 4, 3), (64, 64, 8, 3), (128, 64, 8, 4), (32, 64, 4, 4)]
        return sizes_of("tile", *(sizes[1:] + sizes[:1] if split else sizes))
    few = sizes_of("tile", (64, 128, 8, 3), (64, 128, 4, 4), (64, 256, 8, 3), (32, 64, 4, 4))
    many = sizes_of("tile", (128, 128, 8, 3), (128, 128, 8, 4))
    if split:
        return few[:1] + many + few[1:]
    return many + sizes_of("tile", (128, 256, 8, 3), (128, 256, 8, 4), (256, 128, 8, 3)) + few


@on_its_device
def join(
    x: Tensor, weights: Tensor, weight: Tensor, bank: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    """x W^T + P V + bias + residual, [N, O] of x's dtype.

    Args:
        x (Tensor): [N, C], of any C, 0 included. weights (Tensor): P [N, R], of x's dtype, or float32 beside a bank of
            half precision: it then enters as two terms of that dtype and keeps 16 bits or more.
        weight (Tensor): W [O, C]. bank (Tensor): V [R, O]. bias (Tensor | None): [O], residual (Tensor | None): [N, O].
    """
    (n, width), (bank_rows, out_dim) = x.shape, bank.shape
    y = torch.empty((n, out_dim), dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    split = weights.dtype == torch.float32 and bank.dtype != torch.float32
    x, weights, weight, bank = (near_rows(tensor, 0) for tensor in (x, weights, weight, bank))
    residual = None if residual is None else near_rows(residual, 0)
    steps = {
        **strides("x", x, "n"), **strides("weights", weights, "n"), **strides("weight", weight, "o"),
        **strides("bank", bank, "r"), **strides("residual", residual, "n"),
    }  # fmt: skip
    values: dict[str, Any] = {
        "x_ptr": x, "weights_ptr": weights, "weight_ptr": weight, "bank_ptr": bank, "residual_ptr": residual,
        "bias_ptr": contiguous(bias), "y_ptr": y, "N": n, "GROUP": 8, "SPLIT": split, "HAS_BIAS": bias is not None,
        "HAS_RESIDUAL": residual is not None, "PRECISION": PRECISION, **steps,
        **aligned("C", width, steps["x_n"], steps["weight_o"]), **aligned("R", bank_rows, steps["weights_n"]),
        **aligned("out_dim", out_dim, steps["bank_r"], steps["residual_n"]),
    }  # fmt: skip

    def call(config: Config) -> None:
        row_blocks, column_blocks = cdiv(n, config.block_m), cdiv(out_dim, config.block_n)
        step = block_k(x.dtype)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": step}
        even = {"EVEN_C": width % step == 0, "EVEN_R": bank_rows % step == 0, "EVEN_O": out_dim % config.block_n == 0}
        others = {"row_blocks": row_blocks, "column_blocks": column_blocks, **sizes, **even}
        launch(memory_join_fwd_kernel, row_blocks * column_blocks, config, values, **others)

    words = ("memory_join", x.dtype, split, width, out_dim, power_of_two(bank_rows), about(n))
    run(words, x.device, join_candidates(x.dtype, out_dim, split), call)
    return y
