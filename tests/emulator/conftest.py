"""Where the emulator cannot be built, its tests say what is missing."""

from __future__ import annotations

import pytest

from tests.emulator.build import Unavailable, compiler, cuda_include


@pytest.fixture(scope="session")
def emulator() -> None:
    try:
        compiler(), cuda_include()
    except Unavailable as why:
        pytest.skip(str(why))
