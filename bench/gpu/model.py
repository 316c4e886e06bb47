"""The part that measures the model: training steps by length and form, frame encoders, steps through DeepSpeed."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.gpu import child
from bench.gpu.kernels import environment
from bench.gpu.stage import Context, Line

#: Shares of what is left when it begins: until the end of training steps, and of the encoders.
STEPS, ENCODERS = 0.55, 0.75


def run(context: Context) -> Iterator[Line]:
    variables = {name: value for name, value in environment(context).items() if name != "TRITON_INTERPRET"}
    began, left = time.monotonic(), max(context.left(), 0.0)
    product = context.facts.get("product_flops", {}).get("bfloat16", 0.0)
    words = ["--steps-until", str(began + STEPS * left), "--product", str(product)]
    until = began + ENCODERS * left
    yield from child.follow(context, "bench.gpu.training", *words, until=until, environment=variables)
    # Of one rank, which needs no network but asks for an interface.
    one_rank = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    until = context.deadline - child.GRACE
    yield from child.follow(context, "bench.gpu.sharded", until=until, environment={**variables, **one_rank})
