"""NATTEN's call: neighborhood attention over one dimension, [B, T, H, D], windows moved inside at the borders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import checks
from ..sliding_window_attention import sliding_window_attention

_NAME = "na1d"


def _one(name: str, value: Any, least: int) -> int:
    """An int, or a tuple of one, of at least `least`."""
    number = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    if isinstance(number, bool) or not isinstance(number, int):
        checks.fail(_NAME, name, "an int or a tuple of one int", repr(value), TypeError)
    if number < least:
        checks.fail(_NAME, name, f"at least {least}", value)
    return number


def _flag(name: str, value: Any) -> bool:
    flag = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    if not isinstance(flag, bool):
        checks.fail(_NAME, name, "a bool or a tuple of one bool", repr(value), TypeError)
    return flag


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | tuple[int],
    stride: int | tuple[int] = 1,
    dilation: int | tuple[int] = 1,
    is_causal: bool | tuple[bool] = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    """1-D neighborhood attention as `natten.na1d` computes it.

    Every frame sees kernel_size frames of its phase (the frames i modulo dilation): itself, kernel_size // 2 before it
    and the rest after it, moved inside the sequence near its ends. Causal windows, kernel_size frames up to the frame
    itself, are cut off instead.

    Args:
        query (Tensor): [B, T, H, D].
        key, value (Tensor): [B, T, K, D], H a multiple of K.
        kernel_size (int | tuple[int]): frames of a window, at least 2, odd or even; kernel_size * dilation <= T.
        stride (int | tuple[int]): 1; windows shared by neighbouring frames are not served.
        dilation (int | tuple[int]): distance in frames between neighbouring keys of a window.
        is_causal (bool | tuple[bool]): no key after the query.
        scale (float | None): factor of the scores; None means 1 / sqrt(D).
        additional_keys, additional_values: None; further keys seen by all frames are not served.
        return_lse (bool): also return the log of the sum of the exponentiated scores.
        backend (str): one of `sliding_window_attention`'s backends; NATTEN's names mean nothing here.
    Returns:
        Tensor: [B, T, H, D]; with `return_lse` a tuple of it and lse [B, T, H].
    Raises:
        NotImplementedError: for a stride, additional keys, or values of another width than the keys.
        ValueError, TypeError: for what NATTEN refuses too.
    Source: Hassani et al. 2023, "Neighborhood Attention Transformer"; Hassani and Shi 2022 (dilated); NATTEN 0.21.
    """
    if _one("stride", stride, 1) != 1:
        raise NotImplementedError(f"{_NAME}: stride must be 1, got {stride}")
    if additional_keys is not None or additional_values is not None:
        raise NotImplementedError(f"{_NAME}: additional_keys and additional_values must be None, got a tensor")
    keys, step = _one("kernel_size", kernel_size, 2), _one("dilation", dilation, 1)
    causal = _flag("is_causal", is_causal)
    for name, x in (("query", query), ("key", key), ("value", value)):
        checks.is_tensor(_NAME, name, x)
        checks.has_rank(_NAME, name, x, 4, "[B, T, H, D]")
    if value.shape[3] != key.shape[3]:
        raise NotImplementedError(f"{_NAME}: value must have key's D = {key.shape[3]}, got {value.shape[3]}")
    if keys * step > query.shape[1]:
        checks.fail(_NAME, "kernel_size * dilation", f"at most T = {query.shape[1]}", f"{keys} * {step}")
    found = sliding_window_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        (keys - 1, 0) if causal else (keys // 2, keys - 1 - keys // 2),
        scale=scale,
        dilation=step,
        border="truncate" if causal else "shift",
        return_lse=return_lse,
        backend=backend,
    )
    return (found[0].transpose(1, 2), found[1].transpose(1, 2)) if return_lse else found.transpose(1, 2)
