"""What the recipes' commands share."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from vtsum.errors import VTSumError
from vtsum.shown import last_words, say


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def status(work: Callable[[], Any]) -> int:
    """Do the work of a command; its exit status: 2, and one line, after a mistake that the user can mend; 70, and one
    line too, after what nobody foresaw.

    SIGTERM and SIGHUP tidy up as Ctrl-C does.
    """
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, _terminated) for number in numbers}
    try:
        work()
    except (VTSumError, OSError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except Exception as error:
        return last_words(error)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0
