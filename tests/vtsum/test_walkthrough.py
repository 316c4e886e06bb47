"""The README's way from nothing to a table of results, line by line, on a smaller corpus and with fewer epochs."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALLER = {
    "synth": ["--train", "6", "--val", "2", "--test", "4"],
    "train": ["--max_epoch", "4", "--batch_size", "2", "--num_workers", "0"],
    "evaluate": ["--resamples", "30"],
}


def readme_lines() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- walkthrough -->\n```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


def command(words: list[str]) -> list[str]:
    assert words[0] == "vtsum"
    name = words[2] if words[1] == "data" else words[1]
    return [sys.executable, "-m", "vtsum.cli", *words[1:], *SMALLER.get(name, [])]


def test_the_readme_leads_to_a_table(tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    needs_program("java")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    lines = readme_lines()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
    }
    metrics = tmp_path / "runs" / "memory" / "metrics.jsonl"
    for number, words in enumerate(lines):
        process = subprocess.Popen(
            command(words), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        first_training = words[1] == "train" and not any(line[1] == "train" for line in lines[:number])
        if first_training:  # stopped in the middle, as a reader may
            deadline = time.monotonic() + 240
            while (
                time.monotonic() < deadline
                and process.poll() is None
                and not (metrics.exists() and metrics.stat().st_size)
            ):
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=400)[0]
        assert process.returncode == (143 if first_training else 0), (words, said)
        if first_training:
            stopped = [json.loads(line) for line in metrics.read_text().splitlines()]
            assert 1 <= len(stopped) < 12
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 13))  # 6 videos by 2, 4 epochs: none twice, none left out
    table = (tmp_path / "runs" / "table.md").read_text(encoding="utf-8")
    for name in ("TT+CA", "TT+CA+memory", "random", "F1", "BLEU", "METEOR", "VT-CLIPScore"):
        assert name in table
    assert (tmp_path / "runs" / "table.png").read_bytes().startswith(b"\x89PNG")
    for name in ("memory", "tt_ca"):
        found = json.loads((tmp_path / "runs" / f"{name}.json").read_text(encoding="utf-8"))
        assert set(found["measures"]) == {
            "f1", "kendall", "spearman", "bleu4", "meteor", "rouge_l", "cider", "vt_clipscore",
        }  # fmt: skip
        assert len(found["videos"]) == 4
