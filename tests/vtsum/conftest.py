"""What tests of several files are given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.once import once
from tests.vtsum.chromium import Browser
from tests.vtsum.clips import numbered_scene, write_clip
from tests.vtsum.fakes import deafen
from tests.vtsum.samples import small_clip

if os.environ.get("VTSUM_PRETENDED_GPU") == "1":
    from tests.kernels import pretended_gpu

    pretended_gpu.install()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "small.mp4", small_clip)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of ten seconds, ten numbered pictures a second."""
    return once(
        tmp_path_factory,
        "scenes.mp4",
        lambda path: write_clip(path, [n / 10 for n in range(300)], numbered_scene, rate=10, gop=10),
    )


@pytest.fixture(scope="session")
def browser(needs_program: Callable[[str], str]) -> Iterator[Browser]:
    """One browser for the tests of all pages; each opens its own."""
    needs_program("chromium")
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def nobody_listens() -> Iterator[None]:
    """For tests of all else; what is heard is tested in test_listening."""
    with pytest.MonkeyPatch.context() as patch:
        deafen(patch)
        yield
