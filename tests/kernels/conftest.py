"""Every test of the kernels runs with poisoned memory: what torch.empty returns is full of NaN."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch
import vtsum_kernels

from tests.kernels import pretended_gpu

if pretended_gpu.PRETENDED:
    pretended_gpu.install()


if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None:
    from tests.kernels import quick_interpreter

    quick_interpreter.install()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A GPU's tests that compile Triton's kernels, a second each, come last: where minutes end early, it is they that
    are missing."""
    items.sort(key=lambda item: item.get_closest_marker("gpu") is not None and "triton" in item.nodeid)


@pytest.fixture(autouse=True)
def gpu_settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU's tests take the first of Triton's sizes: trying all of them compiles ten kernels for one.

    Those of a pretended GPU have its tensors.
    """
    if request.node.get_closest_marker("gpu") is None:
        yield
        return
    monkeypatch.setenv("VTSUM_KERNELS_AUTOTUNE", "0")
    with pretended_gpu.pretending():
        yield


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
    """Each backend that takes every option, but for `top_k`. Those of a GPU have their test's tensors made there."""
    name = str(request.param)
    needs_library(name)
    if name in ("reference", "cpp"):
        yield name
        return
    params = request.node.callspec.params
    if torch.float64 in params.values():
        pytest.skip(f"{name} does not take float64")
    if name == "triton" and torch.float16 in params.values():
        pytest.skip("test_*triton*_numbers.py try float16 with every form; here each case compiles three kernels more")
    if name == "triton" and params.get("top_k") is not None:
        pytest.skip("Triton has no form of top_k")
    with torch.device("cuda"):
        yield name


def needs_library(backend: str) -> None:
    """Skips where a backend's library is not there, saying why."""
    name = {"cpp": "_cpu", "cuda": "_cuda"}.get(backend)
    if name is not None and not vtsum_kernels.build_info()["libraries"][name]["loaded"]:
        which = {"cpp": "CPU", "cuda": "CUDA"}[backend]
        pytest.skip(f"compiled {which} kernels: {vtsum_kernels.build_info()['libraries'][name]['reason']}")
    if backend == "triton" and importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed")


@pytest.fixture(params=["reference", "cpp"])
def cpu_backend(request: pytest.FixtureRequest) -> str:
    """Each backend of the CPU, for what is tried in float64."""
    needs_library(request.param)
    return str(request.param)


@pytest.fixture(params=["cpp", *(pytest.param(b, marks=pytest.mark.gpu) for b in ("cuda", "triton"))])
def compiled(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend of compiled kernels. Tensors are made on its device."""
    needs_library(request.param)
    with torch.device("cpu" if request.param == "cpp" else "cuda"):
        yield str(request.param)


@pytest.fixture(params=["cpp", pytest.param("cuda", marks=pytest.mark.gpu)])
def native(request: pytest.FixtureRequest) -> Iterator[str]:
    """Those of C++, which compile nothing for a call. Tensors are made on its device."""
    needs_library(request.param)
    with torch.device("cpu" if request.param == "cpp" else "cuda"):
        yield str(request.param)


@pytest.fixture(params=["cuda", "triton"])
def gpu_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend of a GPU, for tests that are marked gpu. Their tensors are made there."""
    needs_library(request.param)
    with torch.device("cuda"):
        yield str(request.param)


@pytest.fixture
def cpp() -> None:
    """Skips where the compiled CPU kernels are not there, saying why."""
    needs_library("cpp")


@pytest.fixture
def cuda() -> Iterator[None]:
    """Tensors are made on the GPU; skips where the compiled CUDA kernels are not there, saying why."""
    needs_library("cuda")
    with torch.device("cuda"):
        yield
