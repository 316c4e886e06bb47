"""Which backend serves a call, and why not the others.

One predicate per backend serves both the choice and the explanation, so that the two cannot disagree.
Order of preference: an explicit ``backend=`` (raises if it cannot run; never falls back), then the environment variable
``VTSUM_KERNELS_BACKEND`` (read once, at import), then the first of the op's backends that can run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
ENVIRONMENT_VARIABLE = "VTSUM_KERNELS_BACKEND"
ENVIRONMENT_BACKEND = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() or AUTO

#: A predicate gets the checked call and says why the backend cannot serve it; None means that it can.
Predicate = Callable[[Any], "str | None"]


@dataclass(frozen=True)
class Op:
    """What the dispatcher knows of an op: its backends, best first, and how to check a call."""

    name: str
    backends: dict[str, Predicate]
    check: Callable[..., Any]
    #: Says which backend serves a call better than those before it in `backends`; None where the order stands.
    preferred: Callable[[Any], str | None] = lambda call: None


_OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    _OPS[op.name] = op
    return op


def can_run(op: Op, backend: str, call: Any) -> str | None:
    """None when `backend` can serve `call`, else the reason in words. `call` is what the op's check returned."""
    return op.backends[backend](call)


def choose(op: Op, backend: str, call: Any) -> str:
    """The name of the backend that serves `call`.

    Raises:
        ValueError: if `backend` is not a backend of the op.
        NotImplementedError: if an explicit backend cannot serve the call.
    """
    asked = backend
    if asked == AUTO and ENVIRONMENT_BACKEND != AUTO:
        asked = ENVIRONMENT_BACKEND
    if asked == AUTO:
        better = op.preferred(call)
        if better is not None:
            return better
        for name, predicate in op.backends.items():
            if predicate(call) is None:
                return name
        raise NotImplementedError(f"{op.name}: no backend can serve this call: {_reasons(op, call)}")
    if asked not in op.backends:
        where = "backend" if backend != AUTO else ENVIRONMENT_VARIABLE
        raise ValueError(f"{op.name}: {where} must be one of {', '.join([AUTO, *op.backends])}, got {asked}")
    reason = op.backends[asked](call)
    if reason is not None:
        raise NotImplementedError(f"{op.name}: backend {asked} cannot serve this call: {reason}")
    return asked


def _reasons(op: Op, call: Any) -> str:
    return "; ".join(f"{name}: {predicate(call) or 'can run'}" for name, predicate in op.backends.items())


def explain(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Says in words which backend serves a call, and why not the others.

    Args:
        op: a public op or its name, such as ``"sliding_window_attention"``.
        *args, **kwargs: the call's own arguments, exactly as the op takes them.
    Returns:
        str: one line a backend, best first; the chosen one is marked with ``->``.
    Raises:
        ValueError: if the op is unknown, or the call itself is wrong (the op's own message).

    Example: ``print(explain("sliding_window_attention", q, k, v, 5))``.
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", str(op))
    if name not in _OPS:
        raise ValueError(f"explain: op must be one of {', '.join(sorted(_OPS))}, got {name}")
    record = _OPS[name]
    asked = kwargs.pop("backend", AUTO)
    call = record.check(*args, **kwargs)
    try:
        chosen: str | None = choose(record, asked, call)
        problem = ""
    except NotImplementedError as error:
        chosen, problem = None, f"\n{error}"
    asked_by = "asked for" if asked != AUTO else "set by " + ENVIRONMENT_VARIABLE
    forced = asked != AUTO or ENVIRONMENT_BACKEND != AUTO
    lines = []
    best = "the fastest for it" if record.preferred(call) == chosen else "the best that can run"
    for backend, predicate in record.backends.items():
        reason = predicate(call)
        if backend == chosen:
            lines.append(f"-> {backend}: serves this call ({asked_by if forced else best})")
        elif reason is None:
            why = f"another was {asked_by}" if forced else "another is faster for it"
            lines.append(f"   {backend}: could run; {why}")
        else:
            lines.append(f"   {backend}: cannot: {reason}")
    return f"{name}:\n" + "\n".join(lines) + problem
