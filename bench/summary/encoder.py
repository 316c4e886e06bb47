"""Frames a second of a frame encoder, pictures in and embeddings out, and the floating-point operations of a frame.

    python -m bench.summary.encoder [--encoder blip] [--device cuda] [--threads N] [--batch 32] [--repeats 20]

`blip` is BLIP's ViT-B/16 at its real size with random weights, which take as long.

One JSON line goes to results/encoder.jsonl.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import environment, quantiles

PACKAGES = ("torch", "av", "numpy")


def blip(device: str) -> Any:
    """The encoder of VideoXum's features with random weights."""
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import BlipVisionConfig, BlipVisionModel

    from vtsum.model.frame_encoder import NetworkFrameEncoder

    class Blip(NetworkFrameEncoder):
        def features(self, pixels: Any) -> Any:
            return self.network(pixel_values=pixels).last_hidden_state[:, 0]

    return Blip("blip", BlipVisionModel(BlipVisionConfig(image_size=224)), 224, 768, device=device)


def main() -> None:
    given = parser(__doc__, "encoder")
    given.add_argument("--encoder", choices=("embedded", "blip"), default="embedded")
    given.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given.add_argument("--threads", type=int, default=os.cpu_count())
    given.add_argument("--batch", type=int, default=32)
    given.add_argument("--repeats", type=int, default=20)
    options = given.parse_args()
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vtsum.model import load, load_frame_encoder

    torch.set_num_threads(options.threads)
    embedded = options.encoder == "embedded"
    model: Any = load_frame_encoder("embedded", options.device) if embedded else blip(options.device)
    size = model.image_size
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (options.batch, size, size, 3), dtype=np.uint8) for _ in range(4)]
    for batch in batches:  # the first calls choose and prepare the convolutions
        model.encode(batch)
    with FlopCounterMode(display=False) as counted:
        model.encode(batches[0])
    rates = []
    for i in range(options.repeats):
        began = time.perf_counter()
        model.encode(batches[i % len(batches)])
        rates.append(options.batch / (time.perf_counter() - began))
    line = {
        "op": f"{options.encoder}_encoder",
        "weights": load("embedded").weights_sha256[:16] if embedded else "random",
        "shape": {"batch": options.batch, "height": size, "width": size},
        "repeats": options.repeats,
        "frames_a_second": quantiles(rates),
        "flops_a_frame": counted.get_total_flops() // options.batch,
        "threads": options.threads,
    }
    keep(options.results, environment(options.device, PACKAGES), [line])


if __name__ == "__main__":
    main()
