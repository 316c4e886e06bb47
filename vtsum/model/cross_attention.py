"""The text decoder's attention to frames that lie in stretches on the ranks of a group.

The words are the same on every rank, and so is all that the decoder makes of them; each rank's words attend to the
rank's own frames, and what they find is merged.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from vtsum.model.temporal import checkpointed

if TYPE_CHECKING:
    from vtsum_kernels.distributed.stretch import Stretch


class FrameAttention(BlipTextSelfAttention):
    """BLIP's cross attention, to the frames of all ranks within `over`; else as it is."""

    stretch: Stretch | None = None

    def forward(self, hidden_states: Tensor, *args: Any, **options: Any) -> tuple[Any, ...]:
        if self.stretch is None:
            found: tuple[Any, ...] = super().forward(hidden_states, *args, **options)
            return found
        from vtsum_kernels import distributed

        queries = self._of_heads(self.query(hidden_states))
        keys, values = self._keys(options["encoder_hidden_states"], options.get("past_key_values"))
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(self.attention_head_size)
        if (mask := options.get("encoder_attention_mask")) is not None:
            scores = scores + mask
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        lse = scores.logsumexp(-1)
        weights = (scores - lse[..., None]).exp()
        own = self._dropped(weights, self.stretch).to(values.dtype) @ values
        merged = distributed.merge_attention(own, lse, group=self.stretch.handle)
        return merged.transpose(1, 2).flatten(-2), weights

    def _of_heads(self, x: Tensor) -> Tensor:
        """[B, L, H * D] -> [B, H, L, D]."""
        return x.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)

    def _keys(self, frames: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of this rank's frames, once for all words of a sentence where there is a cache."""
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        keys, values = self._of_heads(self.key(frames)), self._of_heads(self.value(frames))
        if cache is not None:
            keys, values = cache.cross_attention_cache.update(keys, values, self.layer_idx)
            cache.is_updated[self.layer_idx] = True
        return keys, values

    def _dropped(self, weights: Tensor, stretch: Stretch) -> Tensor:
        """With dropout that each rank draws for its own frames, while the words' draws stay the same on all."""
        if not (self.training and self.dropout.p):
            return weights
        seed = int(torch.randint(2**62, (1,)))
        with seeded(seed + 1 + stretch.rank, weights.device):
            dropped: Tensor = self.dropout(weights)
        return dropped


def attend_over_ranks(layer: Any) -> None:
    """Make a decoder layer's cross attention one that can."""
    layer.crossattention.self.__class__ = FrameAttention  # with its weights, as they are


@contextlib.contextmanager
def over(modules: list[FrameAttention], stretch: Stretch | None) -> Iterator[None]:
    """Within, the modules attend to the frames of all ranks of a stretch's group, where there is one."""
    before = [module.stretch for module in modules]
    try:
        for module in modules:
            module.stretch = stretch
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.stretch = was


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from this seed, and afterwards on as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def same_draws(stretch: Stretch, device: torch.device) -> Iterator[None]:
    """Random numbers that are the same on all ranks: the group's first rank draws their seed."""
    seed = stretch.same(torch.randint(2**62, (1,)).to(device))
    with seeded(int(seed), device):
        yield


def recomputing(layer: Any) -> Callable[..., Any]:
    """What a decoder layer calls itself by where it is to be computed again in the backward pass, when `over` has long
    ended."""
    return partial(_recomputed, layer.crossattention.self)


def _recomputed(module: FrameAttention, function: Callable[..., Any], *args: Any) -> Any:
    return checkpointed(partial(_within, module, module.stretch, function), *args)


def _within(module: FrameAttention, stretch: Stretch | None, function: Callable[..., Any], *args: Any) -> Any:
    with over([module], stretch):
        return function(*args)
