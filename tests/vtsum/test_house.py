"""The house itself: set-up once and no more, tested versions for every dependency, and a strict account of skips."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.skips import refused

ROOT = Path(__file__).resolve().parents[2]

# Stands in for Python: records how it is called, and makes a .venv whose programs are itself.
FAKE_PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
"-m venv .venv") mkdir -p .venv/bin; for name in python vtsum; do cp "$0" .venv/bin/$name; done ;;
"summarize "*) mkdir -p "$4"; echo done > "$4/summary.mp4" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder, with a space in its name, that holds the Makefile, what its stamps depend on, and a film."""
    folder = tmp_path / "a clone"
    for name in ("csrc/cpu/a.cpp", "setup.py", "vtsum/assets/film.mp4", "my holiday.film.mkv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "fake-python").write_text(FAKE_PYTHON)
    (folder / "fake-python").chmod(0o755)
    return folder


@pytest.fixture
def make(clone: Path, needs_program: Callable[[str], str]) -> Callable[..., tuple[str, list[str]]]:
    program = needs_program("make")

    def run(*arguments: str) -> tuple[str, list[str]]:
        """Output of `make`, and the calls it made to Python."""
        calls = clone / "calls"
        calls.write_text("")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        done = subprocess.run(
            [program, f"PYTHON={clone / 'fake-python'}", *arguments],
            cwd=clone,
            env=inherited | {"CALLS": str(calls)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, calls.read_text().splitlines()

    return run


def set_up(calls: list[str]) -> list[str]:
    return [call for call in calls if " pip " in call or " venv " in call]


def test_demo_sets_up_once_and_says_where_the_summary_is(make, clone):
    output, calls = make("demo")
    assert [re.search(r"torch|--editable|vtsum\[[\w,]+\]|venv", call)[0] for call in set_up(calls)] == [
        "venv",
        "torch",
        "--editable",
        "vtsum[video,speech,ocr]",
    ]
    assert all("--constraint constraints.txt" in call for call in calls if " pip " in call)
    assert calls[-1] == "vtsum summarize vtsum/assets/film.mp4 -o out/film_summary --overwrite"
    assert output.splitlines()[-2].endswith(str(clone / "out/film_summary/summary.mp4"))
    assert output.splitlines()[-1].endswith(str(clone / "out/film_summary/report.html"))
    _, again = make("demo")
    assert again == ["vtsum summarize vtsum/assets/film.mp4 -o out/film_summary --overwrite"]


def test_demo_takes_any_file_name(make, clone):
    output, calls = make("demo", "VIDEO=my holiday.film.mkv")
    assert calls[-1] == "vtsum summarize my holiday.film.mkv -o out/my holiday.film_summary --overwrite"
    assert str(clone / "out/my holiday.film_summary/report.html") in output


def test_tests_build_upon_the_demo_and_sources_rebuild(make, clone):
    make("demo")
    _, calls = make("test")
    assert [call for call in set_up(calls) if "vtsum[dev]" not in call] == []
    assert "-m pytest" in calls[-1]
    later = (clone / ".venv/.stamp-test").stat().st_mtime + 10
    os.utime(clone / "csrc/cpu/a.cpp", (later, later))
    _, calls = make("test")
    assert any("--editable ." in call for call in set_up(calls))


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    lines += [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "vtsum"]


def test_every_dependency_has_a_tested_version_that_it_allows():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    tested = dict(line.split("==") for line in lines if line)
    missing = [str(r) for r in requirements() if r.name.lower() not in tested]
    refused_versions = [str(r) for r in requirements() if not r.specifier.contains(tested.get(r.name.lower(), "0"))]
    assert (missing, refused_versions) == ([], [])


SKIPPING = """
import pytest

@pytest.mark.gpu
def test_needs_a_device():
    pytest.skip("needs a CUDA device")

def test_needs_a_program(needs_program):
    needs_program("chromium")

@pytest.mark.xfail(strict=True)
def test_known_failure():
    raise RuntimeError

def test_that_passes():
    pass
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_every_skip_is_reported_and_only_gpu_tests_may(tmp_path, processes):
    for name in ("__init__.py", "conftest.py", "skips.py", "progress.py"):
        (tmp_path / "tests" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "tests" / name).write_bytes((ROOT / "tests" / name).read_bytes())
    (tmp_path / "tests/test_some.py").write_text(SKIPPING)
    (tmp_path / "tests/test_whole.py").write_text('import pytest\npytest.importorskip("nonesuch")\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib --strict-markers\n")
    report = tmp_path / "skips"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", str(processes), "tests"],
        cwd=tmp_path,
        env={**os.environ, "VTSUM_SKIP_REPORT": str(report), "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout, done.stdout + done.stderr
    assert sorted(refused(report)) == [
        "tests/test_some.py::test_needs_a_program: needs chromium; on Debian: apt-get install chromium",
        "tests/test_whole.py: could not import 'nonesuch': No module named 'nonesuch'",
    ]
    check = [sys.executable, str(ROOT / "tests/skips.py"), str(report)]
    assert subprocess.run(check, capture_output=True, text=True).returncode == 1
    report.write_text('{"test": "a", "reason": "needs a CUDA device", "gpu": true}\n')
    assert subprocess.run(check, capture_output=True, text=True).returncode == 0


def test_every_environment_variable_is_documented():
    """docs/environment.md lists all that the code names, and nothing else."""
    endings = {".py", ".cpp", ".cu", ".h", ".cuh"}
    folders = ("vtsum", "kernels", "csrc", "bench", "tests")
    code = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in endings]
    name = re.compile(r"\bVTSUM_[A-Z][A-Z_]*\b")
    used: set[str] = set()
    for path in (*code, ROOT / "setup.py", ROOT / "Makefile", ROOT / ".ci" / "run"):
        used |= set(name.findall(path.read_text(encoding="utf-8")))
    listed = re.findall(r"^\| `(VTSUM_\w+)` \|", (ROOT / "docs" / "environment.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(used)
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    assert set(name.findall(text)) <= set(listed)


def test_what_security_md_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py|test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert [name for name in sorted(named) if not ((ROOT / name).is_file() or f"def {name}(" in code)] == []
