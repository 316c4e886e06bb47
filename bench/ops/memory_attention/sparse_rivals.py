"""What people write to read only the k best slots: scores, torch.topk, EmbeddingBag; faiss for finding them alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.comparison import Absent
from bench.ops.memory_attention.setting import Layer, Setting, moved_bytes

#: Rows whose scores are there at a time, for those who go block by block.
BLOCK = 256


def _one_head(setting: Setting) -> None:
    if setting.heads != 1:
        raise NotImplementedError("it is written for one head")


def _by_blocks(rows: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return lambda q: q.split(rows)


def _topk_bag(setting: Setting, split: Callable[[Tensor], tuple[Tensor, ...]]) -> Layer:
    _one_head(setting)

    def prepare(bank: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return F.normalize(bank, dim=-1), bank, scale

    def compute(x: Tensor, keys: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        k, out = min(setting.k, setting.slots), []
        for q in split(F.normalize(x[0], dim=-1) * scale):
            scores, index = torch.topk(q @ keys.t(), k)
            weights = torch.softmax(scores, -1)
            out.append(F.embedding_bag(index, values, per_sample_weights=weights, mode="sum"))
        return torch.cat(out)[None]

    return Layer(prepare, compute)


def topk_bag(setting: Setting) -> Layer:
    """All scores at once."""
    return _topk_bag(setting, lambda q: (q,))


def topk_bag_blocks(setting: Setting) -> Layer:
    """The scores of some rows at a time, so that memory is not what limits it."""
    return _topk_bag(setting, _by_blocks(BLOCK))


def _matmul_topk(setting: Setting, split: Callable[[Tensor], tuple[Tensor, ...]]) -> Layer:
    _one_head(setting)

    def compute(x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        found = [torch.topk(q @ bank.t(), min(setting.k, setting.slots)) for q in split(x[0])]
        return torch.cat([scores for scores, _ in found]), torch.cat([index for _, index in found])

    return Layer(lambda bank: (bank,), compute)


def matmul_topk(setting: Setting) -> Layer:
    return _matmul_topk(setting, lambda q: (q,))


def matmul_topk_blocks(setting: Setting) -> Layer:
    return _matmul_topk(setting, _by_blocks(BLOCK))


def faiss_flat(setting: Setting) -> Layer:
    """IndexFlatIP: exact search by inner product. The index is filled ahead of the calls."""
    _one_head(setting)
    if importlib.util.find_spec("faiss") is None:
        raise Absent("not installed; pip install faiss-cpu")
    if setting.dtype != "float32":
        raise NotImplementedError("it takes float32")
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())

    def prepare(bank: Tensor) -> tuple[Any, ...]:
        index = faiss.IndexFlatIP(setting.dim)
        index.add(bank.numpy())
        return (index,)

    def compute(x: Tensor, index: Any) -> tuple[Tensor, Tensor]:
        scores, slots = index.search(x[0].numpy(), min(setting.k, setting.slots))
        return torch.from_numpy(scores), torch.from_numpy(slots)

    return Layer(prepare, compute)


def embedding_bag(setting: Setting) -> Layer:
    def compute(weights: Tensor, table: Tensor, index: Tensor) -> Tensor:
        return F.embedding_bag(index, table, per_sample_weights=weights.to(table.dtype), mode="sum")

    return _gather(compute)


def index_sum(setting: Setting) -> Layer:
    """All rows that are read beside each other, and a product with the weights."""
    return _gather(lambda weights, table, index: (weights.to(table.dtype)[:, None] @ table[index]).squeeze(1))


def _gather(compute: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Layer:
    return Layer(lambda table, index: (table, index), compute)


def blocks_bytes(s: Setting) -> int:
    rows = 3 * s.tokens * s.dim + s.slots * s.dim * (3 if s.gradients else 1)
    return (rows + BLOCK * s.slots * (3 if s.gradients else 2)) * s.element_bytes


def gathered_bytes(s: Setting) -> int:
    return s.tokens * s.k * s.dim * s.element_bytes * (3 if s.gradients else 1)


def gathered(s: Setting) -> float:
    return float(moved_bytes(s))
