"""Runs memory retrieval's Triton kernels in Triton's interpreter, which needs no GPU but a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_memory_triton_numbers.py", "test_memory_triton_flash_numbers.py"])
def test_numbers_in_the_interpreter(name: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed (pip install triton)")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/kernels/{name}"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"\b\d+ passed", done.stdout), done.stdout[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]


def test_every_kind_of_call_has_sizes() -> None:
    """A default of powers of two, which tensors' sizes may fall short of; no size twice."""
    pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")
    from vtsum_kernels.memory_attention.triton import configs
    from vtsum_kernels.memory_fuse.triton.launch import join_candidates

    found = [configs.weights_backward_candidates(slots) for slots in (1, 64, 100, 512, 4096, 5000)]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for count in (1, 64, 100, 256, 300, 512, 768, 1024, 5000):
            found.append(configs.weights_forward_candidates(dtype, count))
            for config in found[-1]:
                assert config.form == "walk" or 2 * config.block_n >= count
            found += [join_candidates(dtype, count, split) for split in (False, True)]
            found.append(configs.scores_backward_candidates(dtype, count))
        for width in (16, 64, 128, configs.MAX_DIM_FLASH):
            for options in (False, True):
                found.append(configs.flash_forward_candidates(dtype, width, options))
                found.append(configs.flash_backward_candidates(dtype, width, options))
        found.append(configs.usage_candidates(dtype))
    for candidates in found:
        assert candidates
        assert len(set(candidates)) == len(candidates), candidates
        for config in candidates:
            for size in config[1:4]:
                assert size.bit_count() == 1, config
