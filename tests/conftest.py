"""What every test has at hand: the optional shared data, programs of the system, seeds, and a strict account of skips.

Environment: VTSUM_SHARED names the folder of shared test data (else ../shared beside the repository is looked for);
VTSUM_SKIP_REPORT names a file to which every skipped test is written, for .ci/run.
"""

from __future__ import annotations

import os

# Before torch is imported: two processes with two threads each on two cores only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before huggingface_hub is: no test asks the hub on the net for anything.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gc
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `tests.` and for this very `vtsum`, wherever pytest was started
from tests.progress import ProgressBar  # noqa: E402
from tests.skips import SkipReport  # noqa: E402

PACKAGES = {"chromium": "chromium", "espeak-ng": "espeak-ng", "java": "default-jre-headless", "make": "make"}
"""Programs that a test may want, and the Debian package each comes in."""

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped without one")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # So a shell starts what runs in its background, and programs that tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return  # the process that the workers report to counts and draws
    if path := os.environ.get("VTSUM_SKIP_REPORT"):
        config.pluginmanager.register(SkipReport(Path(path)), "skip-report")
    if ProgressBar.wanted(config):
        config.pluginmanager.register(ProgressBar(config), "progress-bar")


#: Files with tests that take a minute or so.
LONG = (
    *("bench/test_gpu_check.py", "kernels/test_triton.py", "kernels/test_pretended_gpu.py"),
    *("vtsum/test_training_sharded.py", "vtsum/test_walkthrough.py", "vtsum/test_training_launch.py"),
    *("build/test_cpu_sanitizers.py", "build/test_hub_layout.py", "emulator/test_sanitizers.py"),
    *("vtsum/test_planted.py", "vtsum/test_batch.py"),
    *("vtsum/test_sequence_parallel.py", "vtsum/test_sequence_parallel_training.py"),
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those begin first: begun last, one of them keeps a processor busy long after the others have nothing to do."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))


def pytest_collection_finish() -> None:
    """What is there by now stays: without this each look for garbage goes through all of PyTorch's and the tests' own
    objects, half a second or more, and libraries ask for many."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every run, whatever the order of the tests."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test data; tests that use it are skipped where it is missing."""
    path = Path(os.environ.get("VTSUM_SHARED") or ROOT.parent / "shared").resolve()
    if not path.is_dir():
        pytest.skip(f"needs the shared test data, not found at {path}; set VTSUM_SHARED to its folder")
    return path


@pytest.fixture(scope="session")
def needs_program() -> Callable[[str], str]:
    """A function from a program's name to its path; the test is skipped where the program is not installed."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"needs {name}; on Debian: apt-get install {PACKAGES[name]}")
        return path

    return find
