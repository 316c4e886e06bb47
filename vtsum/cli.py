"""The `vtsum` command: its entry point, which turns every mistake of the user's into one line and status 2."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the words after `vtsum`; None: those of this process.
    Returns:
        int: 0, or 2 after a mistake of the user's (told in one line), or 130 after Ctrl-C; 70 in a process of the
            command's own where something went wrong that nobody foresaw (told in one line too; VTSUM_TRACEBACK=1 shows
            where). To a caller with arguments of its own that is an exception.
    """
    from vtsum.shown import LOG, open_streams, speak
    from vtsum.signals import end, heeded

    if arguments is None:
        open_streams()
    code = 70
    try:
        code = _run(arguments)
        return code
    except SystemExit as stop:  # a signal
        code = stop.code if isinstance(stop.code, int) else code
        raise
    finally:
        if LOG.handlers:
            from vtsum.commands.log_file import close_logs

            LOG.info("exit status %d", code)
            close_logs()
        speak("words")
        if arguments is None and heeded():
            end(code)


def _run(arguments: list[str] | None) -> int:
    from vtsum.errors import VTSumError
    from vtsum.shown import clean_libraries, last_words, say
    from vtsum.signals import stopping

    if arguments is None:
        clean_libraries()
    try:
        os.getcwd()  # what libraries make of it when they are loaded, torch's own among them, is no line
    except OSError:
        say("the current folder must exist, got one that was removed; go to another")
        return 2
    try:
        with stopping(last=arguments is None):
            from vtsum.commands import Abort, UsageError, app
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        words = sys.argv[1:] if arguments is None else arguments
        if words in (["env"], ["env", "--report"]):  # what is missing is what it is asked for
            from vtsum.env import public_report, report

            print(public_report() if words[1:] else report())
            return 0
        say(f"{error.name} must be installed: pip install vtsum[video]")
        return 2
    try:
        # A service manager's SIGTERM and a terminal that is closed tidy up as Ctrl-C does.
        with stopping(last=arguments is None):
            code = app(args=arguments, prog_name="vtsum", standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this
            say("stopped")
        return code if isinstance(code, int) else 0
    except VTSumError as error:
        say(str(error))
        return 2
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the command alone: its message is the help, of many lines
            print(error.ctx.get_help() if error.ctx else error.format_message(), file=sys.stderr)
            return 2
        say(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else 'vtsum'} --help)")
        return 2
    except (KeyboardInterrupt, Abort):
        say("stopped")
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away; leave nothing for the interpreter to complain about at exit.
        sys.stdout = None
        return 1
    except Exception as error:
        if arguments is not None:
            raise
        return last_words(error)


if __name__ == "__main__":
    sys.exit(main())
