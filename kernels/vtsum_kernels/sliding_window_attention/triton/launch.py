"""What a call of the window op launches: which kernels, with which tensors, sizes and scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...tensors import contiguous, dense_rows
from ...triton_kit.launch import (
    cached_bytes,
    cdiv,
    launch,
    mask_arguments,
    on_its_device,
    power_of_two,
    run,
    strides_of,
)
from ...triton_kit.tuning import Config
from ..call import key_gradient
from ..dropout import drop_below
from .common import sequence_bounds_kernel
from .configs import Problem, backward_candidates, forward_candidates, fused_step, single_step
from .fused import sliding_window_attention_fused_bwd_kernel
from .strip import sliding_window_attention_strip_fwd_kernel
from .strip_bwd import sliding_window_attention_strip_bwd_keys_kernel, sliding_window_attention_strip_bwd_rows_kernel
from .tile import sliding_window_attention_tile_fwd_kernel
from .tile_bwd import sliding_window_attention_tile_bwd_keys_kernel, sliding_window_attention_tile_bwd_rows_kernel

#: Rows that a tile may span, halo included: what decides whether offsets within it need 64 bits.
MAX_TILE = 512


class Launcher:
    """One call's tensors and sizes under the names of the kernels' arguments, and how its kernels are launched."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        mask: Tensor | None,
        cu_seqlens: Tensor | None,
        bias: Tensor | None,
        seed: Tensor | None,
        window: tuple[int, int, int, bool],
        scale: float,
        dropout_p: float,
        row_offset: int,
        sinks: Tensor | None = None,
        softcap: float = 0.0,
    ) -> None:
        self.q, self.device = q, q.device
        given = (cu_seqlens is not None, bias is not None, seed is not None, sinks is not None)
        heads_first = q.stride(1) < q.stride(2)
        kind = (q.shape, k.shape[1], q.dtype, window, given, heads_first, scale, dropout_p, softcap)
        self.problem, self.longest, values = settled(*kind)
        self.rows, self.dilation = q.shape[0] * q.shape[1], values["dilation"]
        self.values: dict[str, Any] = {
            **values,
            **mask_arguments(mask, "bt"),
            "bounds_ptr": None if cu_seqlens is None else sequence_bounds(cu_seqlens, q.shape[2]),
            "bias_ptr": contiguous(bias),
            "seed_ptr": seed,
            "sinks_ptr": contiguous(sinks),
            "row_offset": 0 if seed is None else signed(row_offset & 0xFFFFFFFF),
        }
        self.bytes = 0

    def tensors(self, **named: Tensor) -> None:
        """The call's [B, H, T, D] tensors, by name."""
        laid_out = tuple([(x.shape, x.stride()) for x in named.values()])
        self.values |= steps(tuple(named), laid_out, self.q.element_size(), self.dilation * MAX_TILE)
        for name, x in named.items():
            self.values[f"{name}_ptr"] = x
            self.bytes += x.nbytes

    def launch(self, kernel: Any, step: int, config: Config, **others: Any) -> None:
        """Runs a kernel whose programs own `step` positions each."""
        blocks = cdiv(self.longest, step)
        launch(kernel, self.rows * blocks * self.dilation, config, self.values, blocks=blocks, STEP=step, **others)

    def shares(self, step: int, *shape: int) -> Tensor | None:
        """Room for each program's share of dbias: [H, programs of a head, *shape], or None where none is wanted."""
        if self.values["bias_ptr"] is None:
            return None
        programs = self.values["B"] * cdiv(self.longest, step) * self.dilation
        return torch.zeros((self.values["H"], programs, *shape), dtype=torch.float32, device=self.device)

    def run(self, name: str, candidates: list[Config], call: Callable[[Config], Any]) -> Any:
        """Runs with the best of the candidates that has room."""
        # A strip stands behind wide tiles for want of room alone: measuring it could take seconds.
        measured = [] if self.problem.narrow else [config for config in candidates if config.form != "strip"]
        return run(self.words(name), self.device, candidates, call, measured)

    def words(self, name: str) -> tuple[Any, ...]:
        """What a choice depends on: the kind of call, its window (exactly where narrow), and if it fills the GPU, or
        its cache too: then the memory behind it decides."""
        problem, values = self.problem, self.values
        sides = (problem.left, problem.right)
        window = sides if problem.narrow else tuple(side.bit_length() for side in sides)
        known = ("HAS_MASK", "PACKED", "SHIFT", "HAS_BIAS", "DROPOUT", "HAS_SINKS", "CAPPED", "HEADS_FIRST")
        options = [option for option in known if values[option]]
        size = "many" if values["total_rows"] >= 1 << 15 else "few"
        if self.bytes > cached_bytes(self.device):
            size = "beyond-L2"
        return (
            name, self.q.dtype, f"D={values['D']}", "narrow" if problem.narrow else "wide", *window, *options, size
        )  # fmt: skip


