"""What every benchmark of the summariser does: the options it has in common, records kept as they come."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.kit.record import RESULTS, append


def parser(doc: str | None, name: str, *, shared: bool | None = False) -> argparse.ArgumentParser:
    """Options for `python -m bench.summary.NAME`: where records go and, unless `shared` is False, where data sets lie.

    Args:
        shared: whether --shared must be given; None: it may be.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m bench.summary.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if shared is not False:
        made.add_argument(
            "--shared", type=Path, metavar="DIR", required=bool(shared), help="the folder that holds the data sets"
        )
    made.add_argument("--results", type=Path, default=RESULTS / f"{name}.jsonl", help="default: %(default)s")
    return made


def keep(path: Path, facts: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Adds each record, with the facts that all have, to the file as soon as it is there, and prints it."""
    for line in lines:
        append(path, {**facts, **line})
        print(json.dumps(line), flush=True)
