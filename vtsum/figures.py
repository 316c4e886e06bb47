"""matplotlib without the settings that the current folder may hold."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vtsum.errors import VTSumError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_matplotlib() -> Any:
    """matplotlib, imported; a file `matplotlibrc` in the current folder, a stranger's run perhaps, is not read: its
    settings may have LaTeX run.

    Raises:
        VTSumError: it is not installed, or MPLBACKEND names what it does not know.
    """
    try:
        with _elsewhere():
            import matplotlib
    except ImportError:
        raise VTSumError("plot: matplotlib must be installed: pip install vtsum[train]") from None
    except ValueError:
        backend = os.environ.get("MPLBACKEND")
        if backend is None:
            raise
        raise VTSumError(f"plot: MPLBACKEND must be a backend of matplotlib's, got {backend!r:.80}") from None
    if matplotlib.rcParams["svg.hashsalt"] is None:  # the same picture would be another file each time
        matplotlib.rcParams["svg.hashsalt"] = "vtsum"
    return matplotlib


def save(figure: Figure, file: Path | BinaryIO, **options: Any) -> None:
    """Draw a figure into a file, letters that matplotlib's fonts do not have as boxes, without a word of each.

    Args:
        options: of matplotlib's `savefig`.
    Raises:
        OSError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(file, **options)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """With the package's own folder as the current one."""
    try:
        os.getcwd()
    except OSError:  # removed meanwhile: nothing lies in it
        yield
        return
    with contextlib.chdir(Path(__file__).parent):
        yield
