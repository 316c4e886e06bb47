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


@pytest.fixture(params=["reference", "cpp", *(pytest.param(b, marks=pytest.mark.gpu) for b in ("cuda", "triton"))])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend of the window op that takes every option. Those of a GPU have their test's tensors made there."""
    name = str(request.param)
    if name == "cpp":
        request.getfixturevalue("cpp")
    if name in ("reference", "cpp"):
        yield name
        return
    if name == "cuda" and not vtsum_kernels.build_info()["libraries"]["_cuda"]["loaded"]:
        pytest.skip(f"compiled CUDA kernels: {vtsum_kernels.build_info()['libraries']['_cuda']['reason']}")
    if torch.float64 in request.node.callspec.params.values():
        pytest.skip(f"{name} does not take float64")
    with torch.device("cuda"):
        yield name


@pytest.fixture
def cpp() -> None:
    """Skips where the compiled CPU kernels are not there, saying why."""
    library = vtsum_kernels.build_info()["libraries"]["_cpu"]
    if not library["loaded"]:
        pytest.skip(f"compiled CPU kernels: {library['reason']}")
