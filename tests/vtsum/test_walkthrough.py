"""The README's way from nothing to a table of results, line by line, on a smaller corpus and with fewer epochs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from bench.summary.walkthrough import follow

SMALLER = {
    "synth": ["--train", "6", "--val", "2", "--test", "4"],
    "train": ["--max_epoch", "4", "--batch_size", "2", "--num_workers", "0"],
    "evaluate": ["--resamples", "30"],
}


def test_the_readme_leads_to_a_table(tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    needs_program("java")
    metrics = tmp_path / "runs" / "memory" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    stopped: list[int] = []

    def stop(file: Path) -> bool:
        assert file == metrics
        if time.monotonic() < deadline and not (file.exists() and file.stat().st_size):
            return False
        stopped.append(len(file.read_text().splitlines()))
        return True

    follow(tmp_path, stop, SMALLER, {"OMP_NUM_THREADS": "1"})
    assert 1 <= stopped[0] < 12
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
