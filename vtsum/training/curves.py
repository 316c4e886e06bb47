"""The curves of training runs as one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtsum.errors import VTSumError
from vtsum.figures import load_matplotlib, save
from vtsum.files import written
from vtsum.shown import clean, reason
from vtsum.training.records import METRICS, read_metrics

PANELS = {
    "loss": "loss",
    "loss_vsum": "video loss",
    "loss_tsum": "text loss",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "seconds": "seconds a step",
}

_NAME = 60  # letters of a run's name
LARGEST = 1e39  # float32 holds no more; many of them can be added up


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and those before it, at most `window`; the same length."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(1, len(values) + 1)
    low = np.maximum(at - window, 0)
    return (sums[at] - sums[low]) / (at - low)


def plot(runs: Sequence[Path], output: Path) -> None:
    """Draw the losses, learning rate, gradient norm and step time of runs over each other.

    Noisy curves are drawn faint, with their mean over a fiftieth of the run on top.

    Args:
        runs: run folders, with a metrics.jsonl each.
        output: .png, .svg or .pdf.
    Raises:
        VTSumError: a run without steps, another ending, or a place that cannot be written to.
    """
    load_matplotlib().use("Agg")
    from matplotlib import pyplot

    if output.suffix not in (".png", ".svg", ".pdf"):
        raise VTSumError(f"plot: output must end in .png, .svg or .pdf, got {output}")
    lines = {}
    for run in runs:
        path = run / METRICS
        if not path.is_file():
            got = f"something else than a file as {path}" if os.path.lexists(path) else f"{run} without {METRICS}"
            raise VTSumError(f"plot: run must be the folder of a training run, got {got}")
        lines[run] = read_metrics(path)
        if not lines[run]:
            raise VTSumError(f"plot: run must have trained a step, got {run} with an empty {METRICS}")
        for line in lines[run]:
            for key in PANELS:
                if key not in line or not isinstance(line[key], int | float | None) or abs(line[key] or 0) > LARGEST:
                    raise VTSumError(
                        f"plot: {key} in {path} must be a number of at most {LARGEST:g}, got {line.get(key)!r:.80}"
                    )
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    for axis, (key, title) in zip(axes.flat, PANELS.items(), strict=True):
        for number, run in enumerate(runs):
            steps = np.array([line["step"] for line in lines[run]])
            values = np.array([line[key] for line in lines[run]], dtype=float)
            color = f"C{number % 10}"
            if key != "lr":
                axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
                values = smooth(values, max(1, len(values) // 50))
            axis.plot(steps, values, color=color, label=_label(run))
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    try:
        with written(output) as part:
            save(figure, part, dpi=110, format=output.suffix[1:])
    except OSError as error:
        raise VTSumError(f"plot: output {output} must be writable: {reason(error)}") from None
    finally:
        pyplot.close(figure)


def _label(run: Path) -> str:
    """A run's name that matplotlib takes for no formula, nor, as one that begins with an underscore, for none; as much
    of it as leaves room for the curves."""
    name = clean(run.name or str(run))
    name = (name if len(name) <= _NAME else f"{name[: _NAME - 1]}\u2026").replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name
