"""What torch.utils.flop_counter counts for each op: the multiplications and additions of its products.

Shapes alone are known there: padding, masks and the ends of packed sequences take nothing off. The counter's module
loads Triton where it is installed, so the formulas are handed over when someone imports it, and not before.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from typing import Any

from .namespace import OPS

_COUNTER = "torch.utils.flop_counter"
Shape = Sequence[int]


def window_pairs(frames: int, left: int, right: int, dilation: int, shift: bool) -> int:
    """Pairs of a row and a key that it sees, in one sequence of `frames`."""
    if shift:  # each phase of `dilation` is a sequence; its rows see full windows, or all that there is
        short, longer = divmod(frames, dilation)
        return sum(
            count * length * min(left + right + 1, length)
            for count, length in ((longer, short + 1), (dilation - longer, short))
        )
    pairs, reach = frames, max(frames - 1, 0) // dilation
    for side in (left, right):
        steps = reach if side < 0 else min(side, reach)
        pairs += steps * frames - dilation * steps * (steps + 1) // 2
    return pairs


def _window(products: int, first: int) -> Callable[..., int]:
    """Each product multiplies D numbers for each pair; q is the argument `first`: 0 forward, 1 backward."""

    def count(*arguments: Any, **rest: Any) -> int:
        batch, heads, frames, dim = arguments[first]
        options = arguments[7:] if first == 0 else arguments[11:]
        return 2 * products * batch * heads * dim * window_pairs(frames, *options[:4])

    return count


def _whole_sequence(products: int, first: int) -> Callable[..., int]:
    def count(*arguments: Any, **rest: Any) -> int:
        batch, heads, frames, dim = arguments[first]
        return 2 * products * batch * heads * frames * frames * dim

    return count


def _read(first: int, keys: int, values: int) -> Callable[..., int]:
    """Products over all slots: so many with the keys and with the values. x is the argument `first`."""

    def count(*arguments: Any, **rest: Any) -> int:
        x, bank = arguments[first : first + 2]
        width = keys * x[3] + (values * arguments[first + 2][3] if values else 0)
        return int(2 * math.prod(x[:3]) * bank[2] * width)

    return count


def _choice(table: int) -> Callable[..., int]:
    """One product with each chosen slot; the index is argument 1."""

    def count(*arguments: Any, **rest: Any) -> int:
        return int(2 * math.prod(arguments[1]) * arguments[table][3])

    return count


def _matmul(a: Shape, b: Shape, **rest: Any) -> int:
    return int(2 * math.prod(a) * b[3])


def _join(x: Shape, weights: Shape, weight: Shape, *others: Any, **rest: Any) -> int:
    return 2 * x[0] * weight[0] * (x[1] + weights[1])


def _layer(x: Shape, keys: Shape, bank: Shape, weight: Shape, *others: Any, **rest: Any) -> int:
    return 2 * x[0] * (keys[0] * x[1] + weight[0] * (x[1] + keys[0]))


def _layer_backward(*arguments: Any, **rest: Any) -> int:
    x, keys, _, weight = arguments[2:6]
    want_x, want_keys, want_bank, want_weight, _, want_scale, want_slot_bias = map(bool, arguments[-1])
    of_keys, of_weight = (want_keys or want_scale) + want_x, want_weight + want_x
    of_bank = want_bank + (want_x or want_keys or want_scale or want_slot_bias)
    (rows, dim), slots, out = x, keys[0], weight[0]
    return int(2 * rows * (slots * dim * of_keys + out * dim * of_weight + out * slots * of_bank))


#: A backward pass computes again what the forward pass did not keep, and that is counted as it is for torch's own.
FORMULAS: dict[str, Callable[..., int]] = {
    "global_lse_fwd": _whole_sequence(1, 0),
    "global_lse_bwd": _whole_sequence(3, 2),
    "memory_topk": _read(0, 1, 0),
    "memory_gather": _choice(2),
    "memory_gather_dot": _choice(2),
    "memory_scatter": _choice(2),
    "memory_matmul": _matmul,
    "memory_layer_fwd": _layer,
    "memory_layer_bwd": _layer_backward,
}
for _suffix in ("", "_triton", "_blockwise"):
    FORMULAS |= {
        f"sliding_window_attention{_suffix}_fwd": _window(2, 0),
        f"sliding_window_attention{_suffix}_bwd": _window(5, 1),
    }
for _suffix in ("", "_triton"):
    FORMULAS |= {
        f"memory_weights{_suffix}_fwd": _read(0, 1, 0),
        f"memory_weights{_suffix}_bwd": _read(4, 2, 0),
        f"memory_flash{_suffix}_fwd": _read(0, 1, 1),
        f"memory_flash{_suffix}_bwd": _read(3, 3, 2),
        f"memory_join{_suffix}_fwd": _join,
    }


def _hand_over(counter: Any) -> None:
    for name, formula in FORMULAS.items():
        counter.register_flop_formula(getattr(OPS, name))(formula)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds the counter's module as others do, and hands the formulas over once it has run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != _COUNTER:
            return None
        at = sys.meta_path.index(self)
        del sys.meta_path[at]
        try:
            spec = importlib.util.find_spec(name)
        finally:  # it may have been asked for without being imported
            sys.meta_path.insert(at, self)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            sys.meta_path.remove(self)
            _hand_over(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Lets torch.utils.flop_counter count the ops."""
    if _COUNTER in sys.modules:
        _hand_over(sys.modules[_COUNTER])
    else:
        sys.meta_path.insert(0, _WhenImported())
