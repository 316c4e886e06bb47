"""The one exception of VTSum that a user is meant to read."""


class VTSumError(ValueError):
    """A mistake that the user can mend: a bad file, a bad option, a missing package.

    Its message is one line that names the thing, the rule and the value found. The command line prints it without a
    traceback and exits with status 2.
    """


class Stopped(Exception):
    """Ends work whose result nobody wants any more; raised from a callback of the one who does it."""
