"""What the recipes' commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vtsum.errors import VTSumError


def status(work: Callable[[], Any]) -> int:
    """Do the work of a command; its exit status: 2, and one line, after a mistake that the user can mend."""
    try:
        work()
    except (VTSumError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
