"""Which backend serves a call, and why not the others.

An op is one function that takes the public arguments, checks them and returns the checked call; `op` makes the public
function of it. One predicate per backend serves both the choice and the explanation, so that the two cannot disagree.
Order of preference: an explicit ``backend=`` (raises if it cannot run; never falls back), then the environment variable
``VTSUM_KERNELS_BACKEND`` (read once, at import), then the first of the op's backends that can run.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from torch import Tensor

from . import library
from .library import AUTO, ENVIRONMENT_BACKEND, ENVIRONMENT_VARIABLE
from .tensors import autocasts

P = ParamSpec("P")

HAS_TRITON = importlib.util.find_spec("triton") is not None
#: Triton's interpreter runs its kernels on the CPU, for tests.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

#: A predicate gets the checked call and says why the backend cannot serve it; None means that it can.
Predicate = Callable[[Any], "str | None"]


@dataclass(frozen=True)
class Op:
    """What the dispatcher knows of an op: its backends, best first, and how to check a call."""

    name: str
    backends: dict[str, Predicate]
    check: Callable[..., Any]
    #: Says which backend serves a call better than those before it in `backends`; None where the order stands.
    preferred: Callable[[Any], str | None]
    #: Says in words what memory a backend that can run would hold beside the call's own tensors.
    holds: Callable[[str, Any], str]
    #: Says which kernels of a backend serve a call, where it has several.
    form: Callable[[str, Any], str | None]


_OPS: dict[str, Op] = {}
#: Of the threads in which `explain` runs a function: the calls of our ops so far.
_watched: dict[int, list[tuple[Op, Any]]] = {}


def op(
    backends: dict[str, Predicate],
    run: Callable[[str, Any], Any],
    preferred: Callable[[Any], str | None] = lambda call: None,
    form: Callable[[str, Any], str | None] = lambda backend, call: None,
    *,
    holds: Callable[[str, Any], str],
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Makes a public op of the function that checks its arguments, whose signature, defaults and docstring it keeps.

    Args:
        backends: the predicate of each, best first.
        run: serves a checked call by the backend of that name.
        preferred: says which backend serves a call better than those before it in `backends`; None: the order stands.
        form: says which kernels of a backend serve a call, where it has several.
        holds: says in words what memory a backend that can run holds beside the call's tensors.
    The function returns the checked call, a tuple whose first entry is a tensor on the call's device; its `backend` is
    the one that was asked for. It hands what torch.autocast shall reach to `tensors.autocast`.
    """

    def decorate(check: Callable[P, Any]) -> Callable[P, Any]:
        record = _OPS[check.__name__] = Op(check.__name__, backends, check, preferred, holds, form)

        @functools.wraps(check)
        def public(*args: P.args, **kwargs: P.kwargs) -> Any:
            call = check(*args, **kwargs)
            if _watched and (calls := _watched.get(threading.get_ident())) is not None:
                calls.append((record, call))
            backend, device = choose(record, call), call[0].device
            if not autocasts(device):
                return run(backend, call)
            with torch.autocast(device.type, enabled=False):  # what it casts was cast by `check`
                return run(backend, call)

        return public

    return decorate


def cpp_can_run(x: Tensor) -> str | None:
    """Whether the compiled CPU kernels take a tensor; None, or the reason in words."""
    if x.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {x.device}"
    if library.refusal("_cpu") is not None:
        return f"the compiled CPU kernels are not loaded: {library.refusal('_cpu')}"
    return library.no_forward_mode()


def cuda_can_run(x: Tensor) -> str | None:
    """The same of the compiled CUDA kernels."""
    if x.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {x.device}"
    if library.refusal("_cuda") is not None:
        return f"the compiled CUDA kernels are not loaded: {library.refusal('_cuda')}"
    return _gpu_dtype(x)


