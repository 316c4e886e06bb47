"""Commands that are started without standard input, output or error, as service managers and cron may start them, or
without memory enough."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vtsum.hostile import ENVIRONMENT, ROOT
from tests.vtsum.samples import small_clip
from tests.vtsum.test_benchmark import write_h5

NOISY = """
import os


class Noisy:
    def fit(self, videos, validation, seed):
        for number in (0, 1, 2):
            try:
                os.write(number, b"a library's warning")
            except OSError:  # of standard input, open for reading
                pass

    def predict(self, features):
        return features[:, 0]
"""


def started(*words: str, without: str, cwd: Path, module: str = "vtsum.cli") -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'exec "$0" "$@" {without}', sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("without", ["2>&-", "<&-", "<&- >&- 2>&-"])
def test_what_libraries_warn_of_goes_into_no_file_of_the_users(without: str, tmp_path: Path) -> None:
    """The rows got the number of standard error, into which libraries in other languages write."""
    write_h5(tmp_path / "a.h5")
    (tmp_path / "noisy.py").write_text(NOISY)
    words = ["benchmark", "tvsum", "--h5", "a.h5", "--records", "rows.jsonl", "--seeds", "1", "-q"]
    done = started(*words, "--method", "noisy:Noisy", without=without, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in (tmp_path / "rows.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_video_from_a_closed_standard_input_is_one_line(tmp_path: Path) -> None:
    for more in ([], ["--live"]):
        done = started("summarize", "-", "-o", "s", *more, without="<&-", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["vtsum.cli", "vtsum.training.train"])
def test_a_mistake_has_its_status_where_nobody_hears_of_it(module: str, tmp_path: Path) -> None:
    words = ["export", "nowhere", "-f", "csv"] if module == "vtsum.cli" else ["--output_dir", str(tmp_path / "run")]
    done = started(*words, without="2>&-", cwd=ROOT, module=module)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_memory_that_does_not_suffice_is_one_line(tmp_path: Path) -> None:
    """PyTorch's libraries were said to be our fault."""
    small_clip(tmp_path / "clip.mp4")
    command = ["bash", "-c", 'ulimit -v 450000; exec "$0" "$@"', sys.executable, "-m", "vtsum.cli"]
    words = ["extract", "clip.mp4", "-o", "feats", "-q"]
    done = subprocess.run(
        [*command, *words], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("vtsum: memory must suffice, ")
    assert len(done.stderr.splitlines()) == 1
