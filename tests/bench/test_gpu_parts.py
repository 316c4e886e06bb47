"""The parts that build and test for the GPU check: made-up trees that build, fail, hang; tests that break the GPU."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import build, tests
from bench.gpu.stage import Context, Done, Line
from bench.kit.record import read

ROOT = Path(__file__).resolve().parents[2]
#: A setup.py that does as BEHAVIOUR says for a library, and writes the record that the real one writes.
SETUP = """
import argparse, json, os, sys, time
from pathlib import Path
from typing import Any
parser = argparse.ArgumentParser()
parser.add_argument("command")
parser.add_argument("--build-lib", type=Path)
parser.add_argument("--build-temp", type=Path)
options = parser.parse_args()
behaviour = json.loads(Path("behaviour.json").read_text())
folder = options.build_lib / "vtsum_kernels"
folder.mkdir(parents=True, exist_ok=True)
record = {"libraries": {}}
for name, variable in (("_cpu", "VTSUM_BUILD_CPP"), ("_cuda", "VTSUM_BUILD_CUDA")):
    entry = record["libraries"][name] = {"built": False, "reason": f"left out: {variable}=0"}
    if os.environ[variable] == "0":
        continue
    if behaviour[name] == "hangs":
        time.sleep(600)
    if behaviour[name] == "fails":
        entry["reason"] = "the compilation failed: kernel.cu(12): error: no such thing\\nmore of it"
        continue
    if behaviour[name] == "crashes":
        sys.exit("no torch here")
    entry.update(built=True, file=f"{name}.abi3.so", compiler="a compiler", torch="2.11")
    del entry["reason"]
    if name == "_cuda":
        entry["architectures"] = os.environ["TORCH_CUDA_ARCH_LIST"]
    (folder / f"{name}.abi3.so").write_text(f"new {name}")
(folder / "_build.json").write_text(json.dumps(record))
"""
PACKAGE = """
import json
from pathlib import Path
from typing import Any
def build_info():
    here = Path(__file__).parent
    found = {name: (here / f"{name}.abi3.so").is_file() for name in ("_cpu", "_cuda")}
    return {"libraries": {n: {"loaded": there, "reason": None if there else "not built"} for n, there in found.items()}}
"""


def context(tmp_path: Path, seconds: float = 300.0, dry_run: bool = False) -> Context:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    device = "cpu" if dry_run else "cuda"
    return Context(
        out, device, dry_run, time.monotonic() + seconds, False, {"capability": "9.0"}, tmp_path / "scratch", "now"
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of next to nothing, with libraries of an earlier build."""
    root = tmp_path / "tree"
    package = root / "kernels" / "vtsum_kernels"
    package.mkdir(parents=True)
    (root / "setup.py").write_text(SETUP)
    (package / "__init__.py").write_text(PACKAGE)
    for name in ("_cpu", "_cuda"):
        (package / f"{name}.abi3.so").write_text(f"old {name}")
    return root


def built(tree: Path, where: Context, cpu: str, cuda: str) -> dict[str, Line]:
    (tree / "behaviour.json").write_text(json.dumps({"_cpu": cpu, "_cuda": cuda}))
    return {line.check: line for line in build.run(where, tree)}


def test_both_libraries_are_built_for_this_gpu_and_put_into_the_tree(tree: Path, tmp_path: Path) -> None:
    lines = built(tree, context(tmp_path), "builds", "builds")
    assert {name: line.result for name, line in lines.items()} == dict.fromkeys(
        ("build _cpu", "build _cuda", "load _cpu", "load _cuda"), "ok"
    )
    assert "for 9.0, a compiler, torch 2.11" in lines["build _cuda"].detail
    package = tree / "kernels" / "vtsum_kernels"
    assert (package / "_cuda.abi3.so").read_text() == "new _cuda"
    assert (package / "_cpu.abi3.so").read_text() == "new _cpu"
    record = json.loads((package / "_build.json").read_text())
    assert record["libraries"]["_cuda"]["architectures"] == "9.0"
    assert record["libraries"]["_cpu"]["built"]
    assert record["platform"]
    assert {path.name for path in package.iterdir()} - {"__pycache__"} == {
        "__init__.py",
        "_build.json",
        "_cpu.abi3.so",
        "_cuda.abi3.so",
    }


@pytest.mark.parametrize(
    ("cuda", "detail"),
    [
        ("fails", "the compilation failed: kernel.cu(12): error: no such thing"),
        ("crashes", "setup.py: status 1: no torch here"),
    ],
)
def test_what_cannot_be_built_is_said_and_its_old_library_goes(
    tree: Path, tmp_path: Path, cuda: str, detail: str
) -> None:
    where = context(tmp_path)
    lines = built(tree, where, "builds", cuda)
    assert lines["build _cuda"] == Line("build _cuda", "failed", detail)
    assert lines["load _cuda"] == Line("load _cuda", "failed", "not built")
    assert lines["build _cpu"].result == lines["load _cpu"].result == "ok"
    package = tree / "kernels" / "vtsum_kernels"
    assert not (package / "_cuda.abi3.so").exists()
    assert json.loads((package / "_build.json").read_text())["libraries"]["_cuda"]["built"] is False
    assert "no torch here" in (where.out / "log.txt").read_text() or cuda == "fails"


