"""Which tile sizes a Triton kernel runs with: measured once for each kind of call, and remembered.

A choice changes how fast a call is, and its result by no more than rounding. It is kept in memory and in
`$XDG_CACHE_HOME/vtsum_kernels/triton.json` (by default under `~/.cache`); delete the file to measure anew. With
`VTSUM_KERNELS_AUTOTUNE=0`, in the interpreter and while a CUDA graph is captured, the first candidate is taken.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ENVIRONMENT_VARIABLE = "VTSUM_KERNELS_AUTOTUNE"
FORMAT = 1


class Config(NamedTuple):
    """A form of the kernels ("strip", "tile" or "fused") and its sizes: rows, keys, warps and pipeline stages."""

    form: str
    block_m: int
    block_n: int
    warps: int
    stages: int


def wanted() -> bool:
    return os.environ.get(ENVIRONMENT_VARIABLE, "1") != "0"


def cache_file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder, "vtsum_kernels", "triton.json")


def milliseconds(run: Callable[[], Any], repeats: int = 9, enough: float = 100.0) -> float:
    """Median time of `run` on the current CUDA stream, after one call that compiles and warms up."""
    import torch

    run()
    times: list[float] = []
    while len(times) < repeats and sum(times) < enough:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


class Tuner:
    """The choices made so far, those of earlier processes among them. `version` ties them to the compiler's."""

    def __init__(self, version: str, path: Callable[[], Path] = cache_file) -> None:
        self.version, self.path = version, path
        self.choices: dict[str, Config] | None = None

    def choose(self, key: str, candidates: Sequence[Config], measure: Callable[[Config], float]) -> Config:
        """The quickest candidate by `measure`, which gives infinity for those that cannot run here."""
        if self.choices is None:
            self.choices = self.read()
        known = self.choices.get(key)
        if known is not None and known in candidates:
            return known
        times = [measure(config) for config in candidates]
        best = candidates[times.index(min(times))]
        self.choices[key] = best
        self.write(key, best)
        return best

    def read(self) -> dict[str, Config]:
        """What the file holds; nothing, with a warning, where it is broken, and nothing of another version's."""
        path = self.path()
        try:
            held = json.loads(path.read_text())
            if held["format"] != FORMAT or held["version"] != self.version:
                return {}
            return {str(key): self._config(entry) for key, entry in held["choices"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"vtsum_kernels: ignoring the tuning cache {path}: {error!r}", stacklevel=2)
            return {}

    @staticmethod
    def _config(entry: Any) -> Config:
        form, *sizes = entry
        if not isinstance(form, str) or len(sizes) != 4 or not all(type(size) is int for size in sizes):
            raise ValueError(f"{entry!r} is no choice")
        return Config(form, *sizes)

    def write(self, key: str, config: Config) -> None:
        """Adds a choice to the file, under a temporary name first: no reader ever sees half a file."""
        path = self.path()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken file was reported when it was read
            choices = self.read() | {key: config}
        text = json.dumps({"format": FORMAT, "version": self.version, "choices": choices}, indent=1, sort_keys=True)
        name = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
                name = file.name
                file.write(text)
            os.replace(name, path)
        except OSError as error:
            if name is not None:
                Path(name).unlink(missing_ok=True)
            warnings.warn(f"vtsum_kernels: cannot write the tuning cache {path}: {error}", stacklevel=2)
