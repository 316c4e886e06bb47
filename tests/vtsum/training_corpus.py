"""A corpus in VideoXum's layout, small enough to train on in seconds, and settings of a model as small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["a", "the", "dog", "man", "ball", "runs", "throws", "catches", "then", "and", "jumps", "sits", "red", "small"]
WIDTH = 32
SMALL = {
    "width": WIDTH,
    "num_heads": 2,
    "mlp_ratio": 2,
    "memory_slots": 8,
    "max_text_length": 16,
    "text": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48, "max_positions": 32},
}
"""The model, as the settings nest it."""


def entry(video: str, duration: float, frames: int, **changes: Any) -> dict[str, Any]:
    """A video's annotations; those that are None are left out."""
    rng = np.random.default_rng(frames)
    whole = {
        "video_id": video,
        "duration": duration,
        "sampled_frames": frames,
        "timestamps": [[0.0, 3.0], [3.0, duration]],
        "tsum": ["A dog runs (fast).", " It SLEEPS!"],
        "vsum_onehot": rng.integers(0, 2, (10, frames)).tolist(),
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def write_corpus(root: Path, videos: int = 16, seed: int = 0) -> Path:
    """anno/train_videoxum.json, feat/blip/*.npz and vocab.txt; features carry the labels, so that a loss can fall."""
    rng = np.random.default_rng(seed)
    (root / "anno").mkdir(parents=True)
    (root / "feat" / "blip").mkdir(parents=True)
    entries = []
    for number in range(videos):
        name, frames = f"v_{number:03d}", int(rng.integers(6, 24))
        labels = (rng.random((10, frames)) < rng.random(frames)).astype(int)
        features = rng.standard_normal((frames, WIDTH)).astype(np.float32)
        features[:, 0] += 4 * labels.mean(0)
        np.savez(root / "feat" / "blip" / f"{name}.npz", features=features)
        sentence = " ".join(rng.choice(WORDS, int(rng.integers(3, 9))))
        tsum = [sentence.capitalize() + "."]
        entries.append(entry(name, float(frames), frames, tsum=tsum, vsum_onehot=labels.tolist()))
    (root / "anno" / "train_videoxum.json").write_text(json.dumps(entries), encoding="utf-8")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "video", "of", *WORDS]
    (root / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return root


def hold_out(root: Path, kept: int) -> None:
    """Move what follows the first `kept` training videos of a corpus to its validation split."""
    path = root / "anno" / "train_videoxum.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps(entries[:kept]))
    (root / "anno" / "val_videoxum.json").write_text(json.dumps(entries[kept:]))


def flags(model: dict[str, object] = SMALL, prefix: str = "model.") -> list[str]:
    """The model's settings as flags."""
    out: list[str] = []
    for key, value in model.items():
        out += flags(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"--{prefix}{key}", str(value)]
    return out
