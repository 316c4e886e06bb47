"""What is built and installed: source distribution and wheel, failures, the record, what an import pulls."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import vtsum_kernels as vk

ROOT = Path(__file__).resolve().parents[2]
BUILD_SDIST = """
import os, sys
from setuptools import build_meta
os.chdir(sys.argv[1])
build_meta.build_sdist(sys.argv[2])
"""


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def sdist(tmp_path: Path) -> Path:
    """A source distribution of a copy of the sources, so that the working tree stays as it is."""
    source, out = tmp_path / "source", tmp_path / "sdist"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build.json", "*.egg-info", "assets")
    for folder in ("vtsum", "kernels", "csrc"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    (source / "vtsum" / "assets").mkdir()
    (source / "vtsum" / "assets" / "probe.bin").write_bytes(b"x")
    run(sys.executable, "-c", BUILD_SDIST, source, out)
    (made,) = out.glob("*.tar.gz")
    return made


def wheel(tmp_path: Path, **environment: str) -> Path:
    """A wheel of the source distribution, as `python -m build` makes it."""
    out = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    run(*pip, "-w", out, sdist(tmp_path), PIP_DISABLE_PIP_VERSION_CHECK="1", **environment)
    (made,) = out.glob("*.whl")
    return made


def test_without_a_compiler_the_wheel_is_built_all_the_same_and_says_why(tmp_path: Path) -> None:
    made = wheel(tmp_path, CXX="no-such-compiler")
    with tarfile.open(next((tmp_path / "sdist").glob("*.tar.gz"))) as whole:
        there = {name.partition("/")[2] for name in whole.getnames()}
    natives = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")}
    assert natives | {"setup.py", "pyproject.toml"} <= there
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
        record = json.loads(archive.read("vtsum_kernels/_build.json"))
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "vtsum = vtsum.cli:main" in archive.read(entry_points).decode()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        archive.extractall(tmp_path / "site")
    modules = {str(path.relative_to(ROOT / "kernels")) for path in (ROOT / "kernels" / "vtsum_kernels").rglob("*.py")}
    assert modules | {"vtsum/errors.py", "vtsum/assets/probe.bin", "vtsum_kernels/py.typed"} <= names
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


@pytest.mark.slow
def test_source_distribution_to_wheel_to_an_environment_of_its_own(tmp_path: Path) -> None:
    """What is compiled from a source distribution loads, and serves a call, where nothing of this tree is."""
    if shutil.which("c++") is None:
        pytest.skip("a C++ compiler is needed: c++ was not found")
    made = wheel(tmp_path, VTSUM_BUILD_CPP="1", VTSUM_BUILD_CUDA="0")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "torch.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", made)
    code = (
        "import torch, vtsum_kernels as vk; q = torch.randn(1, 2, 9, 8); print(vk.__file__); "
        "print(vk.build_info()['libraries']['_cpu']); print(vk.explain('sliding_window_attention', q, q, q, 3)); "
        "call = vk.sliding_window_attention; "
        "torch.testing.assert_close(call(q, q, q, 3, backend='cpp'), call(q, q, q, 3, backend='reference'))"
    )
    file, library, *told = run(python, "-I", "-c", code).splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert "'loaded': True" in library
    assert "-> cpp" in "\n".join(told)


def test_nvcc_takes_the_cores_that_units_leave_over(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = runpy.run_path(str(ROOT / "setup.py"), run_name="lists")["nvcc_threads"]
    monkeypatch.delenv("MAX_JOBS", raising=False)
    for cores, units, wanted in ((2, 30, 1), (59, 30, 1), (60, 30, 2), (500, 30, 4), (None, 30, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert threads(units, "8.0;9.0;10.0;12.0+PTX") == wanted
    monkeypatch.setattr(os, "cpu_count", lambda: 500)
    assert threads(30, "9.0") == 1
    monkeypatch.setenv("MAX_JOBS", "2")
    assert threads(30, "8.0;9.0") == 1


def setup(tmp_path: Path, *, torch_with_cuda: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Builds the libraries into tmp_path; what became of them is in tmp_path/lib/vtsum_kernels/_build.json."""
    code = "import sys, runpy; sys.argv[0] = 'setup.py'; "
    if torch_with_cuda:
        code += "import torch; torch.version.cuda = '12.8'; "
    code += "runpy.run_path('setup.py', run_name='__main__')"
    words = ["build_ext", "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    command, variables = [sys.executable, "-c", code, *words], {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


def program(path: Path, lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("-c", "the compilation failed: kernel.cpp:7:1: error: no luck (pip install -v shows all of it)"),
        ("-shared", "cannot link a library: kernel.cpp:7:1: error: no luck"),
    ],
)
def test_a_failed_build_says_the_first_error_and_is_loud_where_it_was_asked_for(
    tmp_path: Path, stage: str, reason: str
) -> None:
    """What cannot be linked is not compiled at all."""
    said = "echo 'In file included from a.h:1:'; echo 'kernel.cpp:7:1: error: no luck'; echo 'x.o y.o z.o: 1 error'"
    fail = f'case " $* " in *" {stage} "*) {{ {said}; }} >&2; exit 1;; esac'
    broken = str(program(tmp_path / "broken-c++", f'echo "$@" >> {tmp_path}/calls; {fail}; exec c++ "$@"'))
    done = setup(tmp_path, CXX=broken, VTSUM_BUILD_CUDA="0")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "lib" / "vtsum_kernels" / "_build.json").read_text())["libraries"]["_cpu"]
    assert record["built"] is False
    assert record["reason"].endswith(reason)
    assert f"vtsum_kernels._cpu: not built: {record['reason']}" in done.stdout
    assert (" -c " in (tmp_path / "calls").read_text()) == (stage == "-c")
    done = setup(tmp_path, CXX=broken, VTSUM_BUILD_CUDA="0", VTSUM_BUILD_CPP="1")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f"setup.py: VTSUM_BUILD_CPP=1, but {record['reason']}")


