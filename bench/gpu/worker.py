"""Runs one part of the GPU check in a process of its own: ``python -m bench.gpu.worker PART MODULE CONTEXT``.

CONTEXT is a `Context` as JSON. Whatever goes wrong inside the part becomes a failed line, and its traceback goes to the
log. `bench.gpu.check` starts this, and ends it where the part outlives its time.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context, Line, record

OURS = ("bench", "vtsum", "vtsum_kernels", "tests")


def to_json(context: Context) -> str:
    return json.dumps({f.name: getattr(context, f.name) for f in fields(context)}, default=str)


def from_json(text: str) -> Context:
    values: dict[str, Any] = json.loads(text)
    return Context(**{**values, "out": Path(values["out"]), "scratch": Path(values["scratch"])})


def what_went_wrong(part: str, error: BaseException) -> Line:
    """A missing package of others is absent; all else has failed. In one line; the traceback is for the log."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in OURS:
        return Line(part, "absent", f"the package {error.name} is not installed")
    last = traceback.format_exception_only(error)[-1].strip().splitlines()
    return Line(part, "failed", last[0] if last else type(error).__name__)


def main(arguments: list[str]) -> int:
    part, module, context = arguments[0], arguments[1], from_json(arguments[2])
    try:
        for line in importlib.import_module(module).run(context):
            record(context, part, line)
    except (Exception, SystemExit) as error:
        context.log(f"{part}: {traceback.format_exc()}")
        record(context, part, what_went_wrong(part, error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
