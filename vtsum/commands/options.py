"""The options that `summarize`, `recut` and `batch` share, made from where they are declared, and help by purpose."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vtsum.bars import Bars, Lines, Logged, Phases
from vtsum.commands.app import number
from vtsum.commands.config_file import read_config
from vtsum.commands.log_file import log_to
from vtsum.errors import VTSumError
from vtsum.files import AnyPath, check_outside
from vtsum.shown import LOG, clean, speak, without_secrets
from vtsum.summary.declaring import Option, declared
from vtsum.summary.options import GROUPS, RUN
from vtsum.version import __version__

# Of the commands that work on many videos.
Limit = Annotated[
    str, typer.Option(metavar="LENGTH", help="What one video may take: 10min, 90s, or all (the time it needs).")
]
Executor = Annotated[
    str, typer.Option(metavar="NAME", help="Where workers are: local (this machine) or ray (a Ray cluster).")
]
GpusPerWorker = Annotated[
    float, typer.Option(metavar="NUMBER", parser=number, help="Of a GPU, or GPUs, for each worker of Ray's.")
]


@dataclass(frozen=True)
class Run:
    """What is asked of a run itself, and not of what it makes."""

    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older summary in the folder.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of summary.json on standard output.")] = (
        False
    )
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be kept, or of a batch what would be done; write nothing.")
    ] = False
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A YAML file of options by the names they have here, budget: 30s; the command line wins.",
            is_eager=True,
            callback=read_config,
        ),
    ] = None
    progress: Annotated[
        str,
        typer.Option(
            "--progress",
            metavar="FORM",
            help="How progress is shown on standard error: bars (on a terminal), or json, an object a line: stage, "
            "done, total, eta; and message, for what else is said.",
        ),
    ] = "bars"
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Write down what is done and said, line by line.")
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False

    @contextmanager
    def shown(self, titles: Mapping[str, str], phases: Phases = ()) -> Iterator[Logged]:
        """What shows progress while the run goes on: called with (stage, done, total). Args: as `Bars` has them."""
        lines = self.progress == "json" and not self.quiet
        with Lines() if lines else Bars(titles, quiet=self.quiet, phases=phases) as shown:
            yield Logged(shown)

    def begin(self, command: str, replaced: AnyPath | None = None) -> None:
        """Take up the log, and the form of what is said.

        Args:
            replaced: a folder in whose place another will be.
        Raises:
            VTSumError: another form, a file that is no log of ours, or one that would be lost with `replaced`.
        """
        if self.progress not in ("bars", "json"):
            raise VTSumError(f"{command}: progress must be bars or json, got {self.progress!r}")
        speak("json" if self.progress == "json" and not self.quiet else "words")
        if self.log is not None:
            if replaced is not None:
                check_outside(command, replaced, log=self.log)
            log_to(self.log, command)
            LOG.info("vtsum %s %s", __version__, without_secrets(clean(shlex.join(sys.argv[1:]))))


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
            asked = {name: _asked(name, option, given, command.__name__) for name, option in options.items()}
            replaced = run.overwrite and not batch and not given.get("live")
            run.begin(command.__name__, given.get("output") if replaced else None)
            command(**given, run=run, options={name: value for name, value in asked.items() if value is not _LEFT})

        run_with.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run_with.__annotations__ = {}
        return run_with

    return made


def _completed(option: Option) -> Callable[[str], list[str]] | None:
    """What a shell may complete an option's value with; None: it knows best."""
    known: tuple[str, ...] = getattr(option.take, "words", ())
    return (lambda incomplete: [word for word in known if word.startswith(incomplete)]) if known else None


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
    told["autocompletion"] = _completed(option)
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


def _asked(name: str, option: Option, given: dict[str, Any], op: str) -> Any:
    """What a command line says of an option; `op` begins the message of one that contradicts itself."""
    value = given.pop(name)
    if not given.pop(f"{name}_on", True):
        if value is not None and value != option.default:
            off = (option.switch or "").rpartition("/")[2]
            raise VTSumError(f"{op}: {(option.names or (name,))[0]} must be without {off}, got {value!r:.60}")
        return None
    if value is None:
        return _LEFT
    return ",".join(value) if option.many else value
