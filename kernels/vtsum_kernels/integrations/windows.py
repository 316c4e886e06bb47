"""Which window a mask function of transformers describes, read from how transformers composed it.

transformers hands an attention's mask function to whoever makes the mask. It is composed of few parts, and where each
of them is known, the mask is a band and never has to be written down. The keyword `sliding_window`, which reaches the
attention itself, is not used: it means |i - j| < sliding_window in one model and i - j < sliding_window in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

#: More frames than a sequence has: unbounded.
FAR = 1 << 40


class Window(NamedTuple):
    """Keys i - left .. i + right, of the same sequence where `sequences` numbers them."""

    left: int
    right: int
    sequences: Tensor | None = None


def _variable(function: Callable[..., Any], name: str) -> Any:
    """The value of a variable that a function closes over."""
    names = function.__code__.co_freevars
    if name not in names or function.__closure__ is None:
        raise LookupError(name)
    return function.__closure__[names.index(name)].cell_contents


def _checked(function: Callable[..., Any], left: int, right: int) -> Window:
    """The window, after asking the function itself at both of its ends (a part may change between versions)."""
    at = 1 << 50
    for offset, seen in ((-left, True), (right, True), (-left - 1, left == FAR), (right + 1, right == FAR)):
        if bool(function(0, 0, at, at + offset)) != seen:
            raise LookupError(f"{function.__qualname__} at an offset of {offset}")
    return Window(left, right)


def _part(function: Callable[..., Any]) -> Window:
    name = function.__qualname__.replace(".<locals>", "")
    if name == "causal_mask_function":
        return _checked(function, FAR, 0)
    if name == "bidirectional_mask_function":
        return _checked(function, FAR, FAR)
    if name == "sliding_window_overlay.inner_mask":
        return _checked(function, _variable(function, "sliding_window") - 1, FAR)
    if name == "sliding_window_bidirectional_overlay.inner_mask":  # distance <= sliding_window
        window = _variable(function, "sliding_window")
        return _checked(function, window, window)
    if name == "_bidirectional_window_overlay.inner_mask":  # Gemma-3's: distance < sliding_window
        window = _variable(function, "sliding_window") - 1
        return _checked(function, window, window)
    if name == "packed_sequence_mask_function.inner_mask":
        return Window(FAR, FAR, _variable(function, "packed_sequence_mask"))
    if name == "remap_positions_for_packed_sequence.inner_mask":
        # Positions count up by one within a sequence: distances are those of the frames themselves.
        return _part(_variable(function, "mask_function"))
    if name in ("and_masks.and_mask", "or_masks.or_mask"):
        parts = [_part(part) for part in _variable(function, "mask_functions")]
        packed = [part.sequences for part in parts if part.sequences is not None]
        if name == "or_masks.or_mask":
            if packed:
                raise LookupError("a union with packed sequences")
            return Window(max(part.left for part in parts), max(part.right for part in parts))
        if len(packed) > 1:
            raise LookupError("packed sequences twice")
        return Window(min(p.left for p in parts), min(p.right for p in parts), packed[0] if packed else None)
    raise LookupError(function.__qualname__)


def window_of(mask_function: Callable[..., Any]) -> Window | None:
    """The window that a mask function of transformers describes, or None if it is not known to be one.

    Every part holds the frame itself, so that a union of two windows is a window.
    """
    try:
        window = _part(mask_function)
    except (LookupError, TypeError, AttributeError):
        return None
    return window if window.left >= 0 and window.right >= 0 else None
