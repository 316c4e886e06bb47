"""Frames a second of the embedded frame encoder, pictures in and embeddings out.

    python -m bench.summary.encoder [--device cuda] [--threads N] [--batch 32] [--repeats 20]

One JSON line goes to results/encoder.jsonl.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import environment, quantiles

PACKAGES = ("torch", "av", "numpy")


def main() -> None:
    given = parser(__doc__, "encoder")
    given.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given.add_argument("--threads", type=int, default=os.cpu_count())
    given.add_argument("--batch", type=int, default=32)
    given.add_argument("--repeats", type=int, default=20)
    options = given.parse_args()
    import numpy as np
    import torch

    from vtsum.model import load, load_frame_encoder

    torch.set_num_threads(options.threads)
    model: Any = load_frame_encoder("embedded", options.device)
    size = model.image_size
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (options.batch, size, size, 3), dtype=np.uint8) for _ in range(4)]
    for batch in batches:  # the first calls choose and prepare the convolutions
        model.encode(batch)
    rates = []
    for i in range(options.repeats):
        began = time.perf_counter()
        model.encode(batches[i % len(batches)])
        rates.append(options.batch / (time.perf_counter() - began))
    line = {
        "op": "embedded_encoder",
        "weights": load("embedded").weights_sha256[:16],
        "shape": {"batch": options.batch, "height": size, "width": size},
        "repeats": options.repeats,
        "frames_a_second": quantiles(rates),
        "threads": options.threads,
    }
    keep(options.results, environment(options.device, PACKAGES), [line])


if __name__ == "__main__":
    main()
