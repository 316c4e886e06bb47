"""Text from elsewhere made fit to be shown: file names, titles, words, and the messages that quote them.

A terminal obeys control characters, and a reader is misled by marks that turn the order of the letters or that nobody
sees. Letters of every script, combining marks and joined emoji stay as they are.

Source: Unicode Technical Report 36, "Unicode security considerations"; Boucher and Anderson, "Trojan Source", 2021.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import warnings
from typing import Any

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # a disk, a user's share, a limit of a file
_FULL_WORDS = tuple(os.strerror(number) for number in _FULL)  # as libraries in other languages quote them

# As Python's allocator, the loader of libraries, PyTorch's and the system's calls say it.
_NO_MEMORY = ("failed to map segment", "can't allocate memory", "not enough memory", os.strerror(errno.ENOMEM))

_BREAKS = "\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters, escape among them, and ends of lines
_LONE = "\ud800-\udfff"  # bytes of a file name that are no UTF-8
# The order of writing, no width; the last two are no letters, and XML may not hold them.
_UNSEEN = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
_JOINERS = "\u200c\u200d"  # needed in Persian, in Indic scripts and in emoji, always behind a sign of theirs
_TAGS = "\U000e0000-\U000e007f"
_NO_SIGN = rf"\x00-\x7f{_BREAKS}{_LONE}{_UNSEEN}{_TAGS}{_JOINERS}"
_FLAG = "(?P<flag>\U0001f3f4[\U000e0061-\U000e007a]{1,6}\U000e007f)"  # of England and the like: the one use of tags
_UNFIT = re.compile(
    f"{_FLAG}|(?P<space>[{_BREAKS}]+)|(?P<lone>[{_LONE}]+)|[{_UNSEEN}{_TAGS}]+|(?<![^{_NO_SIGN}])[{_JOINERS}]+"
)
_ADDRESS = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")
_USER = re.compile(r"([a-z][a-z0-9+.-]{1,15}://)[^/\s]{1,1000}@", re.IGNORECASE)
# What lets in whoever has the address, as signed ones do; it may stand behind the path's last part and the # too. A
# name with a letter by its number may be any name.
_KEY = re.compile(
    r"([?&;#][^=&;?#\s]{0,40}"
    r"(?:sig|token|key|secret|pass|pwd|auth(?!or)|credential|jwt|hmac|hdn|session|ticket|policy|%[46][1-9a-f]|%[57][0-9a])"
    r"[^=&;?#\s]{0,40}=)[^&#\s]+",
    re.IGNORECASE,
)
LONGEST = 2000
"""Characters of a message; what a stranger's file holds, and a message quotes, may be longer than anybody reads."""
_HIDDEN = re.compile(f"{_FLAG}|[\x7f-\x9f\u2028\u2029{_LONE}{_UNSEEN}{_TAGS}]")


def clean(text: str) -> str:
    """Text that any terminal and any page can show on one line.

    A control character or an end of a line becomes a space, half a surrogate pair a question mark; marks of direction
    and what has no width is left out. Done twice, it changes nothing more.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNFIT.sub(_fit, text)


def _fit(found: re.Match[str]) -> str:
    if found.lastgroup == "flag":
        return found[0]
    return {"space": " ", "lone": "?"}.get(found.lastgroup or "", "") * len(found[0])


def without_secrets(text: str) -> str:
    """Text in which addresses have no user's name and password, and no values of keys and signatures, for what is kept
    or shown."""
    if "://" not in text:  # a file's name may look like the end of one
        return text
    return _KEY.sub(r"\1...", _USER.sub(r"\1", text))


def one_line(text: str) -> str:
    """Clean text with single spaces and none at its ends: for prose; a path may hold two spaces."""
    return " ".join(clean(text).split())


def bounded(text: str) -> str:
    """A message, the middle of a very long one left out."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def remark(text: str) -> str:
    """What a command says beside its work, as one line that can be read: it may quote what a stranger's file holds."""
    return bounded(one_line(text))


