"""The part that measures the model: training steps by length and form, frame encoders, steps through DeepSpeed."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.gpu import child
from bench.gpu.kernels import environment
from bench.gpu.stage import Context, Line

#: The programs, and which shares of what is left when the part begins they end at. DeepSpeed has one rank, which needs
#: no network but asks for an interface.
PROGRAMS = {"training": 0.6, "encoders": 0.8, "sharded": 1.0}
ONE_RANK = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}


def run(context: Context) -> Iterator[Line]:
    variables = {name: value for name, value in environment(context).items() if name != "TRITON_INTERPRET"}
    began, left = time.monotonic(), max(context.left() - child.GRACE, 0.0)
    product = str(context.facts.get("product_flops", {}).get("bfloat16", 0.0))
    for name, share in PROGRAMS.items():
        words = ["--product", product] if name == "encoders" else []
        until = began + share * left
        yield from child.follow(
            context, f"bench.gpu.{name}", *words, until=until, environment={**variables, **ONE_RANK}
        )
