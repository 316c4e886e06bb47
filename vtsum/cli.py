"""The `vtsum` command: its entry point, which turns every mistake of the user's into one line and status 2."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _say(message: str) -> None:
    text = " ".join(message.split())
    print(f"vtsum: {text}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the words after `vtsum`; None: those of this process.
    Returns:
        int: 0, or 2 after a mistake of the user's (told in one line), or 130 after Ctrl-C.
    """
    from vtsum.errors import VTSumError

    try:
        from vtsum.commands import Abort, UsageError, app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        if (sys.argv[1:] if arguments is None else arguments) == ["env"]:  # what is missing is what it is asked for
            from vtsum.env import report

            print(report())
            return 0
        _say(f"{error.name} must be installed: pip install vtsum[video]")
        return 2
    # A service manager's SIGTERM tidies up as Ctrl-C does.
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(args=arguments, prog_name="vtsum", standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this
            _say("stopped")
        return code if isinstance(code, int) else 0
    except VTSumError as error:
        _say(str(error))
        return 2
    except UsageError as error:
        _say(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else 'vtsum'} --help)")
        return 2
    except (KeyboardInterrupt, Abort):
        _say("stopped")
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away; leave nothing for the interpreter to complain about at exit.
        sys.stdout = None
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main())
