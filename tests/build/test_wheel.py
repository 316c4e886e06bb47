"""What `make wheel` makes is what others get: its names, and that it works where nothing of this tree is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="auditwheel names what Linux wheels run on"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler; on Debian: apt-get install g++"),
]
HERE = """
import sys
import vtsum_kernels as vk

def test_it_is_the_installed_package_with_its_kernels():
    assert vk.__file__.startswith(sys.prefix)
    assert vk.build_info()["libraries"]["_cpu"] == {"loaded": True, "reason": None}
"""


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> str:
    """Run a command as from a shell that knows nothing of this tree; returns what it said."""
    ours = ("PYTHON", "VTSUM_", "MAKE", "PIP_CONSTRAINT")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env={**inherited, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run("make", "-o", ".venv/.stamp-test", "wheel", f"BIN={Path(sys.executable).parent}", f"DIST={folder}")
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def environment(folder: Path, python: str = sys.executable) -> Path:
    """The Python of a new, empty environment."""
    run(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def test_the_names_say_what_it_runs_on_and_torch_is_not_inside(dist: Path, wheel: Path) -> None:
    assert len(list(dist.iterdir())) == 2
    (source,) = dist.glob("*.tar.gz")
    assert source.name == f"{wheel.name.split('-cp311')[0]}.tar.gz"
    named = re.search(r"-cp311-abi3-manylinux_2_(\d+)_(\w+)\.whl$", wheel.name)
    assert named is not None, wheel.name
    assert named[2] == platform.machine()
    assert int(named[1]) <= int(platform.libc_ver()[1].split(".")[1])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if ".so" in name] == ["vtsum_kernels/_cpu.abi3.so"]
    assert {"vtsum/py.typed", "vtsum_kernels/py.typed", "vtsum/assets/embedded/model.safetensors"} <= set(names)


def test_the_wheel_passes_tests_of_its_own_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    (tmp_path / "same").write_text(f"torch=={torch.__version__.partition('+')[0]}\n")
    run(python, "-m", "pip", "install", "-q", "-c", tmp_path / "same", wheel, "pytest", "hypothesis", "numpy")
    kept = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / "kernels", tmp_path / "tests" / "kernels", ignore=kept)
    for name in ("__init__.py", "conftest.py", "progress.py", "skips.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / "tests" / "kernels" / "test_here.py").write_text(HERE)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\nmarkers = slow\n")
    files = [f"tests/kernels/{name}.py" for name in ("test_here", "test_reference", "test_sliding_window_attention")]
    told = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, folder=tmp_path)
    assert re.search(r"^\d{2,} passed", told, re.MULTILINE), told
    report = run(tmp_path / "venv" / "bin" / "vtsum", "env", "--report", folder=tmp_path)
    assert "kernels.libraries._cpu.loaded: True" in report
    assert "libav: missing" in report


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_takes_the_wheel_and_compiles_all_of_it(wheel: Path, tmp_path: Path, version: str) -> None:
    """Without torch, of which there need not be a small build for each of them: the library holds nothing of Python."""
    found = shutil.which(f"python{version}")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"needs python{version}")
    python = environment(tmp_path / "venv", found)
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(python, "-W", "error", "-m", "compileall", "-q", f"{site}/vtsum", f"{site}/vtsum_kernels")
    told = run(tmp_path / "venv" / "bin" / "vtsum", "env", folder=tmp_path)
    assert f"python      {version}." in told
    assert "torch       missing: pip install torch" in told


@pytest.mark.parametrize("compiler", ["c++", "no-such-compiler"])
def test_the_sources_build_by_pip_alone(dist: Path, tmp_path: Path, compiler: str) -> None:
    """In isolation: pip gets what the build asks for, torch among it. Without a compiler, too, there is a wheel."""
    (source,) = dist.glob("*.tar.gz")
    (tmp_path / "same").write_text(f"torch=={torch.__version__.partition('+')[0]}\n")
    told = {"CXX": os.environ.get("CXX", "c++") if compiler == "c++" else compiler, "VTSUM_BUILD_CUDA": "0"}
    same = {"PIP_CONSTRAINT": str(tmp_path / "same"), "PIP_BUILD_CONSTRAINT": str(tmp_path / "same")}
    python = environment(tmp_path / "venv")
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "made", source, **told, **same)
    (made,) = (tmp_path / "made").glob("vtsum-*.whl")
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
    assert ("vtsum_kernels/_cpu.abi3.so" in names) == (compiler == "c++")
    assert {"vtsum_kernels/_build.json", "vtsum/cli.py"} <= names