def test_a_build_that_takes_too_long_is_ended_and_the_other_one_stands(tree: Path, tmp_path: Path) -> None:
    lines = built(tree, context(tmp_path, seconds=4), "builds", "hangs")
    assert lines["build _cuda"].result == "failed"
    assert "all the time it had" in lines["build _cuda"].detail
    assert lines["build _cpu"].result == "ok"
    package = tree / "kernels" / "vtsum_kernels"
    assert (package / "_cpu.abi3.so").read_text() == "new _cpu"
    assert not (package / "_cuda.abi3.so").exists()


def test_a_dry_run_leaves_the_tree_as_it_is(tree: Path, tmp_path: Path) -> None:
    lines = built(tree, context(tmp_path, dry_run=True), "builds", "builds")
    assert lines["build _cuda"] == Line("build _cuda", "skipped", "left out: VTSUM_BUILD_CUDA=0")
    package = tree / "kernels" / "vtsum_kernels"
    assert (package / "_cuda.abi3.so").read_text() == "old _cuda"
    assert not (package / "_build.json").exists()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for tests, and a GPU that breaks when a test says so."""
    root = tmp_path / "tree"
    (root / "tests").mkdir(parents=True)
    (root / "tests" / "conftest.py").write_text(
        """
import os
from pathlib import Path
from typing import Any
import pytest
from bench.gpu import pytest_plugin

BROKEN = []
pytest_plugin.gpu_is_broken = lambda: bool(BROKEN)

@pytest.fixture
def breaks():
    return lambda: BROKEN.append(True)

