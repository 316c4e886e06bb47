"""Files as one who means harm would make them, and the command run on them as a process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests import forked

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")},
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
}


class Payload:
    """Whoever unpickles it makes the folder `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def refused(*words: str, names: Path) -> str:
    """`vtsum WORDS` with "y" on standard input: exit status 2 and one line, which names the file; what it says."""
    done = forked.run(
        [sys.executable, "-m", "vtsum.cli", *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        input="y\n" * 9,
        timeout=240,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("vtsum: ")]
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert len([line for line in said if str(names) in line]) == 1, done.stderr[-3000:]
    return said[-1]


def changed_json(folder: Path, name: str, **fields: Any) -> None:
    """Let an object in a file of a folder have these fields too."""
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | fields))
