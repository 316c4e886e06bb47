"""A comparison: the same computation by several implementations, in one process, in turns; one record for each.

Right numbers first: whoever computes something else, even ourselves, gets a record with the error and no speed. Who
cannot take part gets a record that says why.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.kit.accuracy import Errors
from bench.kit.clock import Call, Clock, Sampler, gpu_is_broken, page_in
from bench.kit.record import COPY, OURS, PRODUCT, append, comparison_key, quantiles, read

GIB = 2**30
PATIENCE = 3.0
#: Bytes of memory that are there for the calls, if theirs are fewer.
LEAST_PAGED_IN = 2**29


class Absent(Exception):
    """An implementation's package is not installed."""


class LeftOut(Exception):
    """It would take too long to find out how fast an implementation is."""


class Broken(Exception):
    """One left the GPU unusable for this process, as an access out of bounds does; the message names it."""


@dataclass(frozen=True)
class Entry:
    """One implementation."""

    name: str
    start: Callable[[], Call]
    """Prepares its call. Raises Absent, LeftOut, or whatever the implementation raises."""
    check: Callable[[tuple[Tensor, ...]], Errors] | None = None
    """How far off its results are; None for a roofline, which computes something else."""
    bound: float = 0.0
    """The largest RMS ratio of error and result that counts as right."""
    limited: bool = True
    """Left out where it is too slow for a rival."""
    longest: float = math.inf
    """Left out where a call takes more seconds than this, rival or not."""
    flops: int = 0
    """Of a call, where it is a roofline that computes something else."""
    compiled: bool = False
    """Its first call compiles, and says nothing about its speed."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else its record says."""


@dataclass(frozen=True)
class Comparison:
    """What identifies a measurement beside its implementation, and how to set it up."""

    facts: dict[str, Any]
    names: tuple[str, ...]
    """Those who take part."""
    moved: int
    """Bytes that the computation has to read and write at the least."""
    entries: Callable[[], list[Entry]]
    """Makes the inputs and the implementations."""
    clock: Callable[[], Clock]
    flops: int = 0
    """Floating-point operations that the computation takes at the least; 0 where bytes are what it is measured by."""


class Limits(NamedTuple):
    seconds: float
    """To spend on an implementation's measurements."""
    slow: float
    """Whoever takes more seconds than this for a call, and more than PATIENCE times as long as we do, is left out."""
    deadline: float = math.inf
    """On `time.monotonic`'s clock: who has not begun by then is left out, and measuring ends."""


#: For an implementation, dtype and pass: the shapes of its calls and their seconds.
History = dict[tuple[Any, ...], list[tuple[dict[str, int], float]]]


@dataclass
class Ready:
    entry: Entry
    call: Call
    record: dict[str, Any]
    estimate: float
    sampler: Sampler | None = None
    times: list[float] = field(default_factory=list)
    failure: dict[str, Any] | None = None  # what ended its part in the middle

    def prepare(self, clock: Clock) -> None:
        """Finds the way to measure its call."""
        try:
            self.sampler = clock.sampler(self.call, self.estimate)
        except Exception as error:
            _free()
            self.failure = failure(error)

    def play(self) -> float:
        """One sample, in seconds; one that fails ends the implementation's part, not the comparison."""
        assert self.sampler is not None
        try:
            return self.sampler.sample()
        except Exception as error:  # out of memory, mostly: whatever an implementation raises is its result
            _free()
            self.failure = failure(error)
            return math.nan


