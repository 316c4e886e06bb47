"""`python -m vtsum`: the command `vtsum`."""

from __future__ import annotations

import sys

from vtsum.cli import main

if __name__ == "__main__":
    sys.exit(main())
