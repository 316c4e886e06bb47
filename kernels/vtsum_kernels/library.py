"""The op library: the schemas, fake and autograd registrations, once, in Python, and which compiled kernels are loaded.

Ops are registered with ``torch.library.Library`` rather than ``custom_op``, whose call costs twice as much. The
compiled libraries only add implementations for their device to the schemas given here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .namespace import LIBRARIES, NAMESPACE, OPS, add_op_namespace_prefix, load, read_record

AUTO = "auto"
ENVIRONMENT_VARIABLE = "VTSUM_KERNELS_BACKEND"
ENVIRONMENT_BACKEND = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() or AUTO

LIB = torch.library.Library(NAMESPACE, "DEF")

#: For each compiled library: None when it is loaded, else why it is not.
_refused: dict[str, str | None] = {}
#: Each op that has a gradient: plainly, as a call that is recorded takes it, and as torch.func's transforms want it.
_PLAIN: dict[str, Callable[..., Any]] = {}
_RECORDED: dict[str, type[torch.autograd.Function]] = {}
_TRANSFORMED: dict[str, type[torch.autograd.Function]] = {}

#: How an op is vmapped: of torch.func's info (batch_size), where each argument has the mapped dimension (None where it
#: has none), the op and its arguments. Gives the results, and where these have it.
Rule = Callable[..., tuple[Any, Any]]


def one_by_one(info: Any, in_dims: tuple[Any, ...], op: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """The rule of any op: a call for each entry of the mapped dimension."""

    def entry(argument: Any, dim: int | None, n: int) -> Any:
        if dim is None or not isinstance(argument, Tensor):
            return argument
        x = argument.movedim(dim, 0)
        return x[n] if info.batch_size else x.new_zeros(x.shape[1:])

    found = []
    for n in range(max(info.batch_size, 1)):
        found.append(op(*(entry(argument, dim, n) for argument, dim in zip(arguments, in_dims, strict=True))))
    if isinstance(found[0], Tensor):
        return torch.stack(found)[: info.batch_size], 0
    results = tuple(torch.stack(entries)[: info.batch_size] for entries in zip(*found, strict=True))
    return results, (0,) * len(results)


def define(
    schema: str,
    fake: Callable[..., Any],
    backward: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    vmap: Rule = one_by_one,
) -> None:
    """Registers an op's schema, its fake (shapes, strides and dtypes alone), its gradient and how it is vmapped."""
    name = schema.split("(", 1)[0]
    LIB.define(schema)
    qualified = add_op_namespace_prefix(name)
    torch.library.register_fake(qualified, fake, lib=LIB)
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIB)
    plain = _PLAIN[name] = getattr(OPS, name).default

    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(
            f'{name}: forward-mode derivatives are not supported by the compiled kernels; use backend="reference", '
            "which is plain PyTorch, or vjp and jacrev in place of jvp and jacfwd"
        )

    set_up = setup_context or (lambda ctx, inputs, output: None)

    def recorded(ctx: Any, *arguments: Any) -> Any:
        found = _below_autograd(_PLAIN[name], arguments)  # by its name: tests put others in its place
        set_up(ctx, arguments, found)
        return found

    members = {"forward": recorded, "backward": backward}
    _RECORDED[name] = type(name, (torch.autograd.Function,), {key: staticmethod(f) for key, f in members.items()})
    members = {
        "forward": lambda *arguments: plain(*arguments),  # torch's compiler wants a function
        "setup_context": set_up,
        "backward": backward,
        "jvp": jvp,
        "vmap": lambda info, in_dims, *arguments: vmap(info, in_dims, lambda *given: call(name, *given), *arguments),
    }
    _TRANSFORMED[name] = type(name, (torch.autograd.Function,), {key: staticmethod(f) for key, f in members.items()})


def transformed() -> bool:
    """Whether a transform of torch.func is at work, or derivatives of forward mode are taken."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _below_autograd(plain: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return plain(*arguments)


def call(name: str, *arguments: Any) -> Any:
    """An op by its name.

    Transformed, it is an autograd.Function: there an op's own registration has gradients refused and derivatives of
    forward mode taken for zero. Recorded, it is one without `setup_context`: the registration builds the list of the
    schema's arguments once for each of them, `setup_context` inspects a signature, and each takes longer than the
    kernel of a small call.
    """
    if transformed():
        return _TRANSFORMED[name].apply(*arguments)
    plain = _PLAIN[name]
    if torch.compiler.is_compiling():
        return plain(*arguments)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
        return _RECORDED[name].apply(*arguments)
    return _below_autograd(plain, arguments)


def no_forward_mode() -> str | None:
    """Why a backend of compiled kernels cannot serve a call where forward-mode derivatives are taken, else None."""
    if forward_ad._current_level < 0:
        return None
    return 'it has no forward-mode derivatives (backend="reference" has them; vjp and jacrev need none)'


def implement_in_triton(op: str, module: str, function: str) -> None:
    """Registers a function of a Triton module, imported at its first call; on the CPU too, for the interpreter."""

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*arguments)

    for device in ("CUDA", "CPU"):
        LIB.impl(op, call, device)


def refuse_double_backward(op: str) -> Callable[..., Any]:
    """A gradient for an op's backward pass that says that there is none."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            f"{op}: gradients of its gradients are not supported by the compiled kernels; "
            f'use backend="reference", which is plain PyTorch'
        )

    return backward


def refusal(name: str) -> str | None:
    """None when the compiled library `name` ("_cpu" or "_cuda") is loaded, else why it is not."""
    return _refused[name]


def build_info() -> dict[str, Any]:
    """What was built, with what, and what is loaded.

    Returns:
        dict: `build`: the record the installation wrote (compiler, flags, torch, or why a library was not built); empty
        when the package was never installed. `libraries`: for each of "_cpu" and "_cuda",
        {"loaded": bool, "reason": str or None}. `cpu_level`: the instruction set the CPU kernels run with, None without
        them. `backend`: what VTSUM_KERNELS_BACKEND asks for, "auto" by default. `torch`: its version.
    """
    level = None
    if _refused["_cpu"] is None:
        level = str(OPS.cpu_level())
    return {
        "build": read_record(),
        "libraries": {name: {"loaded": reason is None, "reason": reason} for name, reason in _refused.items()},
        "cpu_level": level,
        "backend": ENVIRONMENT_BACKEND,
        "torch": torch.__version__,
    }


LIB.define("cpu_level() -> str")
if os.environ.get("VTSUM_KERNELS_DISABLE_COMPILED") == "1":
    _refused.update(dict.fromkeys(LIBRARIES, "VTSUM_KERNELS_DISABLE_COMPILED=1"))
else:
    _refused.update({name: load(name) for name in LIBRARIES})
