"""Whether a training waits for its data, and what padding costs: the same steps padded, packed, and by length.

    python -m bench.summary.training_data [--videos 32] [--size base|small]

Trains by `vtsum train` on drawn features, [T, 768] with T of 200 to 2,000 frames, 16 videos a step, texts of 32 tokens,
without dropout. Ways: `padded`, `packed` (--packed), and both with --group_by_length, where other videos share a step.
Of each: seconds a step by the clock and of the processor (which other work on the machine hardly changes), the share of
the time spent waiting for data, the share of frames that are padding, and, for packed against padded, how far their
losses are apart, step by step. What the first step waits for its readers to start is given by itself. One JSON line for
each way goes to results/training_data.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import ROOT, machine

WAYS = {
    "padded": [],
    "packed": ["--packed"],
    "padded, by length": ["--group_by_length"],
    "packed, by length": ["--packed", "--group_by_length"],
}
FRAMES, WIDTH, BATCH, TOKENS = (200, 2000), 768, 16, 32
WORDS = [a + b for a in ("ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "so", "tu") for b in ("", "n", "r", "s", "t")]
SMALL = {"width": 768, "num_heads": 12, "mlp_ratio": 1}
SMALL_TEXT = {"hidden_size": 64, "num_layers": 1, "num_heads": 2, "intermediate_size": 64}


class ProcessorTime:
    """A tracker: what the rank's process has computed by the end of each step, in seconds of all its threads."""

    def start(self, run: Path, step: int, settings: Mapping[str, Any]) -> None:
        self.file = open(run / "processor", "w", encoding="utf-8")  # noqa: SIM115  # open until `finish`
        print(time.process_time(), file=self.file)

    def log(self, values: Mapping[str, float], step: int) -> None:
        print(time.process_time(), file=self.file)

    def finish(self) -> None:
        self.file.close()


def write_corpus(root: Path, videos: int, frames: tuple[int, int]) -> None:
    """A training split in VideoXum's layout, drawn from a fixed seed."""
    draw = np.random.default_rng(0)
    (root / "anno").mkdir(parents=True)
    (root / "feat" / "blip").mkdir(parents=True)
    entries = []
    for number in range(videos):
        name, length = f"v_{number:04d}", int(draw.integers(frames[0], frames[1] + 1))
        features = draw.standard_normal((length, WIDTH), dtype=np.float32)
        np.savez(root / "feat" / "blip" / f"{name}.npz", features=features)
        entry = {"video_id": name, "duration": float(length), "tsum": [" ".join(draw.choice(WORDS, 40))]}
        entries.append({**entry, "vsum_onehot": (draw.random((10, length)) < 0.15).astype(int).tolist()})
    (root / "anno" / "train_videoxum.json").write_text(json.dumps(entries))
    listed = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "video", "of", *WORDS]
    (root / "vocab.txt").write_text("\n".join(listed) + "\n")


def train(data: Path, run: Path, options: argparse.Namespace, more: list[str]) -> list[dict[str, Any]]:
    """The lines of a training of one epoch."""
    model = {"memory_slots": 0, "max_text_length": TOKENS, **(SMALL if options.size == "small" else {})}
    model |= {f"text.{k}": v for k, v in (SMALL_TEXT if options.size == "small" else {}).items()}
    words = [f for name, value in model.items() for f in (f"--model.{name}", str(value))]
    words += ["--model.text.dropout", "0", "--batch_size", str(options.batch), "--max_epoch", "1", "--ckpt_freq", "0"]
    words += ["--max_video_length", str(options.frames[1]), "--num_workers", str(options.workers)]
    words += ["--trackers", "bench.summary.training_data:ProcessorTime"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = [sys.executable, "-m", "vtsum.training.train", "--data", str(data), "--output_dir", str(run)]
    done = subprocess.run([*command, *words, *more], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"training_data: {done.stderr[-2000:]}")
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def padding(data: Path, run: Path) -> float:
    """The share of frames that padding would add to a run's steps."""
    from vtsum.data.videoxum import VideoXumDataset
    from vtsum.training.sampler import Layout, StepSampler
    from vtsum.training.settings import TrainSettings, build, read_yaml

    said, _ = read_yaml(run / "config.yaml")
    own = {name: value for name, value in said.items() if not name.startswith("model.")}
    settings = build(TrainSettings, own)
    videos = VideoXumDataset(data, max_frames=settings.max_video_length)
    lengths = np.asarray(videos.lengths)
    by = videos.lengths if settings.group_by_length else None
    sampler = StepSampler(len(videos), Layout(settings.batch_size, 1, 1), settings.seed, by)
    steps = lengths[sampler.epoch(0)]  # [steps, 1, batch]
    return float(1 - steps.sum() / (steps.max(-1, keepdims=True) * np.ones_like(steps)).sum())


def main() -> None:
    given = parser(__doc__, "training_data")
    given.add_argument("--videos", type=int, default=32)
    given.add_argument("--frames", type=int, nargs=2, default=FRAMES, metavar=("LEAST", "MOST"))
    given.add_argument("--batch", type=int, default=BATCH)
    given.add_argument("--workers", type=int, default=2)
    given.add_argument("--size", choices=("base", "small"), default="base")
    options = given.parse_args()
    facts = {"op": "training_data", "device_type": "cpu", **machine(("torch", "transformers"))}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "corpus"
        write_corpus(data, options.videos, tuple(options.frames))
        for number, (way, more) in enumerate(WAYS.items()):
            run = Path(folder) / f"run{number}"
            lines = train(data, run, options, more)
            losses[way] = [line["loss"] for line in lines]
            other = losses[way.replace("packed", "padded")]
            apart = max(abs(a - b) / abs(b) for a, b in zip(losses[way], other, strict=True))
            used = [float(line) for line in (run / "processor").read_text().split()]
            busy, waited = (sum(line[name] for line in lines[1:]) for name in ("seconds", "waited"))
            record = {
                "way": way,
                "size": options.size,
                "shape": {"frames": list(options.frames), "C": WIDTH, "B": options.batch, "tokens": TOKENS},
                "videos": options.videos,
                "workers": options.workers,
                "steps": len(lines),
                "cpu_s": round((used[-1] - used[0]) / len(lines), 3),
                "step_s": round(statistics.mean(line["seconds"] for line in lines), 4),
                "waiting": round(waited / (busy + waited), 6),
                "first_waited_s": lines[0]["waited"],
                "padding": round(padding(data, run), 4) if "padded" in way else 0.0,
                "loss_apart": None if "padded" in way else apart,
            }
            keep(options.results, facts, [record])
            for path in sorted(run.rglob("*.pt")) + sorted(run.rglob("*.safetensors")):
                path.unlink()  # gigabytes


if __name__ == "__main__":
    main()
