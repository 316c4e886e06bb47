"""Models that are kept from one video to the next, in a process that works on many one after the other."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_OURS = ("vtsum", "rapidocr")  # modules whose objects may be copied
_kept: dict[Any, Any] | None = None


def keep_models() -> None:
    """From now on, what `reused` functions load stays in memory until the process ends."""
    global _kept
    if _kept is None:
        _kept = {}


def reused(make: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that loads a model, the first time for its arguments alone where models are kept.

    Each call gives an object of its own, as the first was: what it learns of a video, such as its language, is not
    taken for another's. Its weights are the same. What users bring is made each time: how it is copied is theirs.
    """

    @functools.wraps(make)
    def made(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if _kept is None:
            return make(*args, **kwargs)
        key = (make, args, tuple(sorted(kwargs.items())))
        if key not in _kept:
            found = make(*args, **kwargs)
            if type(found).__module__.partition(".")[0] not in _OURS:
                return found
            _kept[key] = found
        return copy.copy(_kept[key])

    return made
