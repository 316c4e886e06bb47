"""Which window a mask function of transformers describes, found by asking it for no frame in particular.

transformers hands an attention's mask function to whoever makes the mask. Here it is called with a query i and a key j
that stand for all of them: what it does with these (`j > i - 5`, `abs(i - j) <= 4`, unions, intersections) says which
distances j - i it lets through. A function that does anything else is not known to be a window. The keyword
`sliding_window`, which reaches the attention itself, is not used: it means |i - j| < sliding_window in one model and
i - j < sliding_window in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: More frames than a sequence has: unbounded.
FAR = 1 << 40


class Window(NamedTuple):
    """Keys i - left .. i + right, of the same sequence where `sequences` numbers them."""

    left: int
    right: int
    sequences: Tensor | None = None


class NotAWindow(Exception):
    """The function did something that no window does."""


class _Distances:
    """The distances j - i from low to high that are let through; none if low > high. Takes a bool tensor's place."""

    device = None

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def to(self, device: object) -> _Distances:
        return self

    def __and__(self, other: object) -> _Distances:
        if not isinstance(other, _Distances):
            raise NotAWindow
        return _Distances(max(self.low, other.low), min(self.high, other.high))

    def __or__(self, other: object) -> _Distances:
        if not isinstance(other, _Distances):
            raise NotAWindow
        if self.low > self.high:
            return other
        if other.low > other.high:
            return self
        if max(self.low, other.low) > min(self.high, other.high) + 1:
            raise NotAWindow  # a gap between the two
        return _Distances(min(self.low, other.low), max(self.high, other.high))

    def __bool__(self) -> bool:
        raise NotAWindow


class _Step:
    """sign * (j - i) + shift, or its absolute value."""

    def __init__(self, sign: int, shift: int, absolute: bool = False) -> None:
        self.sign, self.shift, self.absolute = sign, shift, absolute

    def __abs__(self) -> _Step:
        return _Step(self.sign, self.shift, True)

    def __add__(self, other: object) -> _Step:
        if self.absolute:
            raise NotAWindow
        return _Step(self.sign, self.shift + _number(other))

    def __sub__(self, other: object) -> _Step:
        return self + -_number(other)

    def _between(self, low: int | None, high: int | None) -> _Distances:
        """Where this is from low to high, None = without bound."""
        if self.absolute:
            if high is None:
                raise NotAWindow  # further away than something: a hole
            low = -high
        low, high = (None if side is None else side - self.shift for side in (low, high))
        if self.sign < 0:
            low, high = (None if side is None else -side for side in (high, low))
        return _Distances(-FAR if low is None else low, FAR if high is None else high)

    def __le__(self, bound: object) -> _Distances:
        return self._between(None, _number(bound))

    def __lt__(self, bound: object) -> _Distances:
        return self._between(None, _number(bound) - 1)

    def __ge__(self, bound: object) -> _Distances:
        return self._between(_number(bound), None)

    def __gt__(self, bound: object) -> _Distances:
        return self._between(_number(bound) + 1, None)

    def __bool__(self) -> bool:
        raise NotAWindow


class _Index:
    """i + shift (a query) or j + shift (a key). Takes an index tensor's place."""

    def __init__(self, key: bool, shift: int = 0) -> None:
        self.key, self.shift = key, shift

    def new_ones(self, shape: object, dtype: object = None) -> _Distances:
        return _Distances(-FAR, FAR)

    def new_zeros(self, shape: object, dtype: object = None) -> _Distances:
        return _Distances(FAR, -FAR)

    def __add__(self, other: object) -> _Index:
        return _Index(self.key, self.shift + _number(other))

    def __sub__(self, other: object) -> Any:
        if not isinstance(other, _Index):
            return _Index(self.key, self.shift - _number(other))
        if other.key == self.key:
            raise NotAWindow
        return _Step(1 if self.key else -1, self.shift - other.shift)

    def __le__(self, other: object) -> _Distances:
        return self - _other(other) <= 0

    def __lt__(self, other: object) -> _Distances:
        return self - _other(other) < 0

    def __gt__(self, other: object) -> _Distances:
        return self - _other(other) > 0

    def __ge__(self, other: object) -> _Distances:
        if isinstance(other, int) and other <= self.shift:  # as any place in a sequence is
            return _Distances(-FAR, FAR)
        return self - _other(other) >= 0

    def __bool__(self) -> bool:
        raise NotAWindow


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotAWindow
    return value


def _other(value: object) -> _Index:
    if not isinstance(value, _Index):
        raise NotAWindow
    return value


def _distances(function: Callable[..., Any]) -> Window | None:
    try:
        seen = function(0, 0, _Index(key=False), _Index(key=True))
    except (NotAWindow, TypeError, AttributeError, IndexError, ValueError, RuntimeError):
        return None  # it did what cannot be done to an index that stands for all
    if not isinstance(seen, _Distances) or seen.low > 0 or seen.high < 0:
        return None
    return Window(-seen.low, seen.high)


def _variable(function: Callable[..., Any], name: str) -> Any:
    """The value of a variable that a function closes over, None if there is none of that name."""
    names = function.__code__.co_freevars
    return function.__closure__[names.index(name)].cell_contents if name in names and function.__closure__ else None


def _packed(function: Callable[..., Any]) -> Window | None:
    """A window within each of several sequences, as transformers' packed_sequence_compatibility_function makes it.

    Positions count up by one within a sequence: their distances are those of the frames themselves.
    """
    parts = _variable(function, "mask_functions")
    if function.__name__ != "and_mask" or parts is None or len(parts) != 2:
        return None
    same, remapped = parts
    names = [part.__qualname__.split(".")[0] for part in parts]
    if names != ["packed_sequence_mask_function", "remap_positions_for_packed_sequence"]:
        return None
    sequences, inner = _variable(same, "packed_sequence_mask"), _variable(remapped, "mask_function")
    window = None if inner is None else _distances(inner)
    return None if window is None or sequences is None else window._replace(sequences=sequences)


def window_of(mask_function: Callable[..., Any]) -> Window | None:
    """The window that a mask function of transformers describes, or None if it is not known to be one.

    Works inside torch.compile too, and within one graph unless sequences are packed.
    """
    window = _distances(mask_function)
    if window is None and torch.compiler.is_compiling():
        # Which cannot read a function's variables: it breaks the graph and runs this as it is. Not a decorator, which
        # would load the compiler with this file.
        return torch.compiler.disable(_packed)(mask_function)
    return _packed(mask_function) if window is None else window