def test_the_toolkit_is_where_nvcc_says_and_is_tried_before_anything_is_compiled(tmp_path: Path) -> None:
    """The nvcc on the path starts another one: the folder above it is no toolkit."""
    home = tmp_path / "toolkit"
    program(home / "bin" / "nvcc", f'echo "#$ TOP={home}/bin/.." >&2; echo "release 12.8, V12.8.1"')
    program(tmp_path / "bin" / "nvcc", f'exec {home}/bin/nvcc "$@"')
    compiler = program(tmp_path / "told-c++", f'echo "$@" >> {tmp_path}/calls; exec c++ "$@"')
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CUDA_HOME": "", "CUDA_PATH": ""}
    wishes = {"VTSUM_BUILD_CPP": "0", "VTSUM_BUILD_CUDA": "1", "CXX": str(compiler)}
    done = setup(tmp_path, torch_with_cuda=True, **path, **wishes)
    assert done.returncode == 1
    assert "VTSUM_BUILD_CUDA=1, but" in done.stderr
    assert "cannot link a library" in done.stderr.splitlines()[-1]
    assert "cannot find -lcudart" in done.stderr.splitlines()[-1]
    calls = (tmp_path / "calls").read_text()
    assert f"-L{home}/lib64" in calls
    assert " -c " not in calls
    (home / "bin" / "nvcc").unlink()
    done = setup(tmp_path, torch_with_cuda=True, **{**path, "CUDA_HOME": str(home)}, **wishes)
    assert f"VTSUM_BUILD_CUDA=1, but nvcc was not found in {home}/bin" in done.stderr


def test_a_library_that_must_be_built_and_cannot_fails_loudly(tmp_path: Path) -> None:
    done = setup(tmp_path, CXX="no-such-compiler", VTSUM_BUILD_CPP="1", VTSUM_BUILD_CUDA="0")
    assert done.returncode != 0
    assert "VTSUM_BUILD_CPP=1, but no C++ compiler: no-such-compiler was not found" in done.stderr
    if torch.version.cuda is None:
        done = setup(tmp_path, VTSUM_BUILD_CPP="0", VTSUM_BUILD_CUDA="1")
        assert done.returncode != 0
        assert "VTSUM_BUILD_CUDA=1, but this torch" in done.stderr
    done = setup(tmp_path, VTSUM_BUILD_CPP="yes")
    assert done.returncode != 0
    assert "VTSUM_BUILD_CPP must be auto, 0 or 1, got yes" in done.stderr


def test_sources_that_are_not_whole_are_not_built(tmp_path: Path) -> None:
    """A wheel without kernels, from sources without csrc, would pass for a good one."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "lib"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "setup.py: csrc must lie beside setup.py: these sources are not whole" in done.stderr


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


def test_the_environment_is_told_without_the_video_extra() -> None:
    """With torch alone, `vtsum env` says what is missing; other commands say how to get it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["video"]
    modules = {"pillow": "PIL", "pyyaml": "yaml"}
    missing = [modules.get(name, name) for name in (line.split(">=")[0] for line in extras)]
    for command, status in (("env", 0), ("summarize", 2)):
        code = (
            f"import sys; sys.modules.update(dict.fromkeys({missing}, None)); sys.argv = ['vtsum', '{command}']; "
            "from vtsum.cli import main; sys.exit(main())"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        if status:
            assert done.stderr == "vtsum: typer must be installed: pip install vtsum[video]\n"
            continue
        assert "Traceback" not in done.stderr
        assert f"torch       {torch.__version__}" in done.stdout
        assert "libraries._cpu.loaded" in done.stdout
        assert "vtsum[video]" in done.stdout


def test_every_public_name_is_there_and_documented() -> None:
    for name in vk.__all__:
        assert getattr(vk, name).__doc__, name
