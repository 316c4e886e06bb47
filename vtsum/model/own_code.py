"""Code that a stranger's checkpoint asks transformers for: none is run, whoever says yes to it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

_reading = ContextVar("reading a stranger's checkpoint", default=False)


@contextmanager
def nobody_is_asked() -> Iterator[None]:
    """Within, transformers asks nobody whether code may be run: of parts of a checkpoint it does not know what it was
    told of the whole, and takes a "y" on standard input for consent. Nor does it fetch kernels from the hub. Who loads
    other models meanwhile is asked, and gets them."""
    from transformers import dynamic_module_utils

    def ask(question: str) -> str:
        if _reading.get():
            raise ValueError("it asks for code of its own")
        return input(question)

    setattr(dynamic_module_utils, "input", ask)  # noqa: B010  # before Python's own, by which it asks
    _keep_kernels_away()
    before = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(before)


def _keep_kernels_away() -> None:
    """From now on no kernel is fetched from the hub while a stranger's checkpoint is read. Where the package `kernels`
    is installed, a configuration has transformers fetch and import one by a name without a slash, too: for
    flash_attention_2 where flash_attn is missing, or for experts."""
    with contextlib.suppress(Exception):  # not installed, or not as transformers would have it: it has none either
        import_module("kernels")
    for module, name in (("kernels", "get_kernel"), ("transformers.integrations.hub_kernels", "get_kernel_hub")):
        fetch = getattr(sys.modules.get(module), name, None)
        if fetch is not None and not isinstance(fetch, _Fetch):
            setattr(sys.modules[module], name, _Fetch(fetch))


class _Fetch:
    """What fetches a kernel, but while a stranger's checkpoint is read."""

    def __init__(self, fetch: Callable[..., Any]) -> None:
        self._fetch = fetch

    def __call__(self, *words: Any, **options: Any) -> Any:
        if _reading.get():
            raise ValueError("it asks for a kernel from the hub, whose code is never run")
        return self._fetch(*words, **options)
