"""Sliding-window layers of transformers' models on our op: ``attn_implementation="vtsum_sliding_window"``.

    from vtsum_kernels.integrations.transformers import register
    register()
    model = AutoModel.from_pretrained("answerdotai/ModernBERT-base", attn_implementation="vtsum_sliding_window")

A layer with a sliding window runs on `sliding_window_attention` and no mask of size T x T is made for it; every other
layer runs as under "sdpa". Works for models that take their masks from transformers' masking_utils: ModernBERT,
Gemma-3, Mistral, Qwen-2 and others alike. Padding on either side, grouped heads, packed sequences by position_ids and
generation are served; single-token steps of generation go to SDPA.

Attention sinks (GPT-OSS) and softcaps (Gemma-2) are served, which "sdpa" knows neither of. With them, layers without a
window run on the op too where nothing is padded, and take T x T scores, as under "eager", with a mask.

Rows of padded queries differ from "eager", which lets them see everything: nothing that is not padded reads them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sliding_window_attention import sliding_window_attention
from ..sliding_window_attention.reference import softmax_among
from ..tensors import acc_dtype
from . import torchvision_free
from .align import aligned_attention
from .windows import FAR, window_of

NAME = "vtsum_sliding_window"

#: Arguments that change an attention's result and that nobody here knows.
_UNKNOWN_TO_US = {"sinks": "transformers' name for attention sinks is s_aux"}
#: These SDPA serves, in layers without a window.
_UNKNOWN_TO_THE_OP = {
    "position_bias": "a learned bias of positions is not served in sliding-window layers, nor with sinks or a softcap",
    "cache": "a paged cache is not served in sliding-window layers, nor with sinks or a softcap",
}


class LocalWindow(NamedTuple):
    """What a sliding-window layer gets in place of a mask. Query i stands at the position of key i + offset.

    Answers what transformers asks of a finished mask on the way: its dimensions, and that it be contiguous.
    """

    left: int
    right: int
    offset: int
    key_mask: Tensor | None  # bool [B, keys], None where nothing is padded
    cu_seqlens: Tensor | None  # of the batch laid end to end, where sequences are packed

    @property
    def ndim(self) -> int:
        """As of a finished mask: one of two dimensions, padding alone, would be converted."""
        return 4

    def contiguous(self) -> LocalWindow:
        return self


def _reach(side: int) -> int:
    return -1 if side >= FAR else side


def _padding(attention_mask: Tensor | None, first: int, keys: int) -> Tensor | None:
    """Which of the keys first .. first + keys - 1 are valid; None if all are."""
    if attention_mask is None:
        return None
    valid = attention_mask[:, first : first + keys].to(torch.bool)
    if valid.shape[1] < keys:
        valid = F.pad(valid, (0, keys - valid.shape[1]), value=False)
    if not torch.compiler.is_compiling() and bool(valid.all()):
        return None
    return valid


def _boundaries(sequences: Tensor) -> Tensor:
    """cu_seqlens of sequences numbered [B, T], the batch laid end to end."""
    begins = torch.ones_like(sequences, dtype=torch.bool)
    begins[:, 1:] = sequences[:, 1:] != sequences[:, :-1]
    total = torch.tensor([sequences.numel()], device=sequences.device)
    return torch.cat([begins.flatten().nonzero().flatten(), total]).to(torch.int32)


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Any = None,
    local_size: int | None = None,
    **kwargs: Any,
) -> Any:
    """The mask function of transformers' AttentionMaskInterface: a LocalWindow for layers with a window, else SDPA's.

    Raises:
        NotImplementedError: for a layer whose pattern is local but no window: chunks, or blocks of image tokens.
    """
    if isinstance(attention_mask, LocalWindow):  # made before, by generate
        return attention_mask
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    function = causal_mask_function if mask_function is None else mask_function
    window = window_of(function) if local_size is not None else None
    if local_size is not None and window is None:
        raise NotImplementedError(
            f"{NAME}: mask_function must be a sliding window, alone or over packed sequences, got "
            f"{getattr(function, '__qualname__', function)} composed of other parts; use attn_implementation='sdpa'"
        )
    # One query: a row of scores, for which SDPA is made. A cache of fixed length: the offset is a tensor while
    # compiling, and reading it would break the graph.
    if window is None or q_length == 1 or (torch.compiler.is_compiling() and isinstance(q_offset, Tensor)):
        return sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=function,
            attention_mask=attention_mask,
            local_size=local_size,
            **kwargs,
        )
    packed = None if window.sequences is None else _boundaries(window.sequences)
    offset = int(q_offset) - kv_offset
    valid = _padding(attention_mask, kv_offset, kv_length)
    return LocalWindow(_reach(window.left), _reach(window.right), offset, valid, packed)


def _refuse(arguments: dict[str, Any], names: dict[str, str]) -> None:
    for name, remedy in names.items():
        if arguments.get(name) is not None:
            raise NotImplementedError(f"{NAME}: {name} must be None, got {type(arguments[name]).__name__}; {remedy}")


def _whole(
    module: torch.nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool | None, **rest: Any
) -> Tensor:
    """A layer without a window whose scores are what SDPA does not compute. Its mask is as SDPA takes it."""
    if mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        return aligned_attention(q, k, v, (-1, 0 if causal else -1), offset=k.shape[2] - q.shape[2], **rest)
    return _masked(q, k, v, mask, **rest)


def _masked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    scale: float | None,
    dropout_p: float,
    sinks: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """Any mask, bool or to be added, in plain PyTorch."""
    wide, heads = acc_dtype(q.dtype), (k.shape[1], -1)
    rows = q.to(wide).unflatten(1, heads) * (q.shape[3] ** -0.5 if scale is None else scale)
    scores = (rows @ k.to(wide).transpose(-1, -2)[:, :, None]).flatten(1, 2)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
    if mask.dtype != torch.bool:
        scores = scores + mask
    weights, _ = softmax_among(scores, visible, None if sinks is None else sinks.to(wide))
    weights = F.dropout(weights, dropout_p)
    return (weights.unflatten(1, heads) @ v.to(wide)[:, :, None]).flatten(1, 2).to(q.dtype)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' AttentionInterface.

    Args:
        query (Tensor): [B, H, Tq, D].
        key, value (Tensor): [B, K, Tk, D], H a multiple of K.
        attention_mask (LocalWindow | Tensor | None): what `mask` made; anything but a LocalWindow goes to SDPA, but for
            the next two.
        s_aux (Tensor | None): [H], the op's `sinks`.
        softcap (float | None): as the op's.
    Returns:
        tuple[Tensor, None]: out [B, Tq, H, D]; no weights, which are never written down.
    Raises:
        NotImplementedError: for a bias of positions or a paged cache, where they are not SDPA's.
    """
    _refuse(kwargs, _UNKNOWN_TO_US)
    local, plain = isinstance(attention_mask, LocalWindow), s_aux is None and not softcap
    if not local and plain:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    _refuse(kwargs, _UNKNOWN_TO_THE_OP)
    options: dict[str, Any] = {"scale": scaling, "dropout_p": dropout, "sinks": s_aux, "softcap": softcap}
    if not local:
        out = _whole(module, query, key, value, attention_mask, kwargs.get("is_causal"), **options)
        return out.transpose(1, 2).contiguous(), None
    left, right, offset, valid, cu_seqlens = attention_mask
    if cu_seqlens is not None:
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
        out = sliding_window_attention(q, k, v, (left, right), cu_seqlens=cu_seqlens, **options)
        return out.unflatten(0, (query.shape[0], query.shape[2])), None
    out = aligned_attention(query, key, value, (left, right), offset=offset, key_mask=valid, **options)
    return out.transpose(1, 2).contiguous(), None


def register() -> str:
    """Makes ``attn_implementation="vtsum_sliding_window"`` known to transformers. May be called again.

    Returns:
        str: the name.
    Raises:
        ImportError: if transformers is missing, or older than the interface this is written for (5.5).
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"register: transformers must be installed (pip install 'transformers>=5.5'), got {error}"
        ) from error
    torchvision_free.prepare()
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask
    except ImportError as error:
        raise ImportError(
            "register: transformers must be 5.5 or newer and able to import its models, got "
            f"{transformers.__version__}, which says: {error.__cause__ or error}"
        ) from error
    missing = {"q_length", "q_offset", "local_size"} - set(inspect.signature(sdpa_mask).parameters)
    if missing:
        raise ImportError(
            f"register: transformers must be 5.5 or newer, got {transformers.__version__}, whose mask functions do not "
            f"take {', '.join(sorted(missing))}"
        )
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    return NAME
