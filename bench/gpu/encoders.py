"""The program that times frame encoders on a GPU: ``bench.gpu.model`` starts it.

The embedded encoder with its weights, ViT-B/16 of timm and of BLIP with random ones, at 224 pixels, in bfloat16 by
autocast; pictures lie on the GPU. And the embedded one as the summarizer calls it: bytes in, numbers out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from bench.gpu.child import Teller, parser
from bench.kit.clock import CudaClock, WallClock
from bench.kit.record import append, environment, quantiles

PACKAGES = ("torch", "timm", "transformers")
SIZE, BATCH, SAMPLES = 224, 256, 20
TINY_SIZE, TINY_BATCH, TINY_SAMPLES = 32, 2, 3
#: Seconds that an encoder takes, about.
LEAST = 2.0


def embedded(device: str, tiny: bool) -> tuple[Callable[[Any], Any], int]:
    """What takes pictures [B, 3, n, n], and n."""
    from vtsum.model import load_frame_encoder

    encoder: Any = load_frame_encoder("embedded", device)
    return encoder.network.eval().embed, encoder.image_size


def timm_vit(device: str, tiny: bool) -> tuple[Callable[[Any], Any], int]:
    from vtsum.model import torchvision_free

    torchvision_free.prepare()
    import timm

    size, name = (TINY_SIZE, "vit_tiny_patch16_224") if tiny else (SIZE, "vit_base_patch16_224")
    return timm.create_model(name, pretrained=False, num_classes=0, img_size=size).eval().to(device), size


def blip_vit(device: str, tiny: bool) -> tuple[Callable[[Any], Any], int]:
    from vtsum.model import torchvision_free

    torchvision_free.prepare()
    from transformers import BlipVisionConfig, BlipVisionModel

    size = TINY_SIZE if tiny else SIZE
    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return BlipVisionModel(BlipVisionConfig(image_size=size, **(small if tiny else {}))).eval().to(device), size


NETWORKS = {"embedded": embedded, "timm ViT-B/16": timm_vit, "BLIP ViT-B/16": blip_vit}


def flops(call: Callable[[], Any]) -> int:
    """Of matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def timed(name: str, device: str, batch: int, samples: int, tiny: bool) -> dict[str, Any]:
    """A record's part about a network: frames a second, and operations a frame."""
    import torch

    forward, size = NETWORKS[name](device, tiny)
    x = torch.rand(batch, 3, size, size, device=device)

    def call(_: int) -> tuple[()]:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            forward(x)
        return ()

    clock: Any = CudaClock(1, fill=2e-2) if device == "cuda" else WallClock()
    call(0)
    sampler = clock.sampler(call, clock.once(call)[1])
    rates = quantiles([batch / sampler.sample() for _ in range(samples)])
    return {"dtype": "bfloat16", "pixels": size, "frames_a_second": rates, "flops": flops(lambda: call(0)) / batch}


def bytes_in(device: str, batch: int, samples: int) -> dict[str, Any]:
    import numpy as np

    from vtsum.model import load_frame_encoder

    encoder: Any = load_frame_encoder("embedded", device)
    size, rates = encoder.image_size, []
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    for _ in range(1 + samples):
        began = time.perf_counter()
        encoder.encode(images)
        rates.append(batch / (time.perf_counter() - began))
    return {"dtype": "float32", "pixels": size, "frames_a_second": quantiles(rates[1:]), "flops": None}


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--product", type=float, default=0.0, help="measured bfloat16 operations a second")
    chosen = arguments.parse_args()
    teller, tiny, facts = Teller(chosen.tell), chosen.dry_run, environment(chosen.device, PACKAGES)
    batch, samples = (TINY_BATCH, TINY_SAMPLES) if tiny else (BATCH, SAMPLES)
    for name in (*NETWORKS, "embedded, bytes in, numbers out"):
        check = f"encoder {name}"
        if not tiny and chosen.until - time.monotonic() < LEAST:
            teller.line(check, "skipped", "no time was left")
            continue
        try:
            if name in NETWORKS:
                found = timed(name, chosen.device, batch, samples, tiny)
            else:
                found = bytes_in(chosen.device, batch, samples)
        except Exception as error:
            teller.failed(check, error)
            continue
        size, rate, work = found.pop("pixels"), found["frames_a_second"], found["flops"]
        record = {"op": "encoder_throughput", "run": chosen.run, "encoder": name, "size": name}
        record |= {"device_type": chosen.device, "shape": {"batch": batch, "height": size, "width": size}}
        append(chosen.out / "training_step.jsonl", {**record, **found, **facts})
        detail = f"{rate['p50']:,.0f} frames a second ({rate['p20']:,.0f} to {rate['p80']:,.0f}), batches of {batch}"
        share = rate["p50"] * work / chosen.product if work and chosen.product else None
        teller.line(check, "ok", detail, share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
