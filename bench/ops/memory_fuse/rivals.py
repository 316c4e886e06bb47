"""What people write to read a bank of slots and to join what was read to the frame: Linear([x, retrieved])."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.op import Rival
from bench.ops.memory_attention.rivals import heads_of, keys_of, matmul, sdpa
from bench.ops.memory_attention.setting import Layer, Setting


def folded(setting: Setting) -> Layer:
    """x W1^T + softmax(scale x K'^T) V', with everything folded into the bank that can be."""
    heads, dim = setting.heads, setting.dim

    def prepare(
        bank: Tensor, scale: Tensor, join_weight: Tensor, join_bias: Tensor, query_weight: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        outward = join_weight[:, dim:].unflatten(1, (heads, -1)).permute(1, 2, 0)  # [H, d, O]
        values = (heads_of(bank, heads) @ outward).flatten(0, 1)  # [H S, O]
        keys = keys_of(bank, setting)
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
            q = heads_of(rows, heads)
            norms = torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min(1e-12)
            scores = q @ keys.transpose(1, 2) * (scale / norms)
        else:
            scores = F.normalize(heads_of(rows, heads), dim=-1) * scale @ keys.transpose(1, 2)
        weights = torch.softmax(scores, -1).transpose(0, 1).flatten(1)  # [N, H S]
        return torch.addmm(F.linear(rows, join_weight, join_bias), weights, values)[None]

    return Layer(prepare, compute)


RIVALS: tuple[Rival, ...] = (
    Rival("sdpa", sdpa),
    Rival("sdpa_compiled", sdpa, compiled=True),
    Rival("matmul", matmul),
    Rival("folded", folded),
    Rival("folded_compiled", folded, compiled=True),
)
