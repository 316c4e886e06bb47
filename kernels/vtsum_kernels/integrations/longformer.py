"""The local attention of transformers' Longformer and LED on our op.

Their models do not go through transformers' AttentionInterface: their layers call LongformerSelfAttention (in LED
LEDEncoderSelfAttention) themselves, which cuts the sequence into overlapping chunks. Here that module's forward is
replaced.
Global tokens are not covered: a call with any, or one that asks for the weights, runs the module's own code as before.
"""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor, nn

from ..sliding_window_attention import sliding_window_attention

_MODULES = ("LongformerSelfAttention", "LEDEncoderSelfAttention")


def longformer_self_attention(
    module: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    is_index_masked: Tensor | None = None,
) -> Tensor:
    """What LongformerSelfAttention computes where no token is global, with its weights.

    Unlike there, T may be any length, not only a multiple of the window.

    Args:
        module (LongformerSelfAttention | LEDEncoderSelfAttention): its query, key, value, num_heads, head_dim, dropout
            and one_sided_attn_window_size are used: frame i sees i - that .. i + that.
        hidden_states (Tensor): [B, T, C].
        attention_mask (Tensor | None): [B, T], 0 = a valid frame, anything else = not a key.
        is_index_masked (Tensor | None): bool [B, T], True = a row to be set to 0.
    Returns:
        Tensor: [B, T, C].
    Source: Beltagy et al. 2020, "Longformer", section 3.1.
    """
    shape = (-1, module.head_dim)
    projections = (module.query, module.key, module.value)
    q, k, v = (project(hidden_states).unflatten(-1, shape).transpose(1, 2) for project in projections)
    out = sliding_window_attention(
        q,
        k,
        v,
        (module.one_sided_attn_window_size, module.one_sided_attn_window_size),
        key_mask=None if attention_mask is None else attention_mask == 0,
        dropout_p=module.dropout if module.training else 0.0,
    )
    out = out.transpose(1, 2).flatten(2)
    return out if is_index_masked is None else out.masked_fill(is_index_masked[:, :, None], 0.0)


def _forward(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    is_index_masked: Tensor | None = None,
    is_index_global_attn: Tensor | None = None,
    is_global_attn: bool | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, ...]:
    if is_global_attn or output_attentions:
        return type(self).forward(
            self,
            hidden_states,
            attention_mask=attention_mask,
            is_index_masked=is_index_masked,
            is_index_global_attn=is_index_global_attn,
            is_global_attn=is_global_attn,
            output_attentions=output_attentions,
        )
    return (longformer_self_attention(self, hidden_states, attention_mask, is_index_masked),)


def use_in(model: nn.Module) -> int:
    """Puts the op into every local attention of a Longformer or LED model, in place. May be called again.

    Returns:
        int: how many modules were changed.
    Raises:
        ValueError: if the model has no such module.
    """
    found = [module for module in model.modules() if type(module).__name__ in _MODULES]
    if not found:
        raise ValueError(f"use_in: model must contain {' or '.join(_MODULES)}, got {type(model).__name__}")
    for module in found:
        module.forward = types.MethodType(_forward, module)
    return len(found)


def restore(model: nn.Module) -> int:
    """Undoes `use_in`.

    Returns:
        int: how many modules were changed back.
    """
    changed = [
        module for module in model.modules() if getattr(module.__dict__.get("forward"), "__func__", None) is _forward
    ]
    for module in changed:
        del module.forward
    return len(changed)
