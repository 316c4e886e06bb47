"""What VTSum raises by itself: the one exception that a user is meant to read, and the one that nobody is."""

from vtsum.shown import bounded, clean


class VTSumError(ValueError):
    """A mistake that the user can mend: a bad file, a bad option, a missing package.

    Its message is one line that names the thing, the rule and the value found, clean (`vtsum.shown.clean`), the middle
    of a very long one left out. The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(bounded(clean(message)))


class Stopped(Exception):
    """Ends work whose result nobody wants any more; raised from a callback of the one who does it."""


def first_line(error: BaseException) -> str:
    """What a library's error says, for a message of one line; the error's kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
