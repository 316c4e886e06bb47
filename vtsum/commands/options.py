"""The options that `summarize`, `recut` and `batch` share, made from where they are declared, and help by purpose."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vtsum.commands.app import number
from vtsum.summary.declaring import Option, declared
from vtsum.summary.options import GROUPS, RUN


@dataclass(frozen=True)
class Run:
    """What is asked of a run itself, and not of what it makes."""

    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older summary in the folder.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of summary.json on standard output.")] = (
        False
    )
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False


class Grouped(TyperCommand):
    """A command whose options are listed by what they are for."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                named = getattr(parameter, "rich_help_panel", None)
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups.setdefault(named or kind, []).append(record)
        for name in ("Arguments", *GROUPS, "Options"):
            if name in groups:
                with formatter.section(name):
                    formatter.write_dl(groups[name])


def with_options(kind: type, *, batch: bool = False, defaults: bool = True) -> Callable[[Callable[..., None]], Any]:
    """Give a command the options of a TypedDict (`vtsum.summary.declaring`), handed to it as `options`, and those of
    `Run`, as `run`.

    Args:
        batch: without those that are of one video. defaults: False: left out, they are as they were the first time.
    """
    options = {name: option for name, option in declared(kind).items() if not (batch and option.alone)}

    def made(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        parameters = [own[name] for name in own if name not in ("run", "options")]
        for name, option in options.items():
            parameters += _parameters(name, option, defaults)
        runs = inspect.get_annotations(Run, eval_str=True)
        for name, hint in runs.items():
            hint.__metadata__[0].rich_help_panel = RUN
            parameters.append(_keyword(name, hint, getattr(Run, name)))

        @functools.wraps(command)
        def run_with(**given: Any) -> None:
            run = Run(**{name: given.pop(name) for name in runs})
            asked = {name: _asked(name, option, given) for name, option in options.items()}
            command(**given, run=run, options={name: value for name, value in asked.items() if value is not _LEFT})

        run_with.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run_with.__annotations__ = {}
        return run_with

    return made


_LEFT = object()  # not given, and without a default that a command line could give


def _keyword(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _parameters(name: str, option: Option, defaults: bool) -> list[inspect.Parameter]:
    """The parameters of a command that stand for an option."""
    shown = "as before" if not defaults else option.shown
    told: dict[str, Any] = {"help": option.help.partition(" [default:")[0] if not defaults else option.help}
    told["rich_help_panel"] = option.group
    if shown is not None:
        told["help"] += f" [default: {shown}]"
    words = option.names or (f"--{name.replace('_', '-')}",)
    default = option.default if defaults else None
    if isinstance(option.default, bool):
        flag = typer.Option(option.switch or words[0], **told)
        return [_keyword(name, Annotated[bool | None, flag], default)]
    told["metavar"] = option.metavar
    found = []
    if option.many:
        found.append(_keyword(name, Annotated[list[str] | None, typer.Option(*words, **told)], None))
    elif isinstance(option.default, float) and shown is None:
        found.append(_keyword(name, Annotated[float, typer.Option(*words, parser=number, **told)], default))
    else:
        plain = default if shown is None else None
        found.append(_keyword(name, Annotated[str | None, typer.Option(*words, **told)], plain))
    if option.switch is not None:
        flag = typer.Option(option.switch, help=option.switched, rich_help_panel=option.group)
        found.append(_keyword(f"{name}_on", Annotated[bool, flag], True))
    return found


def _asked(name: str, option: Option, given: dict[str, Any]) -> Any:
    """What a command line says of an option."""
    value = given.pop(name)
    if not given.pop(f"{name}_on", True):
        return None
    if value is None:
        return _LEFT
    return ",".join(value) if option.many else value
