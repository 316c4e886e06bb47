"""A destroyed group of processes leaves no thread: one that works while the interpreter goes down aborts it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vtsum.samples import ROOT, free_port

KINDS = ["evaluation", "training", "deepspeed", "benchmark"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_thread_is_left(tmp_path, kind):
    given = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    given["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.vtsum.test_groups_end", kind, str(tmp_path / "store")],
            env={**os.environ, **given, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in "01"
    ]
    for rank in ranks:
        out, error = rank.communicate(timeout=180)
        assert rank.returncode == 0, error
        assert out.split("\n")[-2] == "left: []"


def _use(kind: str, store: str) -> None:
    """Make a group, use it, load the compiler meanwhile, as a first use of it would, and destroy the group."""
    import torch

    from vtsum.processes import Group, Place

    place = Place.here()
    if kind == "evaluation":
        with Group() as group:
            assert group.everyone(place.rank) == [0, 1]
            _load_compiler()
    elif kind == "benchmark":
        from bench.summary import sequence_parallel

        options = argparse.Namespace(all=False, frames=[48], window=9, repeats=1)
        assert list(sequence_parallel.measure(options, place.rank, 2, store))
        _load_compiler()
    else:
        if kind == "training":
            from vtsum.training.engine import join
        else:
            from vtsum.training.deepspeed_engine import join
        join(place, 5.0)
        torch.distributed.barrier()
        _load_compiler()
        torch.distributed.destroy_process_group()


def _load_compiler() -> None:
    import torch._dynamo  # noqa: F401


def _threads() -> list[str]:
    return [name for task in Path("/proc/self/task").iterdir() if "gloo" in (name := (task / "comm").read_text())]


if __name__ == "__main__":
    _use(*sys.argv[1:])
    print(f"left: {_threads()}")
