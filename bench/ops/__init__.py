"""The ops that are measured: each is a folder here; its `cases` has OP, its `tables` TABLES and pictures()."""

from __future__ import annotations

import importlib
from typing import Any

OPS = ("sliding_window_attention", "memory_attention", "memory_fuse")


def benchmark(op: str) -> Any:
    """The `bench.kit.op.Op` of an op."""
    return importlib.import_module(f"bench.ops.{op}.cases").OP


def tables(op: str) -> Any:
    """The module of an op's tables and pictures."""
    return importlib.import_module(f"bench.ops.{op}.tables")
