"""Which sizes a Triton kernel runs with: measured once for each kind of call, and remembered.

A choice changes how fast a call is, and its result by no more than rounding. Two files hold choices, in one format:

    {"format": 3, "made_with": "triton 3.6.0",
     "choices": {"NVIDIA H200 fwd torch.bfloat16 D=64 narrow 2 2 many": ["tile", 64, 64, 4, 1, 0]}}

- What this machine measured: `$XDG_CACHE_HOME/vtsum_kernels/triton.json` (by default under `~/.cache`; a user without a
  home keeps nothing), of this version of Triton. Delete the file to measure anew. Processes change it in turns.
- What was measured elsewhere for this kind of GPU: the file that `VTSUM_KERNELS_TUNED` names; without it, `tuned.json`
  in the package, where there is one; empty: none. `python -m bench.gpu.check --tune` writes it.

While a CUDA graph is captured nothing can be measured: what neither file knows runs with the first candidate, as
everything does in the interpreter, and the graph keeps it. So make a call of each kind before the capture. With
`VTSUM_KERNELS_AUTOTUNE=0` nothing is measured at all, and what this machine measured before is not read. A file that
cannot be read is ignored with a warning.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

AUTOTUNE_VARIABLE = "VTSUM_KERNELS_AUTOTUNE"
TUNED_VARIABLE = "VTSUM_KERNELS_TUNED"
FORMAT = 3
#: Cycles that the GPU waits before a call is timed, about 0.2 ms: it has been launched by then, and launching it is
#: not what is measured.
LAUNCHING = 400_000
#: Seconds that a process waits at most for the others that change a file: who holds the lock may have been stopped.
PATIENCE = 5.0


class Config(NamedTuple):
    """A form of a kernel ("tile", "strip" ...) and its sizes: rows, keys or columns, warps, pipeline stages, and the
    most registers a thread may have, where the compiler shall not decide (0): fewer, and more warps fit an SM."""

    form: str
    block_m: int
    block_n: int
    warps: int
    stages: int
    registers: int = 0


class Choices(NamedTuple):
    """What a file holds: configs by their keys, and the compiler that they were measured with."""

    made_with: str
    configs: dict[str, Config]


def wanted() -> bool:
    return os.environ.get(AUTOTUNE_VARIABLE, "1") != "0"


def cache_file() -> Path | None:
    """Where this machine's choices are kept; None where the user has no home, as a container's may not."""
    folder = os.environ.get("XDG_CACHE_HOME")
    if not folder:
        try:
            folder = str(Path.home() / ".cache")
        except RuntimeError:  # neither HOME nor an entry among the machine's users
            return None
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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within it no other process that asks for the same changes the file: a lock on another one beside it.

    Where the file system has no locks, or one is held for longer than PATIENCE, there is none: what is lost then is
    a choice, which is measured again.

    Raises:
        OSError: the file beside it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    with path.with_name(f"{path.name}.lock").open("a") as file:  # closing it gives the lock back
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.005)
                    continue
            except OSError:
                pass
            break
        yield


_read_once = lru_cache(maxsize=8)(read)


def tuned() -> dict[str, Config]:
    """The choices of `tuned_file`, read once."""
    path = tuned_file()
    return {} if path is None else _read_once(path).configs


def _config(entry: Any) -> Config:
    form, *sizes = entry
    if not isinstance(form, str) or len(sizes) != 5 or not all(type(size) is int for size in sizes):
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
    """A choice made elsewhere, where it is a candidate but for its warps, stages and registers; else None."""
    if config is None:
        return None
    sizes = {candidate[:3] for candidate in candidates}
    sensible = config.warps in (1, 2, 4, 8, 16) and 1 <= config.stages <= 8
    sensible = sensible and (config.registers == 0 or 32 <= config.registers <= 255)
    return config if sensible and config[:3] in sizes else None


def elsewhere(key: str, candidates: Sequence[Config]) -> Config | None:
    """What was measured elsewhere for this kind of call, where it may be taken."""
    return admitted(tuned().get(key), candidates)


class Tuner:
    """The choices made so far, those of earlier processes among them. `version` ties them to the compiler's."""

    def __init__(self, version: str, path: Callable[[], Path | None] = cache_file) -> None:
        self.version, self.path = version, path
        self.choices: dict[str, Config] | None = None

    def choose(
        self,
        key: str,
        candidates: Sequence[Config],
        measure: Callable[[Config], float | None],
        may_measure: bool = True,
    ) -> Config:
        """The quickest candidate; the first where nothing is known and nothing could be measured.

        What this machine measured comes first, then what was measured elsewhere, then measuring.

        Args:
            measure: gives a candidate's time; infinity where it has no room on this GPU, None where it failed for a
                reason that may pass, such as memory that others held. Then the choice is not written: it lasts as long
                as the process; and where no candidate ran, no longer than the call.
        """
        if self.choices is None:
            self.choices = self.read()
        known = self.choices.get(key)
        if known is None or known not in candidates:
            known = elsewhere(key, candidates)
        if known is not None or not may_measure:
            return known or candidates[0]
        self.choices = self.read() | self.choices  # another process may have measured it meanwhile
        known = self.choices.get(key)
        if known is not None and known in candidates:
            return known
        times = [measure(config) for config in candidates]
        ran = {config: t for config, t in zip(candidates, times, strict=True) if t is not None and t < math.inf}
        if not ran:
            return candidates[0]
        best = min(ran, key=ran.__getitem__)
        self.choices[key] = best
        if None not in times:
            self.write(key, best)
        return best

    def read(self) -> dict[str, Config]:
        """What the file holds; nothing of another version's."""
        path = self.path()
        if path is None:
            return {}
        made_with, configs = read(path)
        return configs if made_with == self.version else {}

    def write(self, key: str, config: Config) -> None:
        """Adds a choice to the file."""
        path = self.path()
        if path is None:
            why = "there is no home directory; XDG_CACHE_HOME can name another place"
            warnings.warn(f"vtsum_kernels: tuned sizes are not kept: {why}", stacklevel=2)
            return
        try:
            with locked(path):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a broken file was reported when it was read
                    configs = self.read() | {key: config}
                write(path, Choices(self.version, configs))
        except OSError as error:
            warnings.warn(f"vtsum_kernels: cannot write the tuned sizes to {path}: {error}", stacklevel=2)
