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
from bench.kit.record import append, quantiles

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

    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return BlipVisionModel(BlipVisionConfig(image_size=TINY_SIZE if tiny else SIZE, **(small if tiny else {})))


def embedded(device: str) -> Any:
    from vtsum.model import load_frame_encoder

    return load_frame_encoder("embedded", device)


def frames_a_second(call: Callable[[int], Any], batch: int, device: str, tiny: bool) -> dict[str, float]:
    """Quantiles over samples of calls that take a batch each."""
    from bench.kit.clock import CudaClock, WallClock

    clock: Any = CudaClock(1, fill=2e-2) if device == "cuda" else WallClock()
    call(0)
    _, once = clock.once(call)
    sampler = clock.sampler(call, once)
    return quantiles([batch / sampler.sample() for _ in range(3 if tiny else SAMPLES)])


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

    from bench.kit.record import environment

    device, tiny = chosen.device, chosen.dry_run
    facts = environment(device, PACKAGES)
    batch = TINY_BATCH if tiny else BATCH

    def network(name: str, make: Callable[[], Any], forward: Callable[[Any, Any], Any] | None, size: int) -> None:
        model = make()
        x = torch.rand(batch, 3, size, size, device=device)

        def call(_: int) -> tuple[()]:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                (forward or (lambda module, pixels: module(pixels)))(model, x)
            return ()

        rate = frames_a_second(call, batch, device, tiny)
        work = flops(lambda: call(0)) / batch
        say(name, "bfloat16", size, rate, work)

    def say(name: str, dtype: str, size: int, rate: dict[str, float], work: float | None) -> None:
        record = {"op": "encoder_throughput", "run": chosen.run, "encoder": name, "size": name, "dtype": dtype}
        record |= {"device_type": device, "shape": {"batch": batch, "height": size, "width": size}}
        append(chosen.out / "training_step.jsonl", {**record, "frames_a_second": rate, "flops": work, **facts})
        share = None if not (work and product) else rate["p50"] * work / product
        detail = f"{rate['p50']:,.0f} frames a second ({rate['p20']:,.0f} to {rate['p80']:,.0f}), batches of {batch}"
        teller.line(Line(f"encoder {name}", "ok", detail, share))

    def on_device(make: Callable[[bool], Any]) -> Callable[[], Any]:
        return lambda: make(tiny).eval().to(device)

    def bytes_in() -> None:
        encoder = embedded(device)
        size = encoder.image_size
        images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        rates = []
        for _ in range(3 if tiny else SAMPLES):
            began = time.perf_counter()
            encoder.encode(images)
            rates.append(batch / (time.perf_counter() - began))
        say("embedded, bytes in, numbers out", "float32", size, quantiles(rates[1:]), None)

    def inside() -> None:
        size = embedded(device).image_size
        network("embedded", lambda: embedded(device).network.eval(), lambda module, x: module.embed(x), size)

    size = TINY_SIZE if tiny else SIZE
    for name, run in {
        "embedded": inside,
        "timm ViT-B/16": lambda: network("timm ViT-B/16", on_device(timm_vit), None, size),
        "BLIP ViT-B/16": lambda: network("BLIP ViT-B/16", on_device(blip_vit), None, size),
        "embedded, bytes in, numbers out": bytes_in,
    }.items():
        if not tiny and chosen.until - time.monotonic() < 2.0:
            teller.line(Line(f"encoder {name}", "skipped", "no time was left"))
            continue
        try:
            run()
        except ImportError as error:
            teller.line(Line(f"encoder {name}", "absent", f"{error.name} is not installed"))
        except Exception as error:
            teller.line(Line(f"encoder {name}", "failed", f"{type(error).__name__}: {str(error)[:200]}"))
