"""Summarise a library on a Ray cluster, and see which kinds of failure it has.

pip install 'vtsum[cluster,speech,ocr]'
RAY_ADDRESS=10.0.0.1:6379 python examples/ray_batch.py library.parquet /shared/summaries 8

library.parquet lists the videos in its column `path`; without RAY_ADDRESS a cluster begins on this machine. All of the
cluster's machines see the videos and the summaries under the same paths. Run again, it goes on where it was.
"""

import sys
from collections import Counter
from pathlib import Path

import pyarrow.compute as pc
from pyarrow import parquet

import vtsum


def main(listed, output, workers):
    done_before = 0

    def tell(done, total, names):
        nonlocal done_before
        if done >= done_before + max(total // 20, 1):  # twenty lines, whatever the library's size
            done_before = done
            print(f"{done} of {total}; at work: {', '.join(names)}", flush=True)

    table = Path(output) / "results.parquet"
    vtsum.batch([f"@{listed}"], output, executor="ray", workers=workers, budget="20%", table=table, progress=tell)
    results = parquet.read_table(table)
    print(dict(Counter(results["status"].to_pylist())))
    failed = results.filter(pc.equal(results["status"], "failed"))
    for source, reason in zip(failed["source"].to_pylist(), failed["reason"].to_pylist(), strict=True):
        print(f"{source}: {reason}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
