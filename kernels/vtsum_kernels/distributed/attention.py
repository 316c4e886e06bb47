"""Sliding-window attention over a sequence that lies in stretches on the ranks of a process group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..sliding_window_attention import sliding_window_attention as one_process
from ..sliding_window_attention.dropout import draw_seed
from ..tensors import acc_dtype, autocast
from .agreement import Value, agree
from .exchange import Begin, Exchange, Finish, valid_frames
from .group import check_lengths, group_of
from .plan import Plan, Window, plan
from .sums import sum_gradient

NAME = "distributed.sliding_window_attention"
_CHOICES: dict[str, tuple[Value, ...]] = {
    "q.dtype": checks.FLOAT_DTYPES,
    "border": ("truncate", "shift"),
    "key_mask": ("None", "bool [B, T]", "lengths [B]"),
}


@torch.compiler.disable  # what it imports is what PyTorch's optimizers import
def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | tuple[int, int],
    *,
    group: Any = None,
    lengths: Sequence[int] | None = None,
    scale: float | None = None,
    dilation: int = 1,
    causal: bool = False,
    key_mask: Tensor | None = None,
    bias: Tensor | None = None,
    border: str = "truncate",
    dropout_p: float = 0.0,
    dropout_seed: Tensor | None = None,
    sinks: Tensor | None = None,
    softcap: float | None = None,
    sum_gradients: bool = False,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    """`vtsum_kernels.sliding_window_attention` of a sequence that lies in stretches on a group's ranks, in their order.

    Every rank calls it, and gets the rows of its own frames. Only the frames that a window needs of other stretches
    travel, from as many ranks as hold them, while the rows that need none are computed; their gradients travel back
    while those rows' are. So all ranks must also go backward through it, or none.

    Args:
        q (Tensor): [B, H, T, D]: this rank's T frames, as many as it has, or none.
        k, v (Tensor): [B, K, T, D], of the same frames; K divides H.
        window_size (int | tuple[int, int]): as one process takes it. An unbounded side has every frame of it travel.
        group: a ProcessGroup, a DeviceMesh of one dimension, or None: all processes.
        lengths (Sequence[int] | None): how many frames each rank has. None: they tell each other, and whether they
            agree on all options, by a small message, which waits for all of them. Given, neither is asked, except
            where there is dropout without a `dropout_seed`.
        key_mask (Tensor | None): bool [B, T], True = valid, of this rank's frames; or int lengths [B] of the whole
            sequences, the same on all ranks.
        bias (Tensor | None): [H, N] as one process takes it, the same on all ranks. Its gradient is this rank's share:
            that by its own rows. So is that of `sinks`.
        dropout_p (float): the choice is that of one process, bit for bit, for the same seed.
        dropout_seed (Tensor | None): int64 [1], the same on all ranks. None: each draws one from its generator, and
            that of the group's first rank serves all.
        sum_gradients (bool): give bias and sinks, on every rank, the sum of all ranks' shares as their gradient.
        scale, dilation, causal, border, sinks, softcap, return_lse, backend: as one process takes them.
    Returns:
        Tensor: q's shape and dtype; with `return_lse`, a tuple of it and lse [B, H, T].
    Raises:
        TypeError, ValueError, NotImplementedError: as one process does. ValueError also if ranks say otherwise of
            what must be alike, on all of them.
        RuntimeError: there is no process group, or a rank does not answer within the group's timeout; it is named.
            Of NCCL, whose work is not waited for, PyTorch's watchdog says so.

    Under torch.compile the call is left to PyTorch as it is. There are no gradients of gradients, and torch.func does
    not go through it.
    """
    members = group_of(NAME, group)
    q, k, v = autocast(q, k, v)
    options: dict[str, Any] = {
        "scale": scale, "dilation": dilation, "border": border, "dropout_p": dropout_p, "softcap": softcap,
        "return_lse": return_lse, "backend": backend,
    }  # fmt: skip
    checked = one_process.__wrapped__(  # type: ignore[attr-defined]
        q, k, v, window_size, causal=causal, key_mask=key_mask, bias=bias, sinks=sinks, dropout_seed=dropout_seed,
        **options,
    )  # fmt: skip
    if k.shape[2] != q.shape[2]:
        checks.fail(NAME, "k", f"as long as q, which has {q.shape[2]} frames", k.shape[2])
    left, right = checks.window(NAME, window_size, causal)
    if lengths is not None:
        check_lengths(NAME, members, lengths, q.shape[2])
    seed = dropout_seed
    if dropout_p > 0 and seed is None:
        seed = draw_seed(q.device)
    if lengths is None or (dropout_p > 0 and dropout_seed is None):
        differentiable = [x.requires_grad and torch.is_grad_enabled() for x in (k, v, bias, sinks) if x is not None]
        alike: dict[str, Value] = {
            "B": q.shape[0], "H": q.shape[1], "K": k.shape[1], "D": q.shape[3], "q.dtype": q.dtype,
            "left": left, "right": right, "dilation": dilation, "border": border, "scale": checked.scale,
            "softcap": checked.softcap, "dropout_p": float(dropout_p), "sum_gradients": sum_gradients,
            "key_mask": "None" if key_mask is None else "bool [B, T]" if key_mask.dim() == 2 else "lengths [B]",
            "bias (given or not)": bias is not None, "sinks (given or not)": sinks is not None,
            "requires_grad of k or v": any(differentiable[:2]),
            "how many of bias and sinks require_grad": sum(differentiable[2:]) if sum_gradients else 0,
            "dropout_seed (given or not)": dropout_seed is not None,
            "dropout_seed": 0 if dropout_seed is None else int(dropout_seed),
            "lengths (given or not)": lengths is not None,
            **{f"lengths[{n}]": 0 if lengths is None else lengths[n] for n in range(members.ranks)},
        }  # fmt: skip
        own = {"length": q.shape[2], "seed": 0 if seed is None else int(seed)}
        said = agree(members, own, alike, _CHOICES, q.device)
        lengths = [one["length"] for one in said]
        seed = None if seed is None else seed.new_tensor([said[0]["seed"]])
    if sum_gradients:
        bias, sinks = (None if x is None else sum_gradient(members, x.to(acc_dtype(q.dtype))) for x in (bias, sinks))
    options |= {"bias": bias, "sinks": sinks, "dropout_seed": seed}
    own_plan = plan(lengths, members.rank, Window(left, right, dilation, checked.shift))
    exchange = Exchange(members, own_plan, k, key_mask)
    try:
        return _attend(exchange, own_plan, q, k, v, (left, right), key_mask, options)
    finally:
        # Whatever happens here, the neighbours have theirs: checkpointing ends a recomputation by an exception.
        exchange.settle()


def _attend(
    exchange: Exchange, plan: Plan, q: Tensor, k: Tensor, v: Tensor, sides: tuple[int, int], mask: Tensor | None,
    options: dict[str, Any],
) -> Any:  # fmt: skip
    """Out of this rank's rows, with lse where it is asked for; `mask` as the call has it."""
    k, v, *pieces = Begin.apply(exchange, k, v)
    if mask is not None and mask.dim() == 1:
        mask = valid_frames(mask, plan.first, plan.end)

    def rows(first: int, end: int, lowest: int, highest: int) -> tuple[Tensor, ...]:
        """Those from `first` to before `end`, of the stretch's own; their keys are from `lowest` to before `highest`,
        below 0 and beyond the stretch those of the halo."""
        inside = slice(max(lowest, 0), min(highest, plan.frames))
        before, after = pieces[:split] if lowest < 0 else [], pieces[split:] if highest > plan.frames else []
        keys, values = (
            _joined([*(piece[n] for piece in before), x[:, :, inside], *(piece[n] for piece in after)], 2)
            for n, x in enumerate((k, v))
        )
        key_mask = mask
        if mask is not None:
            masks = exchange.masks[:split] if before else [], exchange.masks[split:] if after else []
            key_mask = _joined([*masks[0], mask[:, inside], *masks[1]], 1)
        queries = q[:, :, first:end]
        if highest > end:  # the op has the last query stand at the last key
            queries = F.pad(queries, (0, 0, 0, highest - end))
        offset = plan.first + lowest
        found = one_process(queries, keys, values, sides, key_mask=key_mask, row_offset=offset, **options)
        found = found if options["return_lse"] else (found,)
        return tuple(x[:, :, : end - first] for x in found)

    frames, head, tail = plan.frames, plan.head, plan.tail
    # The pieces of the halo before the stretch come first.
    split = sum(piece.first < plan.first for piece in plan.received)
    parts = []
    if head + tail < frames:
        # Of all rows, since rows and keys that are the same frames are what the kernels are quickest at.
        parts = [tuple(x[:, :, head : frames - tail] for x in rows(0, frames, 0, frames))]
    if pieces:
        pieces = [piece.unbind(0) for piece in Finish.apply(exchange, *pieces)]
    if not parts:
        parts = [rows(0, frames, -plan.before, frames + plan.after)]
    elif pieces:
        if head:
            parts.insert(0, rows(0, head, -plan.before, min(head + plan.right, frames)))
        if tail:
            parts.append(rows(frames - tail, frames, max(frames - tail - plan.left, 0), frames + plan.after))
    results = [_joined(list(x), 2) for x in zip(*parts, strict=True)]
    return tuple(results) if options["return_lse"] else results[0]


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
