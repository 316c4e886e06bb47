"""What is built and installed: the wheel, the fallback without a compiler, the record, what an import pulls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import vtsum_kernels as vk

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def wheel(tmp_path: Path, **environment: str) -> Path:
    """A wheel of a copy of the sources, so that the working tree stays as it is."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build.json", "*.egg-info", "assets")
    for folder in ("vtsum", "kernels", "csrc"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    (source / "vtsum" / "assets").mkdir()
    (source / "vtsum" / "assets" / "probe.bin").write_bytes(b"x")
    out = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    run(*pip, "-w", out, source, PIP_DISABLE_PIP_VERSION_CHECK="1", **environment)
    (made,) = out.glob("*.whl")
    return made


def test_without_a_compiler_the_wheel_is_built_all_the_same_and_says_why(tmp_path: Path) -> None:
    made = wheel(tmp_path, CXX="no-such-compiler")
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
        record = json.loads(archive.read("vtsum_kernels/_build.json"))
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "vtsum = vtsum.cli:main" in archive.read(entry_points).decode()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        archive.extractall(tmp_path / "site")
    for wanted in (
        "vtsum/errors.py",
        "vtsum/assets/probe.bin",
        "vtsum/summary/templates/report.html.j2",
        "vtsum_kernels/__init__.py",
        "vtsum_kernels/nn/__init__.py",
        "vtsum_kernels/py.typed",
        "vtsum_kernels/sliding_window_attention/reference.py",
        "vtsum_kernels/memory_fuse/fold.py",
    ):
        assert wanted in names
    assert not [
        name for name in names if name.endswith((".so", ".cpp", ".cu")) or name.startswith(("tests", "kernels"))
    ]
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required == ["Requires-Dist: torch>=2.11"]
    library = record["libraries"]["_cpu"]
    assert library["built"] is False
    assert "no C++ compiler: no-such-compiler was not found" in library["reason"]
    code = (
        "import torch, vtsum_kernels as vk; q = torch.randn(1, 2, 9, 8); "
        "out = vk.sliding_window_attention(q, q, q, 3); assert out.isfinite().all(); "
        "print(vk.__file__); print(vk.build_info()['libraries']['_cpu']); "
        "print(vk.explain('sliding_window_attention', q, q, q, 3))"
    )
    text = run(sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}")
    assert str(tmp_path / "site") in text
    assert "no C++ compiler: no-such-compiler was not found" in text
    assert "-> reference" in text


def test_a_library_that_must_be_built_and_cannot_fails_loudly(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    environment = {**os.environ, "CXX": "no-such-compiler", "VTSUM_BUILD_CPP": "1", "VTSUM_BUILD_CUDA": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "VTSUM_BUILD_CPP=1, but no C++ compiler: no-such-compiler was not found" in done.stderr
    if torch.version.cuda is None:
        environment = {**os.environ, "VTSUM_BUILD_CPP": "0", "VTSUM_BUILD_CUDA": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode != 0
        assert "VTSUM_BUILD_CUDA=1, but this torch" in done.stderr
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "VTSUM_BUILD_CPP": "yes"}, capture_output=True, text=True
    )
    assert "VTSUM_BUILD_CPP must be auto, 0 or 1, got yes" in done.stderr


def test_the_record_says_what_was_built_and_what_is_loaded() -> None:
    info = vk.build_info()
    assert info["torch"] == torch.__version__
    assert set(info["libraries"]) == {"_cpu", "_cuda"}
    for name, entry in info["libraries"].items():
        assert entry["loaded"] == (entry["reason"] is None), name
    if not info["libraries"]["_cpu"]["loaded"]:
        pytest.skip(f"compiled CPU kernels: {info['libraries']['_cpu']['reason']}")
    built = info["build"]["libraries"]["_cpu"]
    assert built["built"] is True
    assert "-O3" in built["flags"]
    assert not [flag for flag in built["flags"] if flag.startswith("-march")]
    assert "-DTORCH_TARGET_VERSION=0x020b000000000000" in built["flags"]
    assert info["cpu_level"] in built["levels"]


def test_the_compiled_library_holds_nothing_of_python() -> None:
    files = list(Path(vk.__file__).parent.glob("_cpu.*so"))
    if not files:
        pytest.skip("the compiled CPU kernels were not built")
    if shutil.which("nm") is None:
        pytest.skip("nm was not found (Debian package binutils)")
    symbols = run("nm", "-D", "--undefined-only", files[0])
    assert not [line for line in symbols.splitlines() if line.split()[-1].startswith(("Py", "_Py"))]
    # at:: and c10:: symbols would tie it to one version of torch.
    assert not [line for line in symbols.splitlines() if "_ZN2at" in line or "_ZN3c10" in line]


def test_importing_the_kernels_pulls_torch_and_nothing_else() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import vtsum_kernels, vtsum_kernels.nn; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    standard = set(sys.stdlib_module_names)
    pulled = {name for name in run(sys.executable, "-c", code).split() if name not in standard}
    assert pulled <= {"vtsum_kernels", "torch"}, pulled


def test_every_public_name_is_there_and_documented() -> None:
    for name in vk.__all__:
        assert getattr(vk, name).__doc__, name
