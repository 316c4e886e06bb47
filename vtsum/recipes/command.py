"""What the recipes' commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vtsum.errors import VTSumError
from vtsum.shown import last_words, say
from vtsum.signals import stopping


def status(work: Callable[[], Any]) -> int:
    """Do the work of a command; its exit status: 2, and one line, after a mistake that the user can mend; 70, and one
    line too, after what nobody foresaw.

    SIGTERM and SIGHUP tidy up as Ctrl-C does.
    """
    try:
        with stopping():
            work()
    except (VTSumError, OSError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except Exception as error:
        return last_words(error)
    return 0
