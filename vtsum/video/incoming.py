"""Videos that are no files yet: standard input, pipes, and addresses on the web. They become a file for as long as they
are needed, so that what holds for files holds for them."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import av

from vtsum.errors import VTSumError
from vtsum.files import AnyPath, shortened
from vtsum.shown import clean, reason, without_secrets
from vtsum.signals import begun, over
from vtsum.video.source import show
from vtsum.video.stores import in_store, pieces

LIMIT = 64 << 30  # bytes of a video that comes from elsewhere
_PIECE = 1 << 20
_PATIENCE = 30.0  # seconds of one call into libav, which answers no signal meanwhile
_LEAST = 1 << 10  # bytes a second, over so long, of an address: one that sends a byte a second would keep us for years
_LONGEST = 100  # bytes of a name
_WEB = re.compile(r"https?://", re.IGNORECASE)
# What urllib makes of it would be an error where brackets are at odds; that is for who asks for it to tell.
_PARTS = re.compile(r"[A-Za-z0-9]{1,8}://(?:[^/?#@]*@)?(?P<host>\[[^]/?#]*|[^:/?#]*)[^/?#]*(?P<path>[^?#]*)")
# No redirection leads to a file, and none to another machine's protocol than these.
_PROTOCOLS = "http,https,tcp,tls,httpproxy"


class Address(str):
    """An address on the web or in an object store where a path may stand, with what else is asked of a path."""

    @property
    def name(self) -> str:
        """The name that its file would have."""
        return name_of(self)

    @property
    def stem(self) -> str:
        """That name without its ending."""
        return Path(self.name).stem


def is_address(path: AnyPath) -> bool:
    """Whether a path is the address of something on the web or in an object store."""
    return isinstance(path, str) and (_WEB.match(path) is not None or in_store(path))


def host_of(address: str) -> str:
    """The name of the machine, or of the store's bucket, that an address begins with."""
    return _on_web(address)["host"].removeprefix("[")


def _on_web(address: str) -> re.Match[str]:
    found = _PARTS.match(address)
    assert found is not None  # it begins with a scheme
    return found


def comes_from_elsewhere(path: AnyPath) -> bool:
    """Whether a path is "-" (standard input), a pipe or an address, and no file."""
    if path == "-" or is_address(path):
        return True
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def name_of(path: AnyPath) -> str:
    """The name that a video has, or would have as a file."""
    text = os.fsdecode(os.fspath(path))
    if path == "-":
        return "stdin"
    name = Path(text).name
    if is_address(path):
        name = text.rpartition("/")[2] if in_store(text) else unquote(_last(_on_web(text)["path"]))
        name = clean(name).replace("/", "_").replace("\0", "")
        stem, dot, ending = name.rpartition(".")
        if len(os.fsencode(name)) > _LONGEST:
            name = shortened(stem or ending, _LONGEST - 10) + dot + ending[:8]
    return "video" if name in ("", ".", "..") else name


def _last(path: str) -> str:
    """The last part of an address's path, without the parameters that may stand behind it."""
    return path.rpartition("/")[2].partition(";")[0]


@contextmanager
def as_file(path: AnyPath, op: str, progress: Callable[[float], None] | None = None) -> Iterator[Path]:
    """A file with the video that a path names: itself, or, of what comes from elsewhere, a copy in a folder of its own
    in the system's temporary folder, which is removed in the end.

    Args:
        op: begins the message. progress: told the share of it that has come, where its size is known.
    Raises:
        VTSumError: it cannot be had, breaks off, or has more than LIMIT bytes; in what is raised meanwhile the copy is
            called as it was given.
    """
    if not comes_from_elsewhere(path):
        yield Path(os.fsdecode(os.fspath(path)))
        return
    shown = "standard input" if path == "-" else without_secrets(show(path))
    folder = Path(tempfile.gettempdir(), f"vtsum-{secrets.token_hex(8)}")
    begun(folder)
    folder.mkdir(mode=0o700)
    copy = folder / name_of(path)
    try:
        try:
            with open(copy, "wb") as file:
                if is_address(path):
                    _fetch(os.fspath(path), file, f"{op}: {shown}", progress)
                elif path == "-":
                    _spool(sys.stdin.buffer, file, f"{op}: {shown}")
                else:
                    with open(path, "rb") as pipe:
                        _spool(pipe, file, f"{op}: {shown}")
        except (OSError, av.FFmpegError) as error:
            raise VTSumError(f"{op}: {shown} could not be kept in {show(folder.parent)}: {reason(error)}") from None
        yield copy
    except VTSumError as error:
        raise VTSumError(str(error).replace(str(copy), shown)) from None
    finally:
        over(folder)


def _spool(source: BinaryIO, file: BinaryIO, where: str) -> None:
    size = 0
    while piece := source.read(_PIECE):
        size += len(piece)
        _check(size, where)
        file.write(piece)


def _fetch(address: str, file: BinaryIO, where: str, progress: Callable[[float], None] | None) -> None:
    """Read what lies at an address, as bytes and no more."""
    size = whole = before = 0
    since = time.monotonic()
    for data, whole in pieces(address, where) if in_store(address) else _of_web(address, where):
        _check(whole, where)
        size += len(data)
        _check(size, where)
        file.write(data)
        if (took := time.monotonic() - since) > _PATIENCE:
            if size - before < _LEAST * took:
                raise VTSumError(f"{where} must send {_LEAST:,} bytes a second, got {size - before:,} in {took:.0f} s")
            since, before = time.monotonic(), size
        if progress is not None and whole > 0:
            progress(min(size / whole, 0.99))
    if whole > 0 and size < whole:
        raise VTSumError(f"{where} must come whole, got {size:,} of {whole:,} bytes; try again")


def _of_web(address: str, where: str) -> Iterator[tuple[bytes, int]]:
    """What FFmpeg reads at an address, piece by piece, each with the whole size; 0, where that is not known."""
    options = {"protocol_whitelist": _PROTOCOLS, "user_agent": "vtsum"}
    scheme, colon, rest = address.partition(":")
    address = scheme.lower() + colon + rest  # FFmpeg knows protocols by small letters alone
    some = False
    try:
        with av.open(address, format="data", timeout=_PATIENCE, options=options) as source:
            whole = max(source.size, 0)
            for packet in source.demux():
                some = True
                yield bytes(packet), whole
    except av.FFmpegError as error:
        if error.errno == errno.EIO and some:
            return  # so ends an answer of no stated length, too, which lasts as long as its connection
        raise VTSumError(f"{where} must be an address that can be read, got: {reason(error)}") from None


def _check(size: int, where: str) -> None:
    if size > LIMIT:
        raise VTSumError(f"{where} must have at most {LIMIT:,} bytes, got more")
