"""What people write to read a bank of slots with every frame, or only its k best slots.

Softmax over the slots of the scaled cosine (or, for projected queries, of the plain product), and the weighted sum of
the slots; `memory_fuse` joins it to the frame. For the k best: scores, torch.topk, EmbeddingBag; faiss to find them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.comparison import Absent
from bench.kit.op import Rival
from bench.ops.memory_attention.setting import Layer, Setting

#: Rows whose scores are there at a time, for those who go block by block.
BLOCK = 256


def heads_of(rows: Tensor, heads: int) -> Tensor:
    """[..., N, C] as [..., H, N, d], a view."""
    return rows.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _queries(x: Tensor, setting: Setting, scale: Tensor, query_weight: Tensor | None) -> Tensor:
    """[1, H, N, d], scaled: the factor costs less on frames than on scores."""
    if query_weight is not None:
        return heads_of(F.linear(x, query_weight), setting.heads) * scale
    return F.normalize(heads_of(x, setting.heads), dim=-1) * scale


def keys_of(bank: Tensor, setting: Setting) -> Tensor:
    """[H, S, d], of unit norm for cosine."""
    keys = heads_of(bank, setting.heads)
    return F.normalize(keys, dim=-1) if setting.cosine else keys


def _apart(setting: Setting, read: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Layer:
    """Retrieve and, where the case joins, concatenate and apply the linear layer, one after the other."""

    def prepare(
        bank: Tensor,
        scale: Tensor,
        join_weight: Tensor | None = None,
        join_bias: Tensor | None = None,
        query_weight: Tensor | None = None,
    ) -> tuple[Any, ...]:
        # Never expanded over a batch: all frames are one row of queries to one bank.
        keys, values = keys_of(bank, setting)[None], heads_of(bank, setting.heads)[None]
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


def _one_head(setting: Setting) -> None:
    if setting.heads != 1:
        raise NotImplementedError("it is written for one head")


def _topk_bag(setting: Setting, rows: int) -> Layer:
    _one_head(setting)

    def prepare(bank: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return F.normalize(bank, dim=-1), bank, scale

    def compute(x: Tensor, keys: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        k, out = min(setting.k, setting.slots), []
        for q in (F.normalize(x[0], dim=-1) * scale).split(rows):
            scores, index = torch.topk(q @ keys.t(), k)
            weights = torch.softmax(scores, -1)
            out.append(F.embedding_bag(index, values, per_sample_weights=weights, mode="sum"))
        return torch.cat(out)[None]

    return Layer(prepare, compute)


def topk_bag(setting: Setting) -> Layer:
    """All scores at once."""
    return _topk_bag(setting, setting.tokens)


def topk_bag_blocks(setting: Setting) -> Layer:
    """The scores of some rows at a time, so that memory is not what limits it."""
    return _topk_bag(setting, BLOCK)


def _matmul_topk(setting: Setting, rows: int) -> Layer:
    _one_head(setting)

    def compute(x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        found = [torch.topk(q @ bank.t(), min(setting.k, setting.slots)) for q in x[0].split(rows)]
        return torch.cat([scores for scores, _ in found]), torch.cat([index for _, index in found])

    return Layer(lambda bank: (bank,), compute)


def matmul_topk(setting: Setting) -> Layer:
    return _matmul_topk(setting, setting.tokens)


def matmul_topk_blocks(setting: Setting) -> Layer:
    return _matmul_topk(setting, BLOCK)


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


DENSE, TOPK, SEARCH, GATHER = ("attention",), ("topk",), ("search",), ("gather",)

RIVALS: tuple[Rival, ...] = (
    Rival("sdpa", sdpa, DENSE),
    Rival("sdpa_compiled", sdpa, DENSE, compiled=True),
    Rival("matmul", matmul, DENSE),
    Rival("matmul_compiled", matmul, DENSE, compiled=True),
    Rival("topk_bag", topk_bag, TOPK),
    Rival("topk_bag_blocks", topk_bag_blocks, TOPK),
    Rival("matmul_topk", matmul_topk, SEARCH),
    Rival("matmul_topk_blocks", matmul_topk_blocks, SEARCH),
    Rival("faiss", faiss_flat, SEARCH, devices=("cpu",)),
    Rival("embedding_bag", embedding_bag, GATHER),
    Rival("index_sum", index_sum, GATHER),
)
