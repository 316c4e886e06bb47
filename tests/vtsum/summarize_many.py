"""A worker: reads paths from standard input, summarises each with the stand-in model, prints one JSON line for each.

One process for many files, because starting one takes longer than a small file's summary; the parent watches the time.
"""

import json
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import pytest  # noqa: E402

import vtsum  # noqa: E402
from tests.vtsum.clips import numbered_clip  # noqa: E402
from tests.vtsum.fakes import ColourModel, deafen  # noqa: E402
from vtsum.summary import schema  # noqa: E402


def work(path: Path, folder: Path) -> dict:
    """What became of one file: "summary", "error" (with its line), or "crash" (with the traceback)."""
    began = time.monotonic()
    try:
        made = vtsum.summarize(path, folder / "out", model=ColourModel())
        schema.read(made.files["json"])
        found = {
            "result": "summary",
            "warnings": made.warnings,
            "frames": len(made.data["frames"]["time"]),
            "duration": made.data["source"]["duration"],
        }
    except vtsum.VTSumError as error:
        found = {"result": "error", "line": str(error)}
    except BaseException:
        found = {"result": "crash", "line": traceback.format_exc()}
    found["took"] = time.monotonic() - began
    found["left"] = [p.name for p in folder.iterdir() if p.name != "out" or found["result"] != "summary"]
    shutil.rmtree(folder / "out", ignore_errors=True)
    return found


if __name__ == "__main__":
    deafen(pytest.MonkeyPatch())
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as first:
        # Whatever is loaded with the first summary is no part of the time that a file takes.
        work(numbered_clip(Path(first) / "clip.mp4", 5), Path(place))
        for line in sys.stdin:
            print(json.dumps(work(Path(line.rstrip("\n")), Path(place))), flush=True)
