"""The examples of `examples/` that use the ops: as processes, on small sizes."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests import forked

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "import runpy, sys; from vtsum_kernels.integrations import torchvision_free; torchvision_free.prepare()"


def example(name: str, *words: str) -> str:
    """What it prints."""
    code = f"{BEGIN}; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(ROOT / "examples" / name), *words]
    done = forked.run(command, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plain_model_learns_what_neighbours_say() -> None:
    losses = [float(found) for found in re.findall(r"step \d+: ([\d.]+)", example("window_model.py", "120"))]
    assert losses[0] > 0.2
    assert losses[-1] < 0.02


def test_modernbert_trains_on_the_op_as_on_its_own_attention() -> None:
    printed = example("modernbert.py", "200")
    losses = re.findall(r"(eager|vtsum): loss ([\d.]+), [\d.]+ s a step of 200 tokens", printed)
    assert [name for name, _ in losses] == ["eager", "vtsum"]
    assert abs(float(losses[0][1]) - float(losses[1][1])) < 1e-4
    apart = re.search(r"gradients differ by (\S+) of their length", printed)
    assert apart is not None
    assert float(apart[1]) < 1e-5
