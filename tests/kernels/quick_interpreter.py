"""Triton's interpreter does some things anew for every operation that could be done once: more than half of its time.

What is computed stays the same, and so do all checks of it.
"""

from __future__ import annotations

import math
from typing import Any

import triton.language as tl
from triton.language import core
from triton.runtime import interpreter


def install() -> None:
    _patch_once()
    _keep_numpys_types()
    _keep_types_of_blocks()
    _keep_shapes()


def _patch_once() -> None:
    """The language is patched at a launch, and for functions that a kernel calls once more at every call."""
    patch_and_call, patched = interpreter.InterpretedFunction.__call__, set()

    def call(function: Any, *arguments: Any, **options: Any) -> Any:
        if function.fn in patched:
            return function.rewrite()(*arguments, **options)
        patched.add(function.fn)
        return patch_and_call(function, *arguments, **options)

    interpreter.InterpretedFunction.__call__ = call


def _keep_numpys_types() -> None:
    """The table of them is made for each look into it."""
    find = interpreter._get_np_dtype
    known: dict[str, Any] = {}

    def quick(of: Any) -> Any:
        scalar = of.element_ty if isinstance(of, tl.block_type) else of
        if isinstance(scalar, tl.pointer_type):
            return find(scalar)
        if (found := known.get(scalar.name)) is None:
            found = known[scalar.name] = find(scalar)
        return found

    interpreter._get_np_dtype = quick


def _keep_types_of_blocks() -> None:
    make = tl.block_type.__init__
    known: dict[Any, Any] = {}

    def quick(self: Any, element_ty: Any, shape: Any) -> None:
        key = (type(element_ty), element_ty.name, *[getattr(size, "value", size) for size in shape])
        if (found := known.get(key)) is None:
            make(self, element_ty, shape)
            known[key] = dict(self.__dict__)
        else:
            self.__dict__.update(found)

    tl.block_type.__init__ = quick


def _keep_shapes() -> None:
    """A tensor's shape and number of elements, constants of the language."""
    known: dict[Any, Any] = {}

    def quick(self: Any, handle: Any, type: Any) -> None:
        core.base_value.__init__(self)
        self.handle = handle
        sizes = tuple(type.shape.values) if type.is_block() else ()
        if (found := known.get(sizes)) is None:
            shape = core.tuple([core.constexpr(size) for size in sizes])
            found = known[sizes] = shape, core.constexpr(math.prod(sizes))
        self.shape, self.numel = found
        self.type = type
        self.dtype = type.scalar

    tl.tensor.__init__ = quick
