"""A VTSum whose attention is local, on a stream of frames: what its windows still need is carried over, and a memory
bank may be written to as the frames go by.

Frames are computed in blocks of BLOCK, each once, whatever pieces they come in; so how they come changes nothing, and
where every layer but a memory bank is concerned the numbers are, bit for bit in float64, those of the whole video at
once (of a number of frames that is a multiple of BLOCK, on a matrix library that computes each of four rows alike, as
MKL does; else, and with a bank, to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vtsum_kernels import sliding_window_attention
from vtsum_kernels.nn import MemoryBank

from vtsum.errors import VTSumError
from vtsum.model.vtsum import VTSum
from vtsum.reading import whole_numbers

BLOCK = 8
RULES = ("fifo", "ema", "merge")
"""By which frames are put into a bank (`vtsum_kernels.nn.MemoryBank.write`)."""


def is_local(model: VTSum) -> bool:
    """Whether each frame's saliency depends on a stretch of frames around it and no others."""
    return model.config.temporal_window is not None or model.config.depth == 0


def position_at(frames: Tensor, positions: int) -> Tensor:
    """The rows of a table of positions that frames of a stream take: it is gone through to and fro, so that neighbours
    in the stream are neighbours in the table, and the first `positions` frames have those of a whole video.

    Args:
        frames: int64 [n], numbers of frames. positions: rows of the table.
    """
    around = frames % max(2 * positions - 2, 1)
    return torch.where(around < positions, around, 2 * positions - 2 - around)


