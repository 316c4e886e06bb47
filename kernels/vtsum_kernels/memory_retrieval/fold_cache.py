"""Folded constants kept between calls at inference, and dropped when what they were made of changes or goes away.

What is kept is known by the tensors it was made of: by identity (weak references), by their version counters, which
every in-place change raises, and by their memory, which assigning `.data` changes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Fake tensors, functional tensors and other wrappers have no memory to know them by.
_PLAIN = (torch.Tensor, torch.nn.Parameter)
#: How many folded tensors are kept at most; the oldest goes first.
MOST_KEPT = 16


class _Entry(NamedTuple):
    sources: tuple[weakref.ref[Tensor], ...]
    state: tuple[Any, ...]
    kind: tuple[Any, ...]
    folded: Tensor


_entries: list[_Entry] = []
_lock = threading.RLock()  # a tensor may go away, and _drop be called, while this very thread holds it


def _state(sources: tuple[Tensor, ...]) -> tuple[Any, ...]:
    return tuple((t.data_ptr(), t._version, t.shape, t.stride(), t.dtype) for t in sources)


def _drop(gone: weakref.ref[Tensor]) -> None:
    with _lock:
        _entries[:] = [entry for entry in _entries if all(ref is not gone for ref in entry.sources)]


def clear() -> None:
    """Forgets everything."""
    with _lock:
        _entries.clear()


def size() -> int:
    """How many folded tensors are kept."""
    return len(_entries)


def keeps(sources: tuple[Tensor, ...]) -> bool:
    """Whether what is folded of these tensors is kept for the next call.

    Nothing is where a gradient may be wanted, inside torch.compile and a CUDA graph that is being captured (which hold
    the folding itself: what they read must not go away), and for tensors made under inference_mode, which count no
    versions.
    """
    training = torch.is_grad_enabled() and any(t.requires_grad for t in sources)
    if torch.compiler.is_compiling() or training or any(type(t) not in _PLAIN or t.is_inference() for t in sources):
        return False
    return not (sources[0].is_cuda and torch.cuda.is_current_stream_capturing())


def folded(kind: tuple[Any, ...], sources: tuple[Tensor, ...], make: Callable[[], Tensor]) -> Tensor:
    """make(), or what it gave before for the same kind, the same sources and nothing changed in them."""
    if not keeps(sources):
        return make()
    state = _state(sources)
    with _lock:
        for entry in _entries:
            if _is_of(entry, kind, sources) and entry.state == state:
                return entry.folded
    with torch.no_grad():
        made = make()
    refs = tuple(weakref.ref(t, _drop) for t in sources)
    with _lock:
        others = [entry for entry in _entries if not _is_of(entry, kind, sources)]
        _entries[:] = [*others[-MOST_KEPT + 1 :], _Entry(refs, state, kind, made)]
    return made


def _is_of(entry: _Entry, kind: tuple[Any, ...], sources: tuple[Tensor, ...]) -> bool:
    same = entry.kind == kind and len(entry.sources) == len(sources)
    return same and all(ref() is t for ref, t in zip(entry.sources, sources, strict=True))
