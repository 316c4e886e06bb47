"""The layout for the Hugging Face kernels hub: what is written, built without the hub's builder, and loaded as there.

Nothing here is published, and the builder itself does not run: it wants Nix.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import vtsum_kernels

from tests.build import hub_builder
from tests.once import once

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kernels" / "vtsum_kernels"


def run(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)


def write(folder: Path) -> None:
    done = run("kernels/hub_layout.py", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"The layout for the kernels hub: {folder}/build.toml\n"


@pytest.fixture
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "hub-layout", write)


@pytest.fixture
def built(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the build variant for the CPU."""
    if shutil.which(os.environ.get("CXX") or "c++") is None:
        pytest.skip("a C++ compiler is needed: c++ was not found")
    folder = once(tmp_path_factory, "hub-build", lambda path: hub_builder.build(layout, "0abc123", path))
    return folder / "_vtsum_kernels_cpu_0abc123"


def modules(folder: Path) -> dict[str, ast.Module]:
    found = {str(path.relative_to(folder)): ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}
    assert len(found) > 50
    return found


def text_nodes(tree: ast.Module) -> set[ast.AST]:
    """Docstrings, which may name the package."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    return {body[0].value for body in bodies if body and isinstance(body[0], ast.Expr)}


def test_no_module_of_the_kernels_names_its_own_package() -> None:
    """Under another name it would then load, or register in, the package of that name. The namespace's own module says
    the name, and that of a folder in the user's cache is a name as any other."""
    found = []
    for name, tree in modules(PACKAGE).items():
        texts = text_nodes(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named = any(alias.name.split(".")[0] == "vtsum_kernels" for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                named = node.level == 0 and str(node.module).split(".")[0] == "vtsum_kernels"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in texts:
                named = re.match(r"vtsum_kernels($|\.|::)", node.value) is not None
            else:
                named = isinstance(node, ast.Attribute) and node.attr == "vtsum_kernels"
            if named:
                found.append(f"{name}: {ast.unparse(node)}")
    assert found == ["namespace.py: 'vtsum_kernels::'", "triton_kit/tuning.py: 'vtsum_kernels'"]


def test_the_layout_is_the_builders(layout: Path) -> None:
    plan = hub_builder.checked(layout)
    assert plan["torch"]["stable-abi"] == {"cpu": "2.11", "cuda": "2.11"}
    sections = {name: {table["backend"], *table["cxx-flags"]} for name, table in plan["kernel"].items()}
    assert {name for name, words in sections.items() if "-mavx2" in words} == {
        f"cpu_{level}" for level in ("avx2", "avx512", "avx512bf16")
    }
    assert {name for name, words in sections.items() if "-mavx512f" in words} == {"cpu_avx512", "cpu_avx512bf16"}
    for name, words in sections.items():
        assert "-DVTS_NAMESPACE=TORCH_EXTENSION_NAME" in words, name
        assert not [word for word in words if "TORCH_TARGET_VERSION" in word], "the builder defines it"
    # Every source is compiled, and once.
    named = [path for path in hub_builder.listed(plan) if path.startswith("csrc")]
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")]
    assert sorted(named) == sorted(files)
    assert (layout / "flake.nix").read_text().count("genKernelFlakeOutputs") == 1
    assert (layout / "tests" / "test_hub_ci.py").read_text().count("pytestmark = pytest.mark.kernels_ci") == 1


def test_what_the_package_imports_is_allowed_on_the_hub(layout: Path) -> None:
    """Python's own, torch (which brings Triton) and the package itself, by relative names; for Python 3.10 on."""
    allowed = {*sys.stdlib_module_names, "torch", "triton"}
    package = layout / "torch-ext" / "vtsum_kernels"
    for name, tree in modules(package).items():
        ast.parse((package / name).read_text(), feature_version=(3, 10))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, (name, ast.unparse(node))
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert str(node.module).split(".")[0] in allowed, (name, ast.unparse(node))


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = run("kernels/hub_layout.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"hub_layout: FOLDER must be empty or missing, got {tmp_path}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


FOREIGN = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] != "vtsum_kernels", name

sys.meta_path.insert(0, Refuse())
import torch, elsewhere as vk
for module in pkgutil.walk_packages(vk.__path__, "elsewhere."):
    importlib.import_module(module.name)
assert "vtsum_kernels" not in sys.modules
mine = {name.split("::")[0] for name in torch._C._dispatch_get_all_op_names() if "sliding_window" in name}
assert mine == {"_ops_of_7"}, mine
assert vk.library.NAMESPACE == "_ops_of_7"
print(vk.build_info()["libraries"]["_cpu"]["reason"])
q = torch.randn(1, 2, 9, 8)
for backend in ("auto", "blockwise"):
    out = vk.sliding_window_attention(q, q, q, 3, backend=backend)
    torch.testing.assert_close(out, vk.sliding_window_attention(q, q, q, 3, backend="reference"))
"""


def test_every_module_loads_under_another_name(layout: Path, tmp_path: Path) -> None:
    """Of a build whose library holds no kernels for this device: what it lacks is said, and plain PyTorch serves."""
    shutil.copytree(layout / "torch-ext" / "vtsum_kernels", tmp_path / "elsewhere")
    ops = 'def add_op_namespace_prefix(op_name):\n    return f"_ops_of_7::{op_name}"\n'
    (tmp_path / "elsewhere" / "_ops.py").write_text(ops)
    done = run("-c", FOREIGN, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "this build from the hub has no kernels for CPU\n"
    # A library that cannot be loaded is no sign of pip's package.
    (tmp_path / "elsewhere" / "_ops.py").write_text("from ._library import ops\n")
    done = run("-c", "import elsewhere", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "No module named 'elsewhere._library'" in done.stderr


def test_a_build_keeps_to_itself_and_to_the_stable_interface(built: Path) -> None:
    (library,) = built.glob("*.so")
    assert library.name == "_vtsum_kernels_cpu_0abc123.abi3.so"
    defined = hub_builder.symbols(library, "--defined-only")
    assert "PyInit__vtsum_kernels_cpu_0abc123" in defined
    assert not [name for name in defined if "vts" in name.removeprefix("PyInit__vtsum_kernels")]
    wanted = hub_builder.symbols(library, "--undefined-only")
    assert [name for name in wanted if re.match(r"_ZNK?(2at|3c10|5torch)", name)] == []
    assert "aoti_torch_library_init_impl" in wanted


def test_a_build_serves_beside_pips_package_what_that_serves(built: Path) -> None:
    if (why := vtsum_kernels.build_info()["libraries"]["_cpu"]["reason"]) is not None:
        pytest.skip(f"compiled CPU kernels: {why}")
    done = run("-m", "tests.build.hub_beside_pip", built, PYTHONPATH=str(ROOT / "kernels"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "_vtsum_kernels_cpu_0abc123 vtsum_kernels {'loaded': True, 'reason': None}\n" in done.stdout


def test_what_the_builder_runs_passes_on_a_build(layout: Path, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "vtsum_kernels")
    shutil.copytree(layout / "tests", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = kernels_ci: mark a test as a kernel CI test\n")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "kernels_ci", "-W", "ignore", "tests"]
    done = run(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path), PYTEST_ADDOPTS="")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8 passed" in done.stdout