def compare(
    comparison: Comparison,
    limits: Limits,
    history: History,
    order: random.Random,
    say: Callable[[str], None],
    without: frozenset[str] = frozenset(),
) -> Iterator[dict[str, Any]]:
    """The records: first of those who do not get a time, then all others at once.

    Args:
        without: implementations that do not take part.
    Raises:
        Broken: after the record of whoever broke the GPU. The others can be measured in another process.
    """
    clock = comparison.clock()
    ready: list[Ready] = []
    for entry in comparison.entries():
        if entry.name in without:
            continue
        say(entry.name)
        record = {**comparison.facts, "name": entry.name, **entry.facts}
        one, refusal = _admit(entry, record, clock, limits, history, (entry.name, *_kind(comparison.facts)))
        if one is None:
            bad = gpu_is_broken()
            yield {**record, **refusal, **({"broke": True} if bad else {})}
            if bad:
                raise Broken(entry.name)
        else:
            ready.append(one)
            if entry.name == OURS:
                limits = limits._replace(slow=max(limits.slow, PATIENCE * one.estimate))
    say("measuring")
    if not torch.cuda.is_initialized():
        page_in(max(2 * comparison.moved, LEAST_PAGED_IN))
    culprit = _measure(ready, clock, limits, order)
    if culprit is not None:
        yield {**culprit.record, **(culprit.failure or {}), "broke": True}
        raise Broken(culprit.entry.name)
    medians = {one.entry.name: statistics.median(one.times) for one in ready if one.failure is None}
    rooflines = {one.entry.name: one.entry.flops / medians[one.entry.name] for one in ready if one.failure is None}
    for one in ready:
        if one.failure is not None:
            yield {**one.record, **one.failure}
            continue
        peak = _peak(clock, one.call)
        assert one.sampler is not None
        yield {
            **one.record,
            "status": "ok",
            "time_us": quantiles([t * 1e6 for t in one.times]),
            "repeats": len(one.times),
            "calls_a_repeat": one.sampler.calls,
            "clock": one.sampler.method,
            **_speed(comparison, one.entry, medians[one.entry.name], medians.get(COPY), rooflines.get(PRODUCT)),
            "peak_mib": None if peak is None else round(peak / 2**20, 1),
        }


def compare_into(
    path: Path,
    op: str,
    run: str,
    comparison: Comparison,
    machine: dict[str, Any],
    limits: Limits,
    history: History,
    order: random.Random,
    say: Callable[[str], None] = lambda name: None,
) -> dict[str, dict[str, Any]] | None:
    """`compare`, each record added to a file as soon as it is known; None where the run has the whole comparison.

    Who broke the GPU for the run before does not take part again.

    Returns:
        dict: what the run knows of the comparison now, by implementation.
    Raises:
        Broken: as `compare`.
    """

    def known() -> dict[str, dict[str, Any]]:
        wanted = (op, run, machine["device_type"], comparison_key(comparison.facts))
        return {r["name"]: r for r in read(path) if (r["op"], r["run"], r["device_type"], comparison_key(r)) == wanted}

    before = known()
    if all(name in before for name in comparison.names):
        return None
    machine = {**machine, "load_before": round(os.getloadavg()[0], 2)}
    without = frozenset(name for name, record in before.items() if record.get("broke"))
    for record in compare(comparison, limits, history, order, say, without):
        append(path, {"op": op, "run": run, **record, **machine})
    return known()


def _speed(
    comparison: Comparison, entry: Entry, seconds: float, copy: float | None, product: float | None
) -> dict[str, float | int | None]:
    """How fast that is, and as a share of the speed of the rooflines that took part."""
    facts: dict[str, float | int | None] = {
        "gb_s": None if entry.flops else _number(comparison.moved / seconds / 1e9),
        "moved_bytes": comparison.moved,
        "share_of_copy": None if copy is None else _number(copy / seconds),
    }
    if comparison.flops:
        flops = entry.flops or comparison.flops
        facts |= {
            "flops": flops,
            "gflop_s": _number(flops / seconds / 1e9),
            "share_of_product": None if product is None else _number(flops / seconds / product),
        }
    return facts


def _peak(clock: Clock, call: Call) -> int | None:
    try:
        return clock.peak(call)
    except Exception:  # it had its time; one more call that fails costs it this number alone
        _free()
        return None


def _kind(facts: dict[str, Any]) -> tuple[Any, ...]:
    return facts["case"], facts["dtype"], facts["pass"], facts.get("layout")


