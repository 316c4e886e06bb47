"""The part that measures the model: training steps by length and form, frame encoders, steps through DeepSpeed."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.gpu import child
from bench.gpu.kernels import environment
from bench.gpu.stage import Context, Line

#: Shares of what is left when each begins: training steps, then encoders.
TRAINING, ENCODERS = 0.6, 0.4


def run(context: Context) -> Iterator[Line]:
    variables = {name: value for name, value in environment(context).items() if name != "TRITON_INTERPRET"}
    until = time.monotonic() + TRAINING * context.left()
    yield from child.follow(context, "bench.gpu.training", until=until, environment=variables)
    product = str(context.facts.get("product_flops", {}).get("bfloat16", 0.0))
    until = time.monotonic() + ENCODERS * context.left()
    yield from child.follow(context, "bench.gpu.encoders", "--product", product, until=until, environment=variables)
    # Of one rank, which needs no network but asks for an interface.
    one_rank = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    until = context.deadline - child.GRACE
    yield from child.follow(context, "bench.gpu.sharded", until=until, environment={**variables, **one_rank})
