"""Where the emulator cannot be built, its tests say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vtsum_kernels import library

from tests.emulator.build import Unavailable, build_glue, compiler, cuda_include

#: The ops that the CUDA glue implements.
OPS = (
    *("sliding_window_attention_fwd", "sliding_window_attention_bwd"),
    *("memory_weights_fwd", "memory_weights_bwd", "memory_flash_fwd", "memory_flash_bwd", "memory_join_fwd"),
    *("memory_topk", "memory_gather", "memory_gather_dot", "memory_scatter"),
)


@pytest.fixture(scope="session")
def emulator() -> None:
    try:
        compiler(), cuda_include()
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def emulated(emulator: None) -> Any:
    """The ops' CUDA glue over emulated kernels, with the schemas of the registered ones."""
    definitions = torch.library.Library("vtsum_emulated", "FRAGMENT")
    for op in (*OPS, "sliding_window_attention_form"):
        schema = getattr(torch.ops.vtsum_kernels, op).default._schema
        definitions.define(str(schema).split("::", 1)[1])
    torch.ops.load_library(str(build_glue()))
    yield torch.ops.vtsum_emulated
    del definitions  # which would take the ops along


@pytest.fixture
def through_the_glue(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public window op's backend "cpp" is the CUDA glue over emulated kernels, forward and backward."""
    for passed in ("sliding_window_attention_fwd", "sliding_window_attention_bwd"):
        members = {"forward": staticmethod(_calls(getattr(emulated, passed)))}
        function = type(passed, (library._TRANSFORMED[passed],), members)
        monkeypatch.setitem(library._PLAIN, passed, function.apply)


def _calls(op: Any) -> Callable[..., Any]:
    return lambda *arguments: op(*arguments)
