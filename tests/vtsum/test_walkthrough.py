"""The documented way from nothing to a table of results, line by line, on a smaller corpus and with fewer epochs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

from bench.summary.walkthrough import follow
from tests.vtsum.synthetic_corpus import synthetic_corpus
from vtsum.recipes.synthetic import CLIP_STEPS, CLIP_VIDEOS
from vtsum.recipes.synthetic_scenes import CorpusParameters

SMALLER = {
    "synth": ["--train", "6", "--val", "2", "--test", "4"],
    "train": [
        "--max_epoch",
        "4",
        "--warmup_steps",
        "2",
        "--batch_size",
        "2",
        "--num_workers",
        "0",
        "--model.text.num_layers",
        "1",
    ],
    "evaluate": ["--resamples", "30", "--num_beams", "1"],
}


def begin_corpus(folder: Path, other: Path) -> None:
    """Leave behind what a run of `vtsum data synth` does that was stopped after its longest stage, the tiny CLIP; here
    it is the other corpus's, as test_synthetic.py has it trained."""
    shutil.copytree(other / "clip", folder / "clip")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest |= {"complete": False, "seed": 0, "parameters": dataclasses.asdict(CorpusParameters())}
    manifest |= {"clip": {"steps": CLIP_STEPS, "videos": CLIP_VIDEOS}, "videos": {"train": 6, "val": 2, "test": 4}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_walkthrough_leads_to_a_table(tmp_path, tmp_path_factory, needs_program):
    needs_program("java")
    begin_corpus(tmp_path / "corpus", synthetic_corpus(tmp_path_factory))
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
