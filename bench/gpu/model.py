"""The part that measures the model: training steps by length and form, the frame encoder, steps through DeepSpeed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping

from bench.gpu import child
from bench.gpu.kernels import environment
from bench.gpu.stage import Context, Line
from bench.kit.record import read

#: Shares of what is left when it begins: until the end of the training steps, and of the frame encoder.
STEPS, ENCODER = 0.6, 0.8
#: DeepSpeed has one rank here, which needs no network but asks for an interface.
ONE_RANK = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}


def run(context: Context) -> Iterator[Line]:
    variables = {name: value for name, value in environment(context).items() if name != "TRITON_INTERPRET"}
    began, left = time.monotonic(), max(context.left() - child.GRACE, 0.0)
    yield from child.follow(context, "bench.gpu.training", until=began + STEPS * left, environment=variables)
    yield encoder(context, began + ENCODER * left - time.monotonic(), variables)
    variables |= ONE_RANK
    yield from child.follow(context, "bench.gpu.sharded", until=began + left, environment=variables)


def encoder(context: Context, seconds: float, variables: Mapping[str, str]) -> Line:
    """Frames a second of the embedded encoder, as `bench.summary.encoder` measures them."""
    path, batch, check = context.out / "encoder.jsonl", "2" if context.dry_run else "256", "embedded frame encoder"
    command = [sys.executable, "-m", "bench.summary.encoder", "--device", context.device, "--batch", batch]
    done = context.call([*command, "--results", path], seconds, variables)
    context.log(f"== {' '.join(command[2:])}\n{done.output[-20_000:]}")
    if not done.ok:
        return Line(check, "absent" if "ModuleNotFoundError" in done.why() else "failed", done.why())
    rate = read(path)[-1]["frames_a_second"]
    said = f"{rate['p50']:,.0f} frames a second ({rate['p20']:,.0f} to {rate['p80']:,.0f}), batches of {batch}"
    return Line(check, "ok", f"{said}, bytes in, numbers out")
