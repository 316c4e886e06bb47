"""Which tile sizes a Triton kernel runs with: measured once for each kind of call, and remembered.

A choice changes how fast a call is, and its result by no more than rounding. It is kept in memory and in
`$XDG_CACHE_HOME/vtsum_kernels/triton.json` (by default under `~/.cache`); delete the file to measure anew. What was
measured elsewhere for this kind of GPU (`vtsum_kernels.tuned`) is taken without measuring it again. With
`VTSUM_KERNELS_AUTOTUNE=0` nothing is measured, nor while a CUDA graph is captured: what is not known runs with the
first candidate, as everything does in the interpreter.
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

from ..tuned import tuned

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


#: Cycles that the GPU waits before a call is timed, about 0.2 ms: it has been launched by then, and launching it is
#: not what is measured.
LAUNCHING = 400_000


def milliseconds(run: Callable[[], Any], repeats: int = 9, enough: float = 100.0) -> float:
    """Median time of `run` on the current CUDA stream, after one call that compiles and warms up."""
    import torch

    run()
    times: list[float] = []
    while len(times) < repeats and sum(times) < enough:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(LAUNCHING)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def admitted(choice: Sequence[Any] | None, candidates: Sequence[Config]) -> Config | None:
    """A choice made elsewhere, where it is a candidate but for its warps and stages; else None."""
    if choice is None:
        return None
    config = Config(*choice)
    sizes = {candidate[:3] for candidate in candidates}
    return config if config[:3] in sizes and config.warps in (1, 2, 4, 8, 16) and 1 <= config.stages <= 8 else None


class Tuner:
    """The choices made so far, those of earlier processes among them. `version` ties them to the compiler's."""

    def __init__(self, version: str, path: Callable[[], Path] = cache_file) -> None:
        self.version, self.path = version, path
        self.choices: dict[str, Config] | None = None

    def choose(
        self, key: str, candidates: Sequence[Config], measure: Callable[[Config], float], may_measure: bool = True
    ) -> Config:
        """The quickest candidate by `measure`, which gives infinity for those that cannot run here.

        What this machine measured comes first, then what was measured elsewhere, then measuring, then the first one.
        """
        if may_measure or self.choices:
            self.choices = self.read() if self.choices is None else self.choices
            known = self.choices.get(key)
            if known is not None and known in candidates:
                return known
        elsewhere = admitted(tuned().triton.get(key), candidates)
        if elsewhere is not None or not may_measure:
            return candidates[0] if elsewhere is None else elsewhere
        times = [measure(config) for config in candidates]
        best = candidates[times.index(min(times))]
        self.choices = {**(self.choices or {}), key: best}
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
