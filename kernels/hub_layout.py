"""Writes the kernels in the source layout of the Hugging Face kernels hub: ``python kernels/hub_layout.py FOLDER``.

    build.toml   what the hub's builder compiles, and with which flags: the lists of setup.py, a section a set of flags
    flake.nix    what starts the builder
    csrc/        the sources, as they are here
    torch-ext/   torch_binding.cpp, by which Python imports the library, and vtsum_kernels/, the package
    tests/       what the builder's `ci-test` runs

A module that needs a library other than torch, or that registers something outside the ops' namespace, may not be on
the hub and stays out. Nothing is built and nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import runpy
import shutil
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "vtsum_kernels"
EDITION = 5
#: The adapters for transformers, and what serves them alone.
LEFT_OUT = {f"integrations/{name}.py" for name in ("torchvision_free", "transformers", "windows")}
#: What pip's build leaves in the package.
MADE = {"_build.json"}

BINDING = """\
// Makes the library a module of Python's, which the builder's _ops.py imports. The ops are registered in csrc/torch.
#include "registration.h"

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)
"""

FLAKE = """\
{
  description = "Fused attention kernels for long sequences of frames";

  inputs.kernel-builder.url = "github:huggingface/kernels";

  outputs =
    { self, kernel-builder }:
    kernel-builder.lib.genKernelFlakeOutputs {
      inherit self;
      path = ./.;
      # Sections have flags of x86, and build.toml has none for one architecture alone.
      torchVersions = map (version: version // {
        systems = builtins.filter (system: system == "x86_64-linux") version.systems;
      });
    };
}
"""


def plan() -> dict[str, Any]:
    """What build.toml holds: its tables, as TOML reads them."""
    build = runpy.run_path(str(ROOT / "setup.py"), run_name="lists")
    target = int(build["TARGET"], 16)
    torch_version = f"{target >> 56}.{target >> 48 & 0xFF}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = runpy.run_path(str(ROOT / "vtsum" / "version.py"))["__version__"]
    # The builder's name for the library is the namespace of its ops: it differs from build to build.
    flags = [*build["CXX_FLAGS"], "-DVTS_NAMESPACE=TORCH_EXTENSION_NAME"]
    with contextlib.chdir(ROOT):
        headers = [path.as_posix() for path in sorted(build["CSRC"].rglob("*.h"))]

        def section(backend: str, sources: list[Path], **rest: Any) -> dict[str, Any]:
            kind = {"backend": backend, "depends": ["torch"], "include": ["csrc/include"]}
            return kind | rest | {"src": [path.as_posix() for path in sources]}

        on_cpu = [*flags, build["LEVELS_FLAG"]]
        sections = {"cpu": section("cpu", build["cpu_sources"](), **{"cxx-flags": on_cpu})}
        for level, wider in build["X86_LEVELS"].items():
            sources = build["level_sources"](level)
            sections[f"cpu_{level}"] = section("cpu", sources, **{"cxx-flags": [*on_cpu, *wider]})
        of_cuda = {"cxx-flags": [*flags, "-DUSE_CUDA"], "cuda-flags": build["NVCC_FLAGS"]}
        capabilities = {"cuda-capabilities": build["CUDA_ARCHITECTURES"]}
        sections["cuda"] = section("cuda", build["cuda_sources"](), **capabilities, **of_cuda)
    return {
        "general": {
            "name": PACKAGE.replace("_", "-"),
            "version": int(version.split(".")[0]),
            "edition": EDITION,
            "license": project["license"],
            "backends": ["cpu", "cuda"],
        },
        # A header goes along only where it is listed, and this section is every build's.
        "torch": {
            "pyext": ["py", "json"],
            "src": ["torch-ext/torch_binding.cpp", *headers],
            "stable-abi": dict.fromkeys(("cpu", "cuda"), torch_version),
        },
        "kernel": sections,
    }


def toml(table: dict[str, Any], name: str = "") -> str:
    """A table of strings, whole numbers, lists of strings and further tables."""
    lines, inner = [], ""
    for key, value in table.items():
        if isinstance(value, dict):
            inner += "\n" + toml(value, f"{name}.{key}" if name else key)
        elif isinstance(value, list) and len(value) > 3:
            lines.append(f"{key} = [\n" + "".join(f"    {json.dumps(item)},\n" for item in value) + "]")
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    own = "\n".join([f"[{name}]", *lines, ""]) if lines else ""
    return own + (inner if own else inner.lstrip("\n"))


def write(folder: Path) -> None:
    """Writes the layout into a folder that is empty or missing.

    Raises:
        FileExistsError: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"hub_layout: FOLDER must be empty or missing, got {folder}")
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    package = ROOT / "kernels" / PACKAGE
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package).as_posix()
        if path.suffix in (".py", ".json") and name not in LEFT_OUT | MADE:
            target = folder / "torch-ext" / PACKAGE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / "torch-ext" / "torch_binding.cpp").write_text(BINDING)
    (folder / "tests").mkdir()
    (folder / "tests" / "__init__.py").touch()
    shutil.copyfile(ROOT / "tests" / "kernels" / "test_hub_ci.py", folder / "tests" / "test_hub_ci.py")
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    (folder / "flake.nix").write_text(FLAKE)
    (folder / "build.toml").write_text(toml(plan()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to; empty or missing")
    folder = parser.parse_args().folder
    try:
        write(folder)
    except OSError as error:
        raise SystemExit(str(error)) from None
    print(f"The layout for the kernels hub: {folder / 'build.toml'}")


if __name__ == "__main__":
    main()
