"""Which sizes a Triton kernel runs with: measured once for each kind of call, and remembered.

A choice changes how fast a call is, and its result by no more than rounding. Two files hold choices, in one format:

    {"format": 2, "made_with": "triton 3.6.0",
     "choices": {"NVIDIA H200 fwd torch.bfloat16 D=64 narrow 2 2 many": ["tile", 64, 64, 4, 1]}}

- What this machine measured: `$XDG_CACHE_HOME/vtsum_kernels/triton.json` (by default under `~/.cache`), of this version
  of Triton. Delete the file to measure anew.
- What was measured elsewhere for this kind of GPU: the file that `VTSUM_KERNELS_TUNED` names; without it, `tuned.json`
  in the package, where there is one; empty: none. `python -m bench.gpu.check --tune` writes it.

With `VTSUM_KERNELS_AUTOTUNE=0` nothing is measured, nor while a CUDA graph is captured: what is not known runs with the
first candidate, as everything does in the interpreter. A file that cannot be read is ignored with a warning.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

AUTOTUNE_VARIABLE = "VTSUM_KERNELS_AUTOTUNE"
TUNED_VARIABLE = "VTSUM_KERNELS_TUNED"
FORMAT = 2
#: Cycles that the GPU waits before a call is timed, about 0.2 ms: it has been launched by then, and launching it is
#: not what is measured.
LAUNCHING = 400_000


class Config(NamedTuple):
    """A form of a kernel ("tile", "strip" ...) and its sizes: rows, keys or columns, warps and pipeline stages."""

    form: str
    block_m: int
    block_n: int
    warps: int
    stages: int


class Choices(NamedTuple):
    """What a file holds: configs by their keys, and the compiler that they were measured with."""

    made_with: str
    configs: dict[str, Config]


def wanted() -> bool:
    return os.environ.get(AUTOTUNE_VARIABLE, "1") != "0"


def cache_file() -> Path:
    """Where this machine's choices are kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder, "vtsum_kernels", "triton.json")


def tuned_file() -> Path | None:
    """Where choices made elsewhere are read from; None where nobody wants any."""
    named = os.environ.get(TUNED_VARIABLE)
    if named is None:
        return Path(__file__).resolve().parents[1] / "tuned.json"
    return Path(named) if named else None


def read(path: Path) -> Choices:
    """The choices of a file: none where it is missing, and, with a warning, where it is broken."""
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {data['format']!r}")
        return Choices(str(data["made_with"]), {str(key): _config(entry) for key, entry in data["choices"].items()})
    except FileNotFoundError:
        return Choices("", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"vtsum_kernels: ignoring the tuned sizes of {path}: {error!r}", stacklevel=2)
        return Choices("", {})


def write(path: Path, choices: Choices) -> None:
    """Replaces the file: under a temporary name first, so that no reader ever sees half of one.

    Raises:
        OSError: it cannot be written.
    """
    contents = {"format": FORMAT, "made_with": choices.made_with, "choices": choices.configs}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(json.dumps(contents, indent=1, sort_keys=True) + "\n")
    try:
        os.chmod(file.name, 0o644)  # a temporary file is its owner's alone
        os.replace(file.name, path)
    except OSError:
        Path(file.name).unlink(missing_ok=True)
        raise


_read_once = lru_cache(maxsize=8)(read)


def tuned() -> dict[str, Config]:
    """The choices of `tuned_file`, read once."""
    path = tuned_file()
    return {} if path is None else _read_once(path).configs


def _config(entry: Any) -> Config:
    form, *sizes = entry
    if not isinstance(form, str) or len(sizes) != 4 or not all(type(size) is int for size in sizes):
        raise ValueError(f"{entry!r} is no choice")
    return Config(form, *sizes)


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


def admitted(config: Config | None, candidates: Sequence[Config]) -> Config | None:
    """A choice made elsewhere, where it is a candidate but for its warps and stages; else None."""
    if config is None:
        return None
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
        elsewhere = admitted(tuned().get(key), candidates)
        if elsewhere is not None or not may_measure:
            return candidates[0] if elsewhere is None else elsewhere
        times = [measure(config) for config in candidates]
        best = candidates[times.index(min(times))]
        self.choices = {**(self.choices or {}), key: best}
        self.write(key, best)
        return best

    def read(self) -> dict[str, Config]:
        """What the file holds; nothing of another version's."""
        made_with, configs = read(self.path())
        return configs if made_with == self.version else {}

    def write(self, key: str, config: Config) -> None:
        """Adds a choice to the file."""
        path = self.path()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken file was reported when it was read
            configs = self.read() | {key: config}
        try:
            write(path, Choices(self.version, configs))
        except OSError as error:
            warnings.warn(f"vtsum_kernels: cannot write the tuned sizes to {path}: {error}", stacklevel=2)
