"""`vtsum env --report`: what a bug report carries to strangers, and what it does not."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import vtsum_kernels

import vtsum.env

ROOT = Path(__file__).resolve().parents[2]
TYPERLESS = "import sys; sys.modules['typer'] = None; sys.argv = ['vtsum', 'env', '--report']; "


@pytest.mark.parametrize("without_typer", [False, True])
def test_the_report_tells_versions_and_hardware_and_no_names(tmp_path: Path, without_typer: bool) -> None:
    home = tmp_path / "Anna Example"
    home.mkdir()
    names = {"HOME": str(home), "LOGNAME": "annaexample", "VTSUM_KERNELS_TUNED": str(home / "secret film.json")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, "-m", "vtsum", "env", "--report"]
    if without_typer:
        command = [sys.executable, "-c", f"{TYPERLESS}from vtsum.cli import main; sys.exit(main())"]
    environment = {**os.environ, **names, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    assert facts["vtsum"] == vtsum.__version__
    assert facts["python"].endswith(platform.python_version())
    assert facts["torch"].startswith(f"{torch.__version__}, ")
    assert facts["kernels.libraries._cpu.loaded"] in ("True", "False")
    assert "libavcodec" in facts["libav"]
    assert {"system", "processor", "gpu", "ffmpeg", "vtsum[video]", "model embedded"} <= facts.keys()
    assert facts["variables that are set"].split(", ").count("VTSUM_KERNELS_TUNED") == 1
    for name in ("Anna", "annaexample", "secret", "/", "\\", platform.node()):
        assert name not in done.stdout, name


ERRORS = {
    "nvcc was not found in /home/Anna B/cuda/bin (install it)": "nvcc was not found in <path> (install it)",
    "_cpu.abi3.so does not load: /home/x y/l.so: no file": "_cpu.abi3.so does not load: <path>: no file",
    "No module named 'C:\\Users\\Anna B\\x.dll' here": "No module named '<path>' here",
    "failed: D:\\Anna B\\x.dll: bad": "failed: <path>: bad",
    "in ~/films/my wedding.mp4": "in <path>",
    "PREFIX=/opt/anna": "PREFIX=<path>",
    "asked by anna on box7": "asked by <user> on <host>",
    "torch.compile: 1.0, no CUDA (none)": "torch.compile: 1.0, no CUDA (none)",
}


def test_the_words_of_errors_lose_the_names_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    monkeypatch.setattr(platform, "node", lambda: "box7.example.org")
    monkeypatch.setattr(vtsum_kernels, "build_info", lambda: {str(n): said for n, said in enumerate(ERRORS)})
    told = [line for line in vtsum.env.public_report().splitlines() if line.startswith("kernels.")]
    assert told == [f"kernels.{number}: {words}" for number, words in enumerate(ERRORS.values())]
