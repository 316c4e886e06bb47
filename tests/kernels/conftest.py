"""Every test of the kernels runs with poisoned memory: what torch.empty returns is full of NaN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import vtsum_kernels


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """A kernel that leaves an element of its output unwritten, or reads scratch it did not write, shows it."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture
def cpp() -> None:
    """Skips where the compiled CPU kernels are not there, saying why."""
    library = vtsum_kernels.build_info()["libraries"]["_cpu"]
    if not library["loaded"]:
        pytest.skip(f"compiled CPU kernels: {library['reason']}")