@pytest.fixture(autouse=True)
def ran(request):
    with Path("ran.txt").open("a") as file:
        file.write(f"{request.node.nodeid} {os.getpid()}\\n")
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(tests, "PROCESSES", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    return root


def ran(suite: Path) -> list[str]:
    return [line.split()[0] for line in (suite / "ran.txt").read_text().splitlines()]


def run_suite(suite: Path, where: Context) -> dict[str, Line]:
    return {line.check: line for line in tests.by_pytest(where, ["tests"], {}, suite)}


@pytest.fixture(params=["xdist", "one process"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many run the tests; one where pytest-xdist is not installed."""
    if request.param == "xdist":
        return 2
    monkeypatch.setattr(tests, "find_spec", lambda name: None)
    return 1


def without_xdist(lines: dict[str, Line], processes: int) -> dict[str, Line]:
    """The lines but the one that says that there is no xdist, which is there where there is none."""
    said = lines.pop("tests in parallel", None)
    assert (said is None) == (processes > 1)
    assert said is None or said.result == "absent"
    return lines


def test_each_test_runs_once_and_its_result_stands(suite: Path, tmp_path: Path, processes: int) -> None:
    (suite / "tests" / "test_many.py").write_text(
        "import pytest, time\n\n@pytest.mark.parametrize('i', range(24))\ndef test_it(i):\n    time.sleep(0.1)\n"
    )
    (suite / "tests" / "test_mixed.py").write_text(
        "import pytest\n\ndef test_right():\n    pass\n\ndef test_wrong():\n    assert 1 + 1 == 3, 'sums are off'\n\n"
        "def test_left():\n    pytest.skip('needs more')\n\n"
        "@pytest.fixture\ndef late():\n    yield\n    raise ValueError('torn down badly')\n\n"
        "def test_late(late):\n    pass\n\n"
        "@pytest.mark.xfail\ndef test_expected():\n    assert False\n"
    )
    (suite / "tests" / "test_lacks.py").write_text("import no_such_package\n\ndef test_it():\n    pass\n")
    (suite / "tests" / "test_wrong_import.py").write_text("import no_such_package.x as\n")
    (suite / "tests" / "test_skipped_whole.py").write_text(
        "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    )
    where = context(tmp_path)
    lines = without_xdist(run_suite(suite, where), processes)
    assert len(ran(suite)) == len(set(ran(suite))) == 29
    assert len({line.split()[1] for line in (suite / "ran.txt").read_text().splitlines()}) == processes
    many = lines["tests/test_many.py"]
    assert many.result == "ok"
    assert many.detail.startswith("24 passed in ")
    mixed = lines["tests/test_mixed.py"]
    assert mixed.result == "failed"
    assert "2 passed, 2 failed, 1 skipped; test_" in mixed.detail
    assert "sums are off" in mixed.detail or "torn down badly" in mixed.detail
    assert lines["tests/test_lacks.py"].result == "absent"
    assert "No module named 'no_such_package'" in lines["tests/test_lacks.py"].detail
    assert lines["tests/test_wrong_import.py"].result == "failed"
    skipped = lines["tests/test_skipped_whole.py"]
    assert (skipped.result, skipped.detail.split("; ")[1]) == ("absent", "not here")
    assert "all tests" not in lines
    text = (where.out / "tests.txt").read_text()
    assert "sums are off" in text
    assert "torn down badly" in text


def test_an_error_that_breaks_the_gpu_leaves_the_other_tests_to_a_new_process(
    suite: Path, tmp_path: Path, processes: int
) -> None:
    (suite / "tests" / "test_break.py").write_text(
        "import pytest\n\n@pytest.mark.parametrize('i', range(12))\ndef test_it(i, breaks):\n    if i == 3:\n"
        "        breaks()\n        raise RuntimeError('CUDA error: illegal access')\n"
    )
    lines = without_xdist(run_suite(suite, context(tmp_path)), processes)
    line = lines.pop("tests/test_break.py")
    assert line.result == "failed", (line.detail, (suite / "ran.txt").read_text())
    assert line.detail == "11 passed, 1 failed; test_it[3]: RuntimeError: CUDA error: illegal access"
    assert sorted(ran(suite)) == sorted(f"tests/test_break.py::test_it[{i}]" for i in range(12))
    pids = dict(line.split() for line in (suite / "ran.txt").read_text().splitlines())
    assert pids["tests/test_break.py::test_it[3]"] != pids["tests/test_break.py::test_it[11]"]
    assert not lines


def test_a_process_that_dies_names_its_test_and_the_others_run(suite: Path, tmp_path: Path, processes: int) -> None:
    (suite / "tests" / "test_die.py").write_text(
        "import os, signal, time, pytest\n\n@pytest.mark.parametrize('i', range(12))\ndef test_it(i):\n    if i == 3:\n"
        "        time.sleep(2)  # what passed before is on its way\n        os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    lines = without_xdist(run_suite(suite, context(tmp_path)), processes)
    line = lines.pop("tests/test_die.py")
    assert line.result == "failed"
    assert line.detail.startswith("11 passed, 1 ")
    assert "test_it[3]: " + ("it did not end" if processes == 1 else "worker 'gw") in line.detail
    assert sorted(ran(suite)) == sorted(f"tests/test_die.py::test_it[{i}]" for i in range(12))
    assert not lines


def test_tests_that_nobody_came_to_are_counted(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is killed in the middle, when both processes are known to be at a test that takes long; what it had said
    stands."""
    (suite / "tests" / "test_slow.py").write_text(
        "import time, pytest\n\n@pytest.mark.parametrize('i', range(40))\ndef test_it(i):\n"
        "    if i % 20 == 1:\n        time.sleep(600)\n"
    )

    slow = {f"tests/test_slow.py::test_it[{i}]" for i in (1, 21)}

    def begun(scratch: Path) -> set[str]:
        return {line["test"] for path in scratch.glob("*/results.jsonl") for line in read(path) if "test" in line}

    def call(self: Context, command: Any, seconds: float, variables: Any, cwd: Path) -> Done:
        with self.start(command, seconds, variables, cwd) as program:
            # What a worker has begun is known only once its word of it has arrived.
            while program.done() is None and len(slow & begun(self.scratch)) < 2:
                time.sleep(0.1)
            program.seconds = 0.0
            return program.wait()

    monkeypatch.setattr(Context, "call", call)
    lines = run_suite(suite, context(tmp_path, seconds=300))
    assert lines["tests/test_slow.py"].result == "failed"
    assert re.search(r" passed, 2 begun; test_it\[\d+\]: it did not end", lines["tests/test_slow.py"].detail)
    assert lines["all tests"].result == "failed"
    assert re.fullmatch(r"\d+ of 40 tests were not run: no time was left", lines["all tests"].detail)


def test_what_is_known_when_the_check_is_interrupted_stands(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (suite / "tests" / "test_some.py").write_text("def test_it():\n    pass\n")
    call = Context.call

    def interrupted(self: Context, *arguments: Any, **options: Any) -> Done:
        call(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Context, "call", interrupted)
    where = context(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, where)
    ((part, line),) = where.said()
    assert (part, line.check, line.result) == ("tests", "tests/test_some.py", "ok")


def test_a_run_without_tests_has_failed(suite: Path, tmp_path: Path) -> None:
    (line,) = run_suite(suite, context(tmp_path)).values()
    assert line.result == "failed"
    assert line.detail.startswith("no tests were found")


def test_files_with_tests_for_a_gpu_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "build"
    folder.mkdir(parents=True)
    (folder / "test_marked.py").write_text("import pytest\n\n@pytest.mark.gpu\ndef test_it():\n    pass\n")
    (folder / "test_whole.py").write_text("import pytest\npytestmark = [pytest.mark.gpu]\n")
    (folder / "test_other.py").write_text("import pytest\n\n\ndef test_it():\n    pass\n")
    assert tests.files(tmp_path) == ["tests/build/test_marked.py", "tests/build/test_whole.py", "tests/kernels"]
    assert "tests/kernels" in tests.files(ROOT)
