"""Argument checks shared by every op: one place, one message style.

Messages read ``"<op>: <arg> must be <rule>, got <value>"``. TypeError for a dtype or a type, ValueError for a shape, a
device or a value.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def fail(op: str, arg: str, rule: str, got: object, error: type[Exception] = ValueError) -> NoReturn:
    """Raises `error` with the house's message."""
    raise error(f"{op}: {arg} must be {rule}, got {got}")


def is_tensor(op: str, arg: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        fail(op, arg, "a torch.Tensor", type(value).__name__, TypeError)


def is_floating(op: str, arg: str, value: Tensor) -> None:
    is_tensor(op, arg, value)
    if value.dtype not in FLOAT_DTYPES:
        fail(op, arg, "float32, float16, bfloat16 or float64", value.dtype, TypeError)


def has_rank(op: str, arg: str, value: Tensor, rank: int, names: str) -> None:
    if value.dim() != rank:
        fail(op, arg, f"of shape {names}", f"{list(value.shape)}")


def matches(op: str, arg: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Same dtype and device as another argument."""
    is_tensor(op, arg, value)
    if value.dtype != other.dtype:
        fail(op, arg, f"of the dtype of {other_name}, {other.dtype}", value.dtype, TypeError)
    if value.device != other.device:
        fail(op, arg, f"on the device of {other_name}, {other.device}", value.device)


def has_shape(op: str, arg: str, value: Tensor, shape: tuple[int, ...], names: str) -> None:
    if tuple(value.shape) != tuple(shape):
        fail(op, arg, f"of shape {names} = {list(shape)}", f"{list(value.shape)}")


def is_mask(op: str, arg: str, value: Tensor, shape: tuple[int, ...], names: str, device: torch.device) -> None:
    """A bool tensor of a given shape and device."""
    is_tensor(op, arg, value)
    if value.dtype != torch.bool:
        fail(op, arg, "bool (True = valid)", value.dtype, TypeError)
    has_shape(op, arg, value, shape, names)
    if value.device != device:
        fail(op, arg, f"on the device of the input, {device}", value.device)


def is_positive_int(op: str, arg: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        fail(op, arg, "an int", type(value).__name__, TypeError)
    if value < 1:
        fail(op, arg, "at least 1", value)


def softcap(op: str, value: Any) -> float:
    """0.0 is none. Else it is what float32 divides by."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fail(op, "softcap", "a float or None (none)", type(value).__name__, TypeError)
    if value != 0.0 and not 1e-30 <= value <= 1e30:
        fail(op, "softcap", "between 1e-30 and 1e30, or None or 0.0 (none)", value)
    return float(value)


def window(op: str, value: Any, causal: bool) -> tuple[int, int]:
    """Turns `window_size` into (left, right), both inclusive, -1 = unbounded."""
    if isinstance(value, bool):
        fail(op, "window_size", "an odd int or (left, right)", value, TypeError)
    if isinstance(value, int) and causal:
        if value < 1:
            fail(op, "window_size", "at least 1 (with causal=True: keys up to the query's own)", value)
        left, right = value - 1, 0
    elif isinstance(value, int):
        if value < 1 or value % 2 == 0:
            fail(op, "window_size", "odd and at least 1 (itself and window_size // 2 on each side)", value)
        left = right = value // 2
    elif isinstance(value, (tuple, list)):
        if len(value) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in value):
            fail(op, "window_size", "an odd int or two ints (left, right)", value, TypeError)
        left, right = value
        if left < -1 or right < -1:
            fail(op, "window_size", "(left, right) with each side at least 0, or -1 for unbounded", tuple(value))
    else:
        fail(op, "window_size", "an odd int or (left, right)", type(value).__name__, TypeError)
    return left, 0 if causal else right
