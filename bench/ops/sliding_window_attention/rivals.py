"""What people use for a sliding window today, each written as its own documentation would have it.

A rival is a function from a setting to `attend(q, k, v) -> out`, all [B, H, T, D]. It computes what the op computes
(softmax over |i - j| <= window // 2, cut off at the borders), or, where it says so, NATTEN's shifted borders.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.comparison import Absent, LeftOut
from bench.kit.op import Rival
from bench.ops.sliding_window_attention.cudnn import cudnn_window
from bench.ops.sliding_window_attention.setting import Attend, Setting


def _visible(setting: Setting) -> Tensor:
    """bool [T, T], True where row i sees key j."""
    at = torch.arange(setting.frames, device=setting.device)
    return (at[:, None] - at).abs() <= setting.window // 2


def sdpa_masked(setting: Setting) -> Attend:
    mask = _visible(setting)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def sdpa_blocks(setting: Setting) -> Attend:
    """Blocks of rows against the keys of their block and of a window's half beside it, under a mask."""
    frames, reach = setting.frames, setting.window // 2
    size = min(max(64, reach), frames)
    count = math.ceil(frames / size)
    pad = count * size - frames
    rows = torch.arange(count * size, device=setting.device).view(count, size, 1)
    keys = torch.arange(-reach, size + reach, device=setting.device) + size * torch.arange(
        count, device=setting.device
    ).view(count, 1, 1)
    # Rows of padding see everything: a row that sees nothing would be NaN, and so would be its neighbours' gradients.
    mask = ((rows - keys).abs() <= reach) & (keys >= 0) & (keys < frames) | (rows >= frames)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = F.pad(q, (0, 0, 0, pad)).unflatten(2, (count, size)).flatten(0, 1)
        k, v = (
            F.pad(x, (0, 0, reach, reach + pad)).unfold(2, size + 2 * reach, size).transpose(-1, -2).flatten(0, 1)
            for x in (k, v)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.flatten(1, 2).unflatten(0, (setting.batch, setting.heads))[:, :, :frames]

    return attend


def _inside(setting: Setting) -> Tensor:
    """bool [T, window], True where the window's key lies in the sequence."""
    reach = setting.window // 2
    at = torch.arange(setting.frames, device=setting.device)[:, None] + torch.arange(
        -reach, reach + 1, device=setting.device
    )
    return (at >= 0) & (at < setting.frames)


def unfold(setting: Setting) -> Attend:
    """Every row's keys beside each other."""
    reach, inside, scale = setting.window // 2, _inside(setting), setting.dim**-0.5

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (F.pad(x, (0, 0, reach, reach)).unfold(2, setting.window, 1) for x in (k, v))  # [B, H, T, D, window]
        scores = (q.unsqueeze(-2) @ k).squeeze(-2) * scale
        weights = torch.softmax(scores.masked_fill(~inside, -math.inf), -1)
        return (v @ weights.unsqueeze(-1)).squeeze(-1)

    return attend


def shifts(setting: Setting) -> Attend:
    """One shifted product for each key of the window."""
    reach, inside, scale, frames = setting.window // 2, _inside(setting), setting.dim**-0.5, setting.frames

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = F.pad(k, (0, 0, reach, reach)), F.pad(v, (0, 0, reach, reach))
        scores = torch.stack([(q * k[:, :, o : o + frames]).sum(-1) for o in range(setting.window)], -1) * scale
        weights = torch.softmax(scores.masked_fill(~inside, -math.inf), -1)
        out = weights[..., 0, None] * v[:, :, :frames]
        for o in range(1, setting.window):
            out = out + weights[..., o, None] * v[:, :, o : o + frames]
        return out

    return attend


def _compiled(make: Callable[[Setting], Attend], most: int) -> Callable[[Setting], Attend]:
    def compiled(setting: Setting) -> Attend:
        if setting.window > most:
            raise LeftOut(f"compiling a window of more than {most} takes minutes")
        return torch.compile(make(setting), dynamic=False, fullgraph=True)

    return compiled


FLEX_BLOCK = 128


def flex_mask(frames: int, window: int, device: str) -> Any:
    """FlexAttention's block mask of the band, straight from the blocks: create_block_mask looks at all T x T pairs."""
    from torch.nn.attention.flex_attention import BlockMask

    reach, count = window // 2, math.ceil(frames / FLEX_BLOCK)
    block = torch.arange(count, device=device)
    apart = (block[:, None] - block).abs() * FLEX_BLOCK
    some = apart - (FLEX_BLOCK - 1) <= reach  # the nearest pair of the two blocks
    inside = (block + 1) * FLEX_BLOCK <= frames
    full = (apart + (FLEX_BLOCK - 1) <= reach) & inside & inside[:, None]  # the farthest

    def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(chosen.to(torch.int8), dim=-1, descending=True, stable=True)
        return chosen.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None].contiguous()

    def band(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i - j).abs() <= reach

    return BlockMask.from_kv_blocks(
        *listed(some & ~full), *listed(full), BLOCK_SIZE=FLEX_BLOCK, mask_mod=band, seq_lengths=(frames, frames)
    )


