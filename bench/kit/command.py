"""What every benchmark of the summariser has on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.kit.record import RESULTS


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
