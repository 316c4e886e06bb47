"""Options that are declared once, as the fields of a TypedDict, and read from there by functions and commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def _as_it_is(value: Any, where: str) -> Any:
    return value


@dataclass(frozen=True)
class Option:
    """What is known of an option beside its name and its type.

    Attributes:
        default: what it is where nobody says.
        group, help, metavar: for `--help`. shown: the default's name there, where it is not the default itself.
        take: (value, its name for a message) -> the value that is meant; it takes its own results, too, and what a
            command line gives, which is text.
        names: on the command line, where that is not "--<name>". switch: the flag of one that is on or off; or one
            that makes it None, whose help is `switched`.
        many: it may be given several times, or several by commas.
        alone: it is of one video, and not for a batch.
    """

    default: Any
    group: str
    help: str
    metavar: str = "NAME"
    take: Callable[[Any, str], Any] = _as_it_is
    shown: str | None = None
    names: tuple[str, ...] = ()
    switch: str | None = None
    switched: str = ""
    many: bool = False
    alone: bool = False


def declared(kind: type) -> dict[str, Option]:
    """The options of a TypedDict whose fields are `Annotated[type, Option(...)]`, in order."""
    return {name: hint.__metadata__[0] for name, hint in inspect.get_annotations(kind).items()}


def taken(kind: type, given: Mapping[str, Any], op: str) -> dict[str, Any]:
    """All options, those that are not given at their defaults.

    Raises:
        TypeError: an option that is not declared. VTSumError: a value that it cannot have; `op` begins the message.
    """
    options = declared(kind)
    _check_known(given, options, op)
    return {name: option.take(given.get(name, option.default), f"{op}: {name}") for name, option in options.items()}


def changed(kind: type, given: Mapping[str, Any], op: str) -> dict[str, Any]:
    """The options that are given, and not None; raises as `taken` does."""
    options = declared(kind)
    _check_known(given, options, op)
    return {name: options[name].take(value, f"{op}: {name}") for name, value in given.items() if value is not None}


def _check_known(given: Mapping[str, Any], options: Mapping[str, Option], op: str) -> None:
    for name in given:
        if name not in options:
            raise TypeError(f"{op}() got an unexpected keyword argument {name!r}; it takes {', '.join(options)}")


def with_options(kind: type, *, defaults: bool = True) -> Callable[[F], F]:
    """Let `help` and `inspect.signature` show the options in the place of a function's `**options`.

    Args:
        defaults: show those of the options; else None, for a function that leaves them as they were.
    """

    def shown(function: F) -> F:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hints = inspect.get_annotations(kind)
        named += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.default if defaults else None,
                annotation=getattr(hints[name].__origin__, "__forward_arg__", hints[name].__origin__),
            )
            for name, option in declared(kind).items()
        ]
        function.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
        return function

    return shown
