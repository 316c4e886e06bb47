"""Calls of the public op that become others before a kernel sees them, on emulated CUDA kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels import library

from tests.kernels.window_calls import (
    BEYOND,
    FEWER_QUERIES,
    compare,
    global_is_as_exact_as_windowed,
    says_nothing_more,
)

pytestmark = [
    pytest.mark.usefixtures("through_the_glue"),
    pytest.mark.skipif(library.refusal("_cpu") is not None, reason="the backend they take the place of is not built"),
]
HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("options", FEWER_QUERIES.values(), ids=FEWER_QUERIES)
def test_more_keys_than_queries(options: dict[str, Any]) -> None:
    compare("cpp", torch.float32, **options)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("sides", [(12, 0), (40, 3)])
def test_more_keys_than_queries_by_tensor_cores(dtype: torch.dtype, sides: tuple[int, int]) -> None:
    compare("cpp", dtype, shape=(2, 2, 50, 16), queries=9, sides=sides)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("sides", [(2, 2), (12, 4)])
def test_sums_over_rows_are_not_rounded(dtype: torch.dtype, sides: tuple[int, int], with_bias: bool) -> None:
    """Those of sinks, of a bias beside them; by the ring, by tensor cores and by the general kernels."""
    sinks = torch.tensor([0.5, -1.0])
    compare("cpp", dtype, shape=(1, 2, 40, 32), sides=sides, with_bias=with_bias, sinks=sinks)


@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize("compiled", [False, True], ids=["", "compiled"])
def test_numbers_beyond_every_sequence_cost_and_say_nothing_more(compiled: bool, case: Any) -> None:
    says_nothing_more("cpp", compiled, case)


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_of_the_global_softmax(dtype: torch.dtype) -> None:
    global_is_as_exact_as_windowed("cpp", dtype)


def test_tensors_on_two_devices_are_refused(emulated: Any) -> None:
    """Every tensor of the registered ops is looked at, whichever stands on another device."""
    q, lse, ends = torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9), torch.tensor([0, 9], dtype=torch.int32)
    given = {"q": q, "k": q, "v": q, "key_mask": torch.ones(1, 9) > 0, "cu_seqlens": ends, "bias": torch.zeros(2, 3)}
    given["seed"] = torch.ones(1, dtype=torch.int64)
    options, variants = (1, 1, 1, False, 0.5, 0.1, 0), {"sinks": torch.zeros(2)}
    backward = {"dout": q, **given, "dlse": lse, "out": q, "lse": lse}
    for op, tensors, rest in (("fwd", given, (*options, True)), ("bwd", backward, options)):
        call = getattr(emulated, f"sliding_window_attention_{op}")
        call(*tensors.values(), *rest, variants["sinks"])
        for name in (*tensors, "sinks"):
            wrong: list[Tensor] = [x.to("meta") if name == key else x for key, x in (tensors | variants).items()]
            with pytest.raises(RuntimeError, match=rf"attention_{op}: \w+ must be on the device of \w+, .+, got .+"):
                call(*wrong[:-1], *rest, wrong[-1])