def triton_can_run(x: Tensor) -> str | None:
    """The same of the Triton kernels."""
    if x.device.type != "cuda" and not (TRITON_INTERPRETED and x.device.type == "cpu"):
        return f"it runs on CUDA, the tensors are on {x.device}"
    return _gpu_dtype(x) if HAS_TRITON else "the package triton is not installed"


def _gpu_dtype(x: Tensor) -> str | None:
    return "it takes float32, float16 and bfloat16" if x.dtype == torch.float64 else library.no_forward_mode()


def choose(op: Op, call: Any) -> str:
    """The name of the backend that serves `call`.

    Raises:
        ValueError: if the backend asked for is not one of the op's.
        NotImplementedError: if an explicit backend cannot serve the call.
    """
    asked: str = call.backend
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
        where = "backend" if call.backend != AUTO else ENVIRONMENT_VARIABLE
        raise ValueError(f"{op.name}: {where} must be one of {', '.join([AUTO, *op.backends])}, got {asked}")
    reason = op.backends[asked](call)
    if reason is not None:
        raise NotImplementedError(f"{op.name}: backend {asked} cannot serve this call: {reason}")
    return asked


def _reasons(op: Op, call: Any) -> str:
    return "; ".join(f"{name}: {predicate(call) or 'can run'}" for name, predicate in op.backends.items())


def amount(size: int) -> str:
    """Bytes in words."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 2**10:.1f} KiB"


def explain(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Says in words which backend serves a call, and why not the others.

    Args:
        op: a public op or its name, such as ``"sliding_window_attention"``, whose call is looked at and not made; or
            whatever calls ops: a function of `integrations`, a module. That is run.
        args, kwargs: the call's own arguments, exactly as it takes them.
    Returns:
        str: for each call of an op, one line a backend, best first; the chosen one is marked with ``->``. Those that
        can run say what memory they hold beside the call's own tensors.
    Raises:
        ValueError: if the op is unknown, or the call itself is wrong (the op's own message).

    Example: ``print(explain("sliding_window_attention", q, k, v, 5))``.
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", type(op).__name__)
    record = _OPS.get(name)
    if record is not None and (isinstance(op, str) or getattr(op, "__wrapped__", None) is record.check):
        return _explained(record, record.check(*args, **kwargs))
    if isinstance(op, str) or not callable(op):
        raise ValueError(f"explain: op must be one of {', '.join(sorted(_OPS))}, or a function, got {name}")
    calls: list[tuple[Op, Any]] = []
    thread = threading.get_ident()
    _watched[thread] = calls
    try:
        op(*args, **kwargs)
    except NotImplementedError:  # of a backend that was asked for: what it cannot is said below
        if not calls:
            raise
    finally:
        del _watched[thread]
    said = [_explained(*call) for call in calls] or ["no op of vtsum_kernels serves this call: torch's own do"]
    return "\n".join([f"{name}:", *said])


def _explained(record: Op, call: Any) -> str:
    asked = call.backend
    try:
        chosen: str | None = choose(record, call)
        problem = ""
    except NotImplementedError as error:
        chosen, problem = None, f"\n{error}"
    asked_by = "asked for" if asked != AUTO else "set by " + ENVIRONMENT_VARIABLE
    forced = asked != AUTO or ENVIRONMENT_BACKEND != AUTO
    lines = []
    best = "the fastest for it" if record.preferred(call) == chosen else "the best that can run"
    for backend, predicate in record.backends.items():
        reason = predicate(call)
        cost = f"; {record.holds(backend, call)}" if reason is None else ""
        if backend == chosen:
            form = record.form(backend, call)
            by = "" if form is None else f", by its {form}"
            lines.append(f"-> {backend}: serves this call ({asked_by if forced else best}){by}{cost}")
        elif reason is None:
            why = f"another was {asked_by}" if forced else "another is faster for it"
            lines.append(f"   {backend}: could run; {why}{cost}")
        else:
            lines.append(f"   {backend}: cannot: {reason}")
    return f"{record.name}:\n" + "\n".join(lines) + problem
