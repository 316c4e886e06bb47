"""What people write to read a bank of slots with every frame, and to join what was read to the frame.

Each computes what MemoryBank computes between its norm and its residual: softmax over the slots of the scaled cosine
(or, for projected queries, of the plain product), the weighted sum of the slots, and Linear([x, retrieved]) where what
was read is joined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.memory_attention import sparse_rivals as sparse
from bench.ops.memory_attention.setting import Layer, Setting, by, work_apart, work_folded, work_sparse


@dataclass(frozen=True)
class Rival:
    name: str
    make: Callable[[Setting], Layer]
    """Raises Absent or NotImplementedError, with the reason."""
    needs: Callable[[Setting], int]
    """Bytes of what it keeps beside its inputs."""
    work: Callable[[Setting], float]
    cases: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu", "cuda")
    compiled: bool = False


def _heads(rows: Tensor, heads: int) -> Tensor:
    """[..., N, C] as [..., H, N, d], a view."""
    return rows.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _queries(x: Tensor, setting: Setting, scale: Tensor, query_weight: Tensor | None) -> Tensor:
    """[1, H, N, d], scaled: the factor costs less on frames than on scores."""
    if query_weight is not None:
        return _heads(F.linear(x, query_weight), setting.heads) * scale
    return F.normalize(_heads(x, setting.heads), dim=-1) * scale


def _keys(bank: Tensor, setting: Setting) -> Tensor:
    """[H, S, d], of unit norm for cosine."""
    keys = _heads(bank, setting.heads)
    return F.normalize(keys, dim=-1) if setting.cosine else keys


def _apart(setting: Setting, read: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Layer:
    """Retrieve, concatenate, and apply the linear layer, one after the other."""

    def prepare(
        bank: Tensor,
        scale: Tensor,
        join_weight: Tensor | None = None,
        join_bias: Tensor | None = None,
        query_weight: Tensor | None = None,
    ) -> tuple[Any, ...]:
        # Never expanded over a batch: all frames are one row of queries to one bank.
        keys, values = _keys(bank, setting)[None], _heads(bank, setting.heads)[None]
        return keys, values, scale, join_weight, join_bias, query_weight

    def compute(
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: Tensor,
        join_weight: Tensor | None,
        join_bias: Tensor | None,
        query_weight: Tensor | None,
    ) -> Tensor:
        retrieved = read(_queries(x, setting, scale, query_weight), keys, values).transpose(1, 2).flatten(2)
        if join_weight is None:
            return retrieved
        return F.linear(torch.cat((x, retrieved), -1), join_weight, join_bias)

    return Layer(prepare, compute)


def sdpa(setting: Setting) -> Layer:
    return _apart(setting, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0))


def matmul(setting: Setting) -> Layer:
    return _apart(setting, lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2), -1) @ v)


def folded(setting: Setting) -> Layer:
    """x W1^T + softmax(scale x K'^T) V', with everything folded into the bank that can be."""
    heads, dim = setting.heads, setting.dim

    def prepare(
        bank: Tensor, scale: Tensor, join_weight: Tensor, join_bias: Tensor, query_weight: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        outward = join_weight[:, dim:].unflatten(1, (heads, -1)).permute(1, 2, 0)  # [H, d, O]
        values = (_heads(bank, heads) @ outward).flatten(0, 1)  # [H S, O]
        keys = _keys(bank, setting)
        if query_weight is not None:
            keys = keys @ query_weight.unflatten(0, (heads, -1)) * scale  # [H, S, C]
        return keys, values, scale, join_weight[:, :dim], join_bias

    def compute(
        x: Tensor, keys: Tensor, values: Tensor, scale: Tensor, join_weight: Tensor, join_bias: Tensor
    ) -> Tensor:
        rows = x[0]
        if not setting.cosine:
            scores = rows @ keys.transpose(1, 2)  # [H, N, S]
        elif setting.slots < dim // heads:  # the norm on whichever is smaller, the scores or the frames
            q = _heads(rows, heads)
            norms = torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min(1e-12)
            scores = q @ keys.transpose(1, 2) * (scale / norms)
        else:
            scores = F.normalize(_heads(rows, heads), dim=-1) * scale @ keys.transpose(1, 2)
        weights = torch.softmax(scores, -1).transpose(0, 1).flatten(1)  # [N, H S]
        return torch.addmm(F.linear(rows, join_weight, join_bias), weights, values)[None]

    return Layer(prepare, compute)


# Bytes beside the inputs, roughly; they decide whether a contestant is tried at all.


def _rows(s: Setting) -> int:
    return s.tokens * s.dim * s.element_bytes * (12 if s.gradients else 4)


def _scores(s: Setting) -> int:
    """Tables of all scores: raw and as weights; and of their gradients."""
    return _rows(s) + s.heads * s.tokens * s.slots * s.element_bytes * (5 if s.gradients else 3)


DENSE, JOINED = ("fuse", "projected", "attention"), ("fuse", "projected")

RIVALS: tuple[Rival, ...] = (
    Rival("sdpa", sdpa, _rows, by(work_apart), DENSE),
    Rival("sdpa_compiled", sdpa, _rows, by(work_apart), DENSE, compiled=True),
    Rival("matmul", matmul, _scores, by(work_apart), DENSE),
    Rival("matmul_compiled", matmul, _scores, by(work_apart), ("attention",), compiled=True),
    Rival("folded", folded, _scores, by(work_folded), JOINED),
    Rival("folded_compiled", folded, _scores, by(work_folded), JOINED, compiled=True),
    Rival("topk_bag", sparse.topk_bag, _scores, by(work_sparse), ("topk",)),
    Rival("topk_bag_blocks", sparse.topk_bag_blocks, sparse.blocks_bytes, by(work_sparse), ("topk",)),
    Rival("matmul_topk", sparse.matmul_topk, _scores, by(work_sparse), ("search",)),
    Rival("matmul_topk_blocks", sparse.matmul_topk_blocks, sparse.blocks_bytes, by(work_sparse), ("search",)),
    Rival("faiss", sparse.faiss_flat, sparse.blocks_bytes, by(work_sparse), ("search",), devices=("cpu",)),
    Rival("embedding_bag", sparse.embedding_bag, _rows, sparse.gathered, ("gather",)),
    Rival("index_sum", sparse.index_sum, sparse.gathered_bytes, sparse.gathered, ("gather",)),
)