@lru_cache(maxsize=1024)
def settled(
    shape: tuple[int, int, int, int],
    key_heads: int,
    dtype: torch.dtype,
    window: tuple[int, int, int, bool],
    given: tuple[bool, bool, bool, bool],
    heads_first: bool,
    scale: float,
    dropout_p: float,
    softcap: float,
) -> tuple[Problem, int, dict[str, Any]]:
    """What is the same in every call of a kind: which kernels can serve it, the frames of its longest phase, and those
    arguments that are no tensors. `given`: whether there are sequences, a bias, dropout, sinks."""
    batch, heads, frames, dim = shape
    left, right, dilation, shift = window
    packed, biased, drops, sinks = given
    reach = (frames - 1) // dilation
    if not biased:  # a bias counts its entries from `left`
        left, right = (reach if side < 0 else min(side, reach) for side in (left, right))
        if shift and left + right > reach:  # whole sequences either way, and sums with positions stay in 32 bits
            left, right = reach, 0
    dilation = min(dilation, frames)
    options = shift or softcap > 0 or packed or biased or drops
    problem = Problem(dtype == torch.float32, power_of_two(dim), left, right, shift, options, softcap > 0)
    values = {
        "B": batch,
        "H": heads,
        "group": heads // key_heads,
        "T": frames,
        "total_rows": batch * heads * frames,
        "dilation": dilation,
        "scale": scale,
        "drop_below": signed(drop_below(dropout_p)),
        "keep_scale": 1.0 / (1.0 - dropout_p),
        "softcap": softcap * math.log2(math.e),
        "left": left,
        "right": right,
        "LEFT": left,
        "RIGHT": right,
        "D": dim,
        "BLOCK_D": problem.block_d,
        "PACKED": packed,
        "SHIFT": shift,
        "HAS_BIAS": biased,
        "DROPOUT": drops,
        "HAS_SINKS": sinks,
        "CAPPED": softcap > 0,
        "HEADS_FIRST": heads_first,
        # In three TF32 products, float32 loses next to nothing. AMD's GPUs multiply it as it is.
        "PRECISION": "tf32x3" if problem.float32 and torch.version.hip is None else "ieee",
        # Short windows are unrolled whole, so that all of their loads are in flight.
        "UNROLL": left + right + 1 if left + right < 9 and not shift else 2,
    }
    return problem, cdiv(frames, dilation), values


