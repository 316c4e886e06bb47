"""The commands of `vtsum`, a file each; importing this registers them all with `app`."""

# In the order in which `vtsum --help` lists them.
from vtsum.commands import summarize  # isort: skip
from vtsum.commands import batch  # isort: skip
from vtsum.commands import recut  # isort: skip
from vtsum.commands import export  # isort: skip
from vtsum.commands import data  # isort: skip
from vtsum.commands import extract  # isort: skip
from vtsum.commands import train  # isort: skip
from vtsum.commands import evaluate  # isort: skip
from vtsum.commands import score  # isort: skip
from vtsum.commands import table  # isort: skip
from vtsum.commands import benchmark  # isort: skip
from vtsum.commands import push  # isort: skip
from vtsum.commands import models  # isort: skip
from vtsum.commands import serve  # isort: skip
from vtsum.commands import env  # isort: skip
from vtsum.commands.app import Abort, UsageError, app

__all__ = [
    "Abort",
    "UsageError",
    "app",
    "batch",
    "benchmark",
    "data",
    "env",
    "evaluate",
    "export",
    "extract",
    "models",
    "push",
    "recut",
    "score",
    "serve",
    "summarize",
    "table",
    "train",
]
