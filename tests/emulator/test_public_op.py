"""Calls of the public op that become others before a kernel sees them, on emulated CUDA kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
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


@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize("compiled", [False, True], ids=["", "compiled"])
def test_numbers_beyond_every_sequence_cost_and_say_nothing_more(compiled: bool, case: Any) -> None:
    says_nothing_more("cpp", compiled, case)


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_of_the_global_softmax(dtype: torch.dtype) -> None:
    global_is_as_exact_as_windowed("cpp", dtype)
