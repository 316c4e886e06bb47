"""Frame encoders on a GPU, timed by the program `bench.gpu.training` after its steps.

The embedded encoder with its weights, ViT-B/16 of timm and of BLIP with random ones, at 224 pixels, in bfloat16 by
autocast; pictures lie on the GPU. And the embedded one as the summarizer calls it: bytes in, numbers out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from bench.gpu.child import Teller
from bench.gpu.stage import Line
from bench.kit.clock import CudaClock, WallClock
from bench.kit.record import append, environment, quantiles

PACKAGES = ("torch", "timm", "transformers")
SIZE, BATCH, SAMPLES = 224, 256, 20
TINY_SIZE, TINY_BATCH = 32, 2


def timm_vit(tiny: bool) -> Any:
    from vtsum.model import torchvision_free

    torchvision_free.prepare()
    import timm

    name = "vit_tiny_patch16_224" if tiny else "vit_base_patch16_224"
    return timm.create_model(name, pretrained=False, num_classes=0, img_size=TINY_SIZE if tiny else SIZE)


def blip_vit(tiny: bool) -> Any:
    from vtsum.model import torchvision_free

    torchvision_free.prepare()
    from transformers import BlipVisionConfig, BlipVisionModel

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes: dict[str, Any] = {"image_size": TINY_SIZE, **small} if tiny else {"image_size": SIZE}
    return BlipVisionModel(BlipVisionConfig(**sizes))


def frames_a_second(call: Callable[[int], Any], batch: int, device: str, samples: int) -> dict[str, float]:
    """Quantiles over samples of calls that take a batch each."""
    clock: Any = CudaClock(1, fill=2e-2) if device == "cuda" else WallClock()
    call(0)
    _, once = clock.once(call)
    sampler = clock.sampler(call, once)
    return quantiles([batch / sampler.sample() for _ in range(samples)])


def flops(call: Callable[[], Any]) -> int:
    """Of matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def measure(chosen: argparse.Namespace, teller: Teller, product: float) -> None:
    """Times each encoder, records it and says a line.

    Args:
        chosen: the program's options. product: measured bfloat16 operations a second, 0 where nobody knows.
    """
    import numpy as np
    import torch

    from vtsum.model import load_frame_encoder

    device, tiny = chosen.device, chosen.dry_run
    facts = environment(device, PACKAGES)
    batch, samples = (TINY_BATCH, 3) if tiny else (BATCH, SAMPLES)

    def say(name: str, dtype: str, size: int, rate: dict[str, float], work: float | None) -> None:
        record = {"op": "encoder_throughput", "run": chosen.run, "encoder": name, "size": name, "dtype": dtype}
        record |= {"device_type": device, "shape": {"batch": batch, "height": size, "width": size}}
        append(chosen.out / "training_step.jsonl", {**record, "frames_a_second": rate, "flops": work, **facts})
        share = rate["p50"] * work / product if work and product else None
        detail = f"{rate['p50']:,.0f} frames a second ({rate['p20']:,.0f} to {rate['p80']:,.0f}), batches of {batch}"
        teller.line(Line(f"encoder {name}", "ok", detail, share))

    def network(name: str, forward: Callable[[Any], Any], size: int) -> None:
        x = torch.rand(batch, 3, size, size, device=device)

        def call(_: int) -> tuple[()]:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                forward(x)
            return ()

        rate = frames_a_second(call, batch, device, samples)
        say(name, "bfloat16", size, rate, flops(lambda: call(0)) / batch)

    def inside(name: str) -> None:
        encoder: Any = load_frame_encoder("embedded", device)
        network(name, encoder.network.eval().embed, encoder.image_size)

    def vit(make: Callable[[bool], Any]) -> Callable[[str], None]:
        return lambda name: network(name, make(tiny).eval().to(device), TINY_SIZE if tiny else SIZE)

    def bytes_in(name: str) -> None:
        encoder: Any = load_frame_encoder("embedded", device)
        size, rates = encoder.image_size, []
        images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        for _ in range(samples):
            began = time.perf_counter()
            encoder.encode(images)
            rates.append(batch / (time.perf_counter() - began))
        say(name, "float32", size, quantiles(rates[1:]), None)

    runs: dict[str, Callable[[str], None]] = {
        "embedded": inside,
        "timm ViT-B/16": vit(timm_vit),
        "BLIP ViT-B/16": vit(blip_vit),
        "embedded, bytes in, numbers out": bytes_in,
    }
    for name, run in runs.items():
        if not tiny and chosen.until - time.monotonic() < 2.0:
            teller.line(Line(f"encoder {name}", "skipped", "no time was left"))
            continue
        try:
            run(name)
        except ImportError as error:
            teller.line(Line(f"encoder {name}", "absent", f"{error.name} is not installed"))
        except Exception as error:
            teller.line(Line(f"encoder {name}", "failed", f"{type(error).__name__}: {str(error)[:200]}"))