def flex(setting: Setting) -> Attend:
    from torch.nn.attention.flex_attention import flex_attention

    mask = flex_mask(setting.frames, setting.window, setting.device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)


def _need(module: str, distribution: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Absent(f"not installed; pip install {distribution}")


def local_attention(setting: Setting) -> Attend:
    _need("local_attention", "local-attention")
    from local_attention import LocalAttention

    reach = setting.window // 2
    module = LocalAttention(
        window_size=reach,
        look_backward=1,
        look_forward=1,
        exact_windowsize=True,
        autopad=True,
        use_rotary_pos_emb=False,
    )
    mask = None
    if setting.frames % reach:  # without a mask, the rows at the end would attend to the frames that it pads with
        mask = torch.ones(setting.batch, setting.frames, dtype=torch.bool, device=setting.device)
    return lambda q, k, v: module(q, k, v, mask=mask)


def natten(setting: Setting) -> Attend:
    _need("natten", "natten")
    from natten.functional import na1d

    if setting.frames < setting.window:
        raise NotImplementedError("its windows must not be wider than the sequence")
    # On the CPU it does not let FlexAttention be compiled, which FlexAttention says at length.
    for message in ("flex_attention called without torch.compile", "return_lse is deprecated"):
        warnings.filterwarnings("ignore", message=message)
    return lambda q, k, v: na1d(*(x.transpose(1, 2) for x in (q, k, v)), setting.window).transpose(1, 2)


def flash_window(setting: Setting) -> Attend:
    """The flash attention that torch carries, through the op that takes a window."""
    if setting.dtype not in ("float16", "bfloat16"):
        raise NotImplementedError("it takes float16 and bfloat16")
    reach, frames = setting.window // 2, setting.frames

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        sides = {"window_size_left": reach, "window_size_right": reach}
        results = torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, frames, frames, 0.0, False, False, scale=setting.dim**-0.5, **sides
        )
        return results[0].transpose(1, 2)

    return attend


def flash_attn(setting: Setting) -> Attend:
    _need("flash_attn", "flash-attn")
    from flash_attn import flash_attn_func

    if setting.dtype not in ("float16", "bfloat16"):
        raise NotImplementedError("it takes float16 and bfloat16")
    reach = setting.window // 2
    return lambda q, k, v: flash_attn_func(
        *(x.transpose(1, 2) for x in (q, k, v)), window_size=(reach, reach)
    ).transpose(1, 2)


RIVALS: tuple[Rival, ...] = (
    Rival("sdpa_masked", sdpa_masked),
    Rival("sdpa_blocks", sdpa_blocks),
    Rival("unfold", unfold),
    Rival("unfold_compiled", _compiled(unfold, 257), compiled=True),
    Rival("shifts", shifts),
    Rival("shifts_compiled", _compiled(shifts, 33), compiled=True),
    Rival("flex_compiled", flex, compiled=True),
    Rival("local_attention", local_attention),
    Rival("natten", natten, facts={"border": "shift"}),
    Rival("flash_window", flash_window, devices=("cuda",)),
    Rival("flash_attn", flash_attn, devices=("cuda",)),
    Rival("cudnn", cudnn_window, devices=("cuda",)),
)