def _admit(
    entry: Entry, record: dict[str, Any], clock: Clock, limits: Limits, history: History, key: tuple[Any, ...]
) -> tuple[Ready | None, dict[str, Any]]:
    """The implementation ready to be measured, or None and why not."""
    if time.monotonic() > limits.deadline:
        return None, {"status": "left out", "reason": "no time was left"}
    slow = min(limits.slow if entry.limited else math.inf, entry.longest)
    shape = record["shape"]
    for smaller, seconds in history.setdefault(key, []):
        if seconds > slow and all(shape[name] >= size for name, size in smaller.items()):
            return None, {"status": "too slow", "reason": f"a call of a smaller shape took {seconds:.1f} s"}
    try:
        call = entry.start()
        outputs, first = clock.once(call)
        if entry.check is not None:
            errors = entry.check(outputs)
            record["max_error"] = _number(errors.max_error)
            record["rms_ratio"] = _number(errors.rms_ratio)
            record["checked_rows"] = errors.checked_rows
            if not errors.rms_ratio <= entry.bound:
                reason = f"RMS ratio of error and result {errors.rms_ratio:.1e}, allowed {entry.bound:.1e}"
                return None, {**record, "status": "wrong", "reason": reason}
        del outputs
        record["first_call_s"] = round(first, 3)
        seconds = first
        if entry.compiled or first <= 5 * slow:  # a first call may load and prepare things
            seconds = min(clock.once(call)[1] for _ in range(2 if first < 0.5 else 1))
    except Absent as missing:
        return None, {"status": "absent", "reason": str(missing)}
    except LeftOut as reason:
        return None, {"status": "left out", "reason": str(reason)}
    except Exception as error:  # whatever an implementation raises is its result
        _free()
        return None, failure(error)
    history[key].append((shape, seconds))
    if seconds > slow:
        return None, {**record, "status": "too slow", "reason": f"a call took {seconds:.1f} s"}
    return Ready(entry, call, record, seconds), {}


def _number(value: float) -> float | None:
    """Four digits; JSON has no infinity."""
    return float(f"{value:.3e}") if math.isfinite(value) else None


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # where the GPU is broken, even this is refused
            torch.cuda.empty_cache()


def failure(error: Exception) -> dict[str, Any]:
    """The part of a record that says what an implementation raised."""
    lines = str(error).strip().splitlines() or [""]
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or re.search(
        r"out of memory|can't allocate memory", str(error)
    )
    reason = f"{type(error).__name__}: {lines[0][:300]}"
    return {"status": "out of memory" if memory else "cannot run", "reason": reason}


def repeats(limits: Limits, seconds: float) -> int:
    """How often to measure a sample of that length: the slower, the less often, but three times at least."""
    return min(max(round(limits.seconds / max(seconds, 1e-9)), 3), 200)


def _measure(ready: list[Ready], clock: Clock, limits: Limits, order: random.Random) -> Ready | None:
    """Fills in the times: implementations in turns, in a new order every round; the slow ones sit out some rounds.

    Returns:
        Ready | None: the one that broke the GPU, if any did.
    """
    turns: dict[str, int] = {}
    for one in ready:
        one.prepare(clock)
        if one.failure is None and one.estimate < 0.1:  # a slow call was made twice by now, and is known well enough
            one.play()
            again = one.play()
            one.estimate = one.estimate if one.failure is not None else again
        if one.failure is not None:
            if gpu_is_broken():
                return one
            continue
        assert one.sampler is not None
        turns[one.entry.name] = repeats(limits, one.estimate * one.sampler.calls)
    rounds = max(turns.values(), default=0)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            if time.monotonic() > limits.deadline and i >= 3:
                break
            plays = [
                one
                for one in ready
                if one.failure is None
                and (i + 1) * turns[one.entry.name] // rounds > i * turns[one.entry.name] // rounds
            ]
            for one in order.sample(plays, len(plays)):
                took = one.play()
                if one.failure is None:
                    one.times.append(took)
                elif gpu_is_broken():
                    return one
        for one in ready:  # whose turn had not come yet when the time was over
            if one.failure is None and not one.times:
                took = one.play()
                one.times += [took] if one.failure is None else []
    finally:
        gc.enable()
    return None