@lru_cache(maxsize=1024)
def steps(names: tuple[str, ...], laid_out: tuple[Any, ...], size: int, span: int) -> dict[str, Any]:
    """Strides of [B, H, T, D] tensors, of elements of `size` bytes, from each one's shape and strides. ALIGN, the
    largest factor up to 16 bytes that they share, is taken out of them: it is what loads can rely on. `span`: the most
    frames that a tile reaches over."""
    found: dict[str, Any] = {}
    for name, (shape, strides) in zip(names, laid_out, strict=True):
        found |= strides_of(name, shape, strides, "bht")
    align = math.gcd(16 // size, *found.values())
    furthest = max(found[f"{name}_t"] for name in names) * span
    return {name: step // align for name, step in found.items()} | {"ALIGN": align, "WIDE": furthest >= 1 << 31}


def signed(word: int) -> int:
    """The same 32 bits as a signed number, which Triton passes in 32 bits too."""
    return word - (1 << 32 if word >= 1 << 31 else 0)


def sequence_bounds(cu_seqlens: Tensor, frames: int) -> Tensor:
    """int32 [2, T]: the first frame of each frame's sequence and one past its last, found on the device."""
    sequences = cu_seqlens.shape[0] - 1
    bounds = torch.zeros((2, frames), dtype=torch.int32, device=cu_seqlens.device)
    if sequences > 0 and frames > 0:
        config = Config("bounds", 256, 0, 4, 1)
        arguments = {"cu_seqlens_ptr": cu_seqlens, "bounds_ptr": bounds, "T": frames, "sequences": sequences}
        arguments |= {"steps": sequences.bit_length(), "BLOCK": config.block_m}
        launch(sequence_bounds_kernel, cdiv(frames, config.block_m), config, arguments)
    return bounds


@on_its_device
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
    dropout_p: float,
    row_offset: int,
    need_lse: bool,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The op `sliding_window_attention_triton_fwd`."""
    q, k, v = (dense_rows(x) for x in (q, k, v))
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[:3] if need_lse else (0,), dtype=torch.float32, device=q.device)
    if q.numel() == 0:
        return out, lse
    window = left, right, dilation, shift
    call = Launcher(q, k, mask, cu_seqlens, bias, seed, window, scale, dropout_p, row_offset, sinks, softcap)
    call.tensors(q=q, k=k, v=v, out=out)
    call.values |= {"lse_ptr": lse if need_lse else None, "HAS_LSE": need_lse}

    def launch_with(config: Config) -> None:
        if config.form == "strip":
            call.launch(sliding_window_attention_strip_fwd_kernel, config.block_m, config, BLOCK_T=config.block_m)
            return
        narrow = call.problem.narrow
        step = single_step(config, call.problem.halo) if narrow else config.block_m
        sizes = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "SINGLE": narrow}
        call.launch(sliding_window_attention_tile_fwd_kernel, step, config, **sizes)

    call.run("fwd", forward_candidates(call.problem), launch_with)
    return out, lse


@on_its_device
def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    dlse: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
    dropout_p: float,
    row_offset: int,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The op `sliding_window_attention_triton_bwd`. Wide windows need out and lse; without them they are computed."""
    q, k, v, dout = (dense_rows(x) for x in (q, k, v, dout))
    dq, dk, dv = torch.empty_like(q), key_gradient(q, k), key_gradient(q, v)
    if q.numel() == 0:
        dbias = q.new_zeros(0 if bias is None else bias.shape, dtype=torch.float32)
        return dq, dk, dv, dbias, q.new_empty(0 if sinks is None else q.shape[:3], dtype=torch.float32)
    options = (mask, cu_seqlens, bias, seed, left, right, dilation, shift, scale, dropout_p, row_offset)
    window = left, right, dilation, shift
    call = Launcher(q, k, mask, cu_seqlens, bias, seed, window, scale, dropout_p, row_offset, sinks, softcap)
    tensors = {"q": q, "k": k, "v": v, "dout": dout, "dq": dq, "dk": dk, "dv": dv}
    call.values |= {"dlse_ptr": contiguous(dlse), "HAS_DLSE": dlse is not None, "lse_ptr": None}
    if call.problem.narrow:
        call.values |= {"out_ptr": None, "out_b": 0, "out_h": 0, "out_t": 0}
    else:
        if out is None or lse is None:
            out, lse = forward(q, k, v, *options, True, sinks, softcap)
        tensors["out"] = dense_rows(out)
        call.values["lse_ptr"] = lse.contiguous()
    call.tensors(**tensors)
    candidates = backward_candidates(call.problem)
    dbias, delta = call.run("bwd", candidates, lambda config: _backward_with(call, config))
    if dbias is None:
        dbias = q.new_empty(0, dtype=torch.float32)
    delta = q.new_empty(0, dtype=torch.float32) if sinks is None else delta.view(q.shape[:3])
    return dq, dk, dv, dbias, delta


def _backward_with(call: Launcher, config: Config) -> tuple[Tensor | None, Tensor]:
    """Launches a backward pass; gives dbias, and delta of all rows."""
    problem, entries = call.problem, 0
    entries = (2 if problem.shift else 1) * (problem.left + problem.right) + 1
    wanted = config.form != "fused" or call.values["HAS_SINKS"]
    stats = torch.empty((2, call.values["total_rows"] if wanted else 0), dtype=torch.float32, device=call.device)
    if config.form == "fused":
        step = fused_step(config, problem)
        shares = call.shares(step, entries)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "partial_ptr": shares, "stats_ptr": stats}
        call.launch(sliding_window_attention_fused_bwd_kernel, step, config, **sizes)
        return None if shares is None else shares.sum(1), stats[1]
    if config.form == "strip":
        step = config.block_m
        shares = call.shares(step, entries)
        others = {"BLOCK_T": step, "stats_ptr": stats, "partial_ptr": shares}
        call.launch(sliding_window_attention_strip_bwd_rows_kernel, step, config, **others)
        call.launch(sliding_window_attention_strip_bwd_keys_kernel, step, config, **others)
        return None if shares is None else shares.sum(1), stats[1]
    m, n = config.block_m, config.block_n
    others = {"stats_ptr": stats, "SINGLE": problem.narrow}
    if problem.narrow:
        step = single_step(config, problem.halo)
        shares = call.shares(step, entries)
        key_blocks = 1
    else:
        step = m
        reach = (2 if problem.shift else 1) * (problem.left + problem.right)
        key_blocks = (m - 1 + reach) // n + 1
        shares = call.shares(step, key_blocks, 2 * n)
    rows = {"BLOCK_M": m, "BLOCK_N": n, "partial_ptr": shares, "key_blocks": key_blocks}
    call.launch(sliding_window_attention_tile_bwd_rows_kernel, step, config, **others, **rows)
    # Programs of the second kernel own keys: as many as rows, since as many rows see a key as keys are seen by a row.
    call.launch(sliding_window_attention_tile_bwd_keys_kernel, step, config, **others, BLOCK_M=n, BLOCK_N=m)
    if shares is None or problem.narrow:
        return None if shares is None else shares.sum(1), stats[1]
    # Diagonal e of key block c is entry c n + e + 1 - n: the halves of neighbouring blocks' diagonals overlap.
    sums = shares.sum(1)
    diagonals = sums.new_zeros(sums.shape[0], (key_blocks + 1) * n)
    diagonals[:, : key_blocks * n] += sums[:, :, :n].flatten(1)
    diagonals[:, n:] += sums[:, :, n:].flatten(1)
    return diagonals[:, n - 1 : n - 1 + entries].contiguous(), stats[1]