class _Windowed:
    """An attention over a window of frames that come bit by bit: x -> x + attention(norm(x))."""

    def __init__(self, norm: nn.Module, attention: Any, width: int) -> None:
        self._norm, self._attention = norm, attention
        self._reach = int(attention.window_size) // 2
        self._halo = -(-self._reach // BLOCK) * BLOCK
        weight = attention.qkv.weight
        self.rows = weight.new_zeros(0, width)  # from frame `first` on
        self.qkv = weight.new_zeros(0, 3 * width)
        self.first = self.done = 0

    @property
    def lag(self) -> int:
        """Frames that have to come behind a block before it is finished."""
        return self._halo

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        """The next rows, whole blocks but at the last -> those that are finished now."""
        for block in rows.split(BLOCK):
            self.rows = torch.cat([self.rows, block])
            self.qkv = torch.cat([self.qkv, self._attention.qkv(self._norm(block))])
        have, out = self.first + len(self.rows), []
        while self.done < have and (last or self.done + BLOCK + self._halo <= have):
            end = min(self.done + BLOCK, have)
            low, high = max(self.done - self._halo, 0), min(self.done + BLOCK + self._halo, have)
            near = self.qkv[low - self.first : high - self.first]
            q, k, v = near.unflatten(-1, (3, self._attention.num_heads, -1)).permute(1, 2, 0, 3)[:, None]
            seen = sliding_window_attention(q, k, v, self._attention.window_size)
            own = seen[0].transpose(0, 1)[self.done - low : end - low].flatten(-2)
            out.append(self.rows[self.done - self.first : end - self.first] + self._attention.proj(own))
            self.done = end
        gone = max(self.done - self._halo - self.first, 0)
        self.first, self.rows, self.qkv = self.first + gone, self.rows[gone:], self.qkv[gone:]
        return torch.cat(out) if out else rows[:0]


class LocalStream:
    """The saliency of a stream's frames, each as soon as the frames that it depends on have come.

    Args:
        model: in evaluation mode, `is_local`.
        rule: one of RULES: frames are written to each bank after they have read it; None: it stays as it is.
    Attributes:
        count (int): frames that came. given (int): of which the saliency is known.
    Raises:
        VTSumError: the model's attention is not local, or it has no bank to write to.
    """

    def __init__(self, model: VTSum, rule: str | None = None) -> None:
        config = model.config
        if not is_local(model):
            raise VTSumError("LocalStream: model must have a temporal_window, got one whose frames attend to all")
        check_rule(model, rule)
        self._model, self._rule = model, rule
        blocks: list[Any] = list(model.temporal.blocks)
        self._blocks = [_Windowed(block.norm1, block.attn, config.width) for block in blocks]
        local = model.local_attention
        self._local = None if local is None else _Windowed(local.norm1, local.attn, config.width)
        self._waiting = model.saliency_head.weight.new_zeros(0, config.width)
        self.count = self.given = 0
        self._entered = self._left = 0  # frames that went into the transformer, and came out

    @torch.inference_mode()
    def see(self, features: np.ndarray | Tensor, *, last: bool = False) -> np.ndarray:
        """The next frames' features [n, C] -> the saliency logits of the frames that are known by them [m]; with `last`
        of all that are left."""
        return self._run(torch.as_tensor(features).to(self._waiting), last, self._rule)

    @torch.inference_mode()
    def rest(self) -> np.ndarray:
        """The logits of the frames that wait for others, as if the stream ended here; nothing is changed by it."""
        before = self.state()
        found = self._run(self._waiting[:0], True, None)
        self.restore(before)
        return found

    def _run(self, rows: Tensor, last: bool, rule: str | None) -> np.ndarray:
        self.count += len(rows)
        rows = torch.cat([self._waiting, rows])
        whole = len(rows) if last else len(rows) // BLOCK * BLOCK
        self._waiting = rows[whole:]
        model, config = self._model, self._model.config
        x = rows[:whole]
        if model.memory is not None and config.memory_position == "before":
            x = _in_blocks(x, partial(_read, model.memory, rule=rule))
        x = x + self._positions(self._entered, len(x))
        self._entered += len(x)
        blocks: list[Any] = list(model.temporal.blocks)
        for layer, block in zip(self._blocks, blocks, strict=True):
            x = layer(x, last)
            if block.memory is not None:
                x = _in_blocks(x, partial(_read, block.memory, rule=rule))
            x = _in_blocks(x, partial(_through_mlp, block))
        x = _in_blocks(x, model.temporal.norm) + self._positions(self._left, len(x))
        self._left += len(x)
        if model.memory is not None and config.memory_position == "after":
            x = _in_blocks(x, partial(_read, model.memory, rule=rule))
        if self._local is not None:
            x = self._local(x, last)
        self.given += len(x)
        logits = _in_blocks(x, model.saliency_head)[:, 0]
        return np.asarray(logits.cpu().numpy())

    def _positions(self, first: int, count: int) -> Tensor:
        table = self._model.position_embeddings.weight
        return table[position_at(torch.arange(first, first + count, device=table.device), len(table))]

    @property
    def lag(self) -> int:
        """Frames that may have to come behind one before its saliency is known, at most."""
        return BLOCK - 1 + sum(layer.lag for layer in self._layers())

    def _layers(self) -> list[_Windowed]:
        return [*self._blocks, *([] if self._local is None else [self._local])]

    def state(self) -> dict[str, np.ndarray]:
        """All that is carried over, as arrays; `restore` goes on from there. The banks are their model's."""
        found = {
            "counts": np.array([self.count, self.given, self._entered, self._left], np.int64),
            "waiting": self._waiting.cpu().numpy(),
        }
        for number, layer in enumerate(self._layers()):
            found[f"rows{number}"], found[f"qkv{number}"] = layer.rows.cpu().numpy(), layer.qkv.cpu().numpy()
            found[f"at{number}"] = np.array([layer.first, layer.done], np.int64)
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave of a stream of the same model.

        Raises:
            ValueError, KeyError: it is of another one.
        """
        counts = whole_numbers(state, "counts", 4)
        if not 0 <= counts[1] <= counts[3] <= counts[2] <= counts[0]:
            raise ValueError(f"counts must be four numbers that fit each other, got {counts}")
        width, like = self._model.config.width, self._waiting
        waiting = _rows(state["waiting"], width, like)
        layers = []
        for number, _ in enumerate(self._layers()):
            rows, qkv = _rows(state[f"rows{number}"], width, like), _rows(state[f"qkv{number}"], 3 * width, like)
            first, done = whole_numbers(state, f"at{number}", 2)
            if len(rows) != len(qkv) or not 0 <= first <= done <= first + len(rows):
                raise ValueError(f"layer {number} must hold as many rows as it says")
            layers.append((rows, qkv, first, done))
        self.count, self.given, self._entered, self._left = counts
        self._waiting = waiting
        for layer, (rows, qkv, first, done) in zip(self._layers(), layers, strict=True):
            layer.rows, layer.qkv, layer.first, layer.done = rows, qkv, first, done


def check_rule(model: VTSum, rule: str | None) -> None:
    """Refuse a rule of writing that there is not, or a model without a bank to write to.

    Raises:
        VTSumError: naming it.
    """
    if rule is not None and rule not in RULES:
        raise VTSumError(f"stream: memory must be one of {', '.join(RULES)}, or None, got {rule!r}")
    if rule is not None and not model.banks():
        raise VTSumError(f"stream: memory must be None for a model without a memory bank, got {rule!r}")


def _through_mlp(block: Any, rows: Tensor) -> Tensor:
    found: Tensor = rows + block.mlp(block.norm2(rows))
    return found


@torch.inference_mode()
def write_banks(model: VTSum, features: np.ndarray, first: int, last: int, rule: str) -> None:
    """Put frames first to last of a stretch [T, C] into each bank of a model, as the bank sees them within it."""
    seen: dict[MemoryBank, Tensor] = {}
    hooks = [
        bank.register_forward_pre_hook(lambda bank, given: seen.update({bank: given[0]})) for bank in model.banks()
    ]
    try:
        model.encode(torch.from_numpy(np.ascontiguousarray(features))[None].to(model.saliency_head.weight))
    finally:
        for hook in hooks:
            hook.remove()
    for bank, rows in seen.items():
        bank.write(rows[0, first:last], rule)
    model.fold_()


def _in_blocks(rows: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([function(block) for block in rows.split(BLOCK)]) if len(rows) else function(rows)


def _read(bank: MemoryBank, rows: Tensor, rule: str | None) -> Tensor:
    if not len(rows):
        return rows
    read = bank(rows[None])[0]
    if rule is not None:
        bank.write(rows, rule)
    return read


def _rows(values: np.ndarray, width: int, like: Tensor) -> Tensor:
    if values.ndim != 2 or values.shape[1] != width or not np.isfinite(values).all():
        raise ValueError(f"rows must be finite and [n, {width}], got {list(values.shape)}")
    return torch.from_numpy(np.ascontiguousarray(values)).to(like)
