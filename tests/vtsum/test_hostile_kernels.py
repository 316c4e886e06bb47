"""Kernels that a stranger's checkpoint has transformers fetch from the hub, and import: none is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vtsum.hostile import ENVIRONMENT, ROOT
from tests.vtsum.samples import small_clip
from tests.vtsum.test_checkpoint import tiny_clip

KERNELS = """
from pathlib import Path
from types import ModuleType


def get_kernel(name, *words, **options):
    Path({mark!r}).write_text(name)
    return ModuleType("fetched")


def anything(*words, **options):
    return lambda given: given


class Mode:
    INFERENCE = TRAINING = None


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return anything
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a package `kernels` that transformers takes for its own; what it is asked for stands in `mark`."""
    from transformers.utils import import_utils

    version = getattr(import_utils, "KERNELS_MIN_VERSION", "0.12.0")
    folder = tmp_path / "packages"
    for name, files in {
        "kernels": {"__init__.py": KERNELS.format(mark=str(tmp_path / "mark"))},
        f"kernels-{version}.dist-info": {
            "METADATA": f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n",
            "RECORD": "kernels/__init__.py,,\n",
        },
    }.items():
        (folder / name).mkdir(parents=True)
        for file, content in files.items():
            (folder / name / file).write_text(content)
    return folder


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_4"])
def test_no_kernel_is_fetched_for_a_name_without_a_slash(attention: str, package: Path, tmp_path: Path) -> None:
    """transformers knows a repository for each, where flash_attn is not installed and `kernels` is."""
    model, clip = tmp_path / "model", tmp_path / "clip.mp4"
    small_clip(clip)
    model.mkdir()
    tiny_clip(model)
    config = json.loads((model / "config.json").read_text())
    for part in (config, config["vision_config"]):
        part["_attn_implementation"] = attention
    (model / "config.json").write_text(json.dumps(config))
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(package), ENVIRONMENT["PYTHONPATH"]])}
    words = ["-m", "vtsum", "extract", str(clip), "-o", str(tmp_path / "features"), "--encoder", str(model), "-q"]
    # Not forked: transformers has looked for packages by then.
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, timeout=200, capture_output=True, text=True
    )
    assert not (tmp_path / "mark").exists(), (tmp_path / "mark").read_text()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("vtsum: load: model must be a transformers checkpoint"), done.stderr