def counted(number: int, noun: str) -> str:
    """1 video, 2 videos, 1,000 videos."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def with_slashes(name: str) -> str:
    """A path's name; of an address that was taken for one both slashes, of which a Path keeps one."""
    return _ADDRESS.sub(r"\1://", name, count=1) if looks_like_address(name) else name


def looks_like_address(name: str) -> bool:
    """Whether a path's name is an address of the net that was taken for one."""
    return _ADDRESS.match(name) is not None


def cleaned(value: Any) -> Any:
    """Lists and objects as JSON has them, with every text in them clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): cleaned(item) for key, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, list) else value


def _clean_lines(text: str) -> str:
    return "\n".join(map(clean, text.split("\n")))


class CleanRecords(logging.Filter):
    """Of a handler of another library's log: what it writes is clean, line by line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _clean_lines(record.getMessage()), ()
        return True


class _CleanRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return _clean_lines(super().getMessage())


def clean_libraries() -> None:
    """From now on what libraries log and warn of in this process is clean: it names what strangers' files hold. A
    warning is one line, without the line of code that gave it."""
    as_it_is = warnings.formatwarning

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return clean(as_it_is(message, category, filename, lineno, "").rstrip("\n")) + "\n"

    logging.setLogRecordFactory(_CleanRecord)
    warnings.formatwarning = formatted


def open_streams() -> None:
    """Open to nothing what this process was started without of standard input, output and error. The next file that
    is opened would have its number, and libraries in other languages would write their warnings into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        handle = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        os.set_inheritable(handle, handle == number)  # our own processes are no worse off
        setattr(sys, name, open(handle, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def escaped(text: str) -> str:
    """JSON in which whatever a terminal obeys and no reader sees is written as its number."""
    return _HIDDEN.sub(lambda m: m[0] if m.lastgroup else json.dumps(m[0])[1:-1], text)


def full(error: BaseException | None) -> bool:
    """Whether a disk was full; a library that met that first may tell of what it could not do then."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or any(word in str(error) for word in _FULL_WORDS):
            return True
        error = error.__context__
    return False


def reason(error: BaseException) -> str:
    """What went wrong with a file in one short line, without the system's numbers."""
    if full(error):
        return "the disk is full"
    return " ".join(str(getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


LOG = logging.getLogger("vtsum")
"""What a command does, a line each, for `--log` and for whoever listens to Python's logging."""
LOG.setLevel(logging.INFO)
_form = "words"


def speak(form: str) -> None:
    """Let what a command says on standard error be "words", or "json": an object a line."""
    global _form
    _form = form


def say(message: str) -> None:
    """A line of the command's on standard error, and in the log."""
    message = remark(message)
    LOG.info(message)
    print(json.dumps({"message": message}) if _form == "json" else f"vtsum: {message}", file=sys.stderr, flush=True)


def last_words(error: Exception) -> int:
    """Tell in one line what no part of a command expected; its exit status.

    Where the system names a file that it cannot give, or has no room or memory, that is the user's to mend, status 2;
    else 70.

    Raises:
        Exception: the error itself, where VTSUM_TRACEBACK is set.
    """
    if os.environ.get("VTSUM_TRACEBACK"):
        raise error
    if isinstance(error, OSError) and error.filename and error.strerror:
        say(f"{str(error.filename)[:500]} must be a path that can be used, got: {reason(error)}")
        return 2
    if full(error) or (isinstance(error, OSError) and "temporary directory" in str(error)):
        say(f"the disk and a temporary folder (TMPDIR) must have room, got: {reason(error)}")
        return 2
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        say(f"memory must suffice, this machine's and what ulimit -v leaves of it, got: {reason(error):.300}")
        return 2
    say(
        f"this should not have happened, {type(error).__name__}: {error}"[:500]
        + " (please report it, with what VTSUM_TRACEBACK=1 shows)"
    )
    return 70
