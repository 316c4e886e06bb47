"""Tiny models with random weights, one for each way in which transformers' models describe a sliding window."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn
from vtsum_kernels.integrations.transformers import NAME

_SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "initializer_range": 0.5,  # scores far enough apart that a key too many or too few is seen
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "sliding_window": 5}
_GEMMA = {**_GROUPED, "head_dim": 8, "num_hidden_layers": 4}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_TYPES = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]

CONFIGS: dict[str, tf.PreTrainedConfig] = {
    # |i - j| <= local_attention // 2
    "modernbert": tf.ModernBertConfig(
        **_SIZES, num_hidden_layers=4, local_attention=8, cls_token_id=1, sep_token_id=2, global_attn_every_n_layers=3
    ),
    "mistral": tf.MistralConfig(**_GROUPED, num_hidden_layers=2),
    "gemma2": tf.Gemma2Config(**_GEMMA, attn_logit_softcapping=4.0),
    "gpt-oss": tf.GptOssConfig(
        **_GEMMA, num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=64, rope_parameters=_ROPE
    ),
    "gemma3": tf.Gemma3TextConfig(**_GEMMA, layer_types=_TYPES),
    # an encoder: sliding_window 9 becomes 5, and |i - j| < 5
    "gemma3-encoder": tf.Gemma3TextConfig(
        **{**_GEMMA, "sliding_window": 9}, layer_types=_TYPES, use_bidirectional_attention=True
    ),
    "qwen2": tf.Qwen2Config(**_GROUPED, num_hidden_layers=4, use_sliding_window=True, max_window_layers=2),
}
CAUSAL = {
    "mistral": tf.MistralForCausalLM,
    "gemma2": tf.Gemma2ForCausalLM,
    "gemma3": tf.Gemma3ForCausalLM,
    "gpt-oss": tf.GptOssForCausalLM,
}


def build(name: str, implementation: str = NAME, dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Module:
    """The model of a configuration, always with the same weights."""
    config = copy.deepcopy(CONFIGS[name])
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    return tf.AutoModel.from_config(config, attn_implementation=implementation).eval().to(dtype)


def tokens(batch: int = 3, frames: int = 23) -> Tensor:
    return torch.randint(3, 60, (batch, frames), generator=torch.Generator().manual_seed(1), device="cpu")


def padded(batch: int = 3, frames: int = 23) -> Tensor:
    """The first row whole, the second padded on the left, the third on the right."""
    mask = torch.ones(batch, frames, dtype=torch.long)
    mask[1, :6] = 0
    mask[2, frames - 8 :] = 0
    return mask


def outputs_and_gradients(model: nn.Module, ids: Tensor, mask: Tensor | None, **rest: Any) -> dict[str, Tensor | None]:
    """The last hidden state of valid rows, an encoder's first; each weight's gradient for a random functional of it."""
    outputs = model(input_ids=ids, attention_mask=mask, **rest)
    state = outputs.get("encoder_last_hidden_state", outputs.last_hidden_state)
    valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    along = torch.randn(state.shape, generator=torch.Generator().manual_seed(2), device="cpu").to(state.device)
    (state.float() * along)[valid].sum().backward()
    found: dict[str, Tensor | None] = {"out": state.detach()[valid]}
    for name, weight in model.named_parameters():
        found[name] = None if weight.grad is None else weight.grad.detach().clone()
        weight.grad = None
    return found
