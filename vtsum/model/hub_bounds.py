"""A hub that never comes to an end is given up: its client waits for what may come, and takes whatever does.

The client asks again, six times and a minute each, where nothing was answered; sleeps as long as it is told to; and
reads an answer whole, however long it is and however slowly it comes.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

from vtsum.errors import VTSumError

SILENCE = 30.0  # seconds in which a hub that was asked says nothing
WORK = 120.0  # and of one that was sent something
_PATIENCE = 60  # seconds that it may ask to be left alone
_MOST = 1 << 26  # bytes of an answer that is no file
_PACKED = 1 << 18  # bytes of one that is packed, though nobody asked for that: it unpacks to a thousand times as many
_SLOWEST = 1024  # bytes a second
_WINDOW = 30.0  # seconds over which that is counted
_OP = "hub"

_file = threading.local()
"""`most`: the bytes of the file that this thread is fetching."""


def bound(http: Any, files: Any) -> None:
    """Have the client, whose modules these are, be bounded from now on, whoever has it fetch something."""
    transport = getattr(http, "httpx2", None) or getattr(http, "httpx", None)
    if transport is None or not all(
        hasattr(http, name) for name in ("_http_backoff_base", "_GLOBAL_CLIENT_FACTORY", "_parse_retry_after")
    ):  # a version that does this elsewhere
        return

    def watch(client: Any) -> Any:
        client.event_hooks["request"].append(_ask_plainly)
        client.event_hooks["response"].append(functools.partial(_bound_answer, transport.SyncByteStream))
        return client

    factory = http._GLOBAL_CLIENT_FACTORY
    http._GLOBAL_CLIENT_FACTORY = lambda: watch(factory())
    if (client := getattr(http, "_GLOBAL_CLIENT", None)) is not None:
        watch(client)
    _bound_retries(http, transport)
    _bound_files(files)


def _ask_plainly(request: Any) -> None:
    """Where the client has no end to its patience, it has one; what is sent may take the hub some time to work on."""
    if not any((request.extensions.get("timeout") or {}).values()):
        patience = SILENCE if request.method in ("GET", "HEAD") else WORK
        told = {"connect": SILENCE, "read": patience, "write": SILENCE, "pool": None}
        request.extensions = {**request.extensions, "timeout": told}
    if getattr(_file, "most", None) is None:
        request.headers["accept-encoding"] = "identity"


def _bound_answer(base: Any, response: Any) -> None:
    most: int = getattr(_file, "most", None) or 0
    if not most:
        most = _MOST if response.headers.get("content-encoding", "identity") == "identity" else _PACKED
    inner = response.stream

    class Bounded(base):
        def __iter__(self) -> Iterator[bytes]:
            yield from _bounded(inner, most, response.request.url.path)

        def close(self) -> None:
            inner.close()

    response.stream = Bounded()


def _bounded(parts: Any, most: int, what: str) -> Iterator[bytes]:
    whole = recent = 0
    since = time.monotonic()
    for part in parts:
        whole, recent = whole + len(part), recent + len(part)
        if whole > most:
            raise VTSumError(f"{_OP}: {what!r:.200} must be an answer of at most {most:,} bytes, got more")
        if (now := time.monotonic()) - since >= _WINDOW:
            if recent < _SLOWEST * (now - since):
                raise VTSumError(
                    f"{_OP}: {what!r:.200} must come at {_SLOWEST:,} bytes a second, got {recent:,} bytes in "
                    f"{now - since:.0f} s"
                )
            since, recent = now, 0
        yield part


def _bound_retries(http: Any, transport: Any) -> None:
    """A refusal, or a line that broke, is tried again at once; silence was waited for already."""
    tries, after, limits = http._http_backoff_base, http._parse_retry_after, http.parse_ratelimit_headers

    @functools.wraps(tries)
    def backoff(method: Any, url: str, **options: Any) -> Any:
        kinds = options.get("retry_on_exceptions", getattr(http, "_DEFAULT_RETRY_ON_EXCEPTIONS", ()))
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        options["retry_on_exceptions"] = tuple(
            transport.NetworkError if kind is transport.TransportError else kind
            for kind in kinds
            if not issubclass(kind, transport.TimeoutException)
        )
        if isinstance(options.get("timeout"), int | float):
            options["timeout"] = min(options["timeout"], SILENCE)
        return tries(method, url, **options)

    @functools.wraps(after)
    def retry_after(headers: Any) -> Any:
        return _patient(after(headers))

    @functools.wraps(limits)
    def ratelimit(headers: Any) -> Any:
        if (found := limits(headers)) is not None and getattr(found, "remaining", None) == 0:
            _patient(found.reset_in_seconds)
        return found

    http._http_backoff_base, http._parse_retry_after, http.parse_ratelimit_headers = backoff, retry_after, ratelimit


def _patient(seconds: Any) -> Any:
    if seconds is not None and seconds > _PATIENCE:
        raise VTSumError(f"{_OP}: it must answer within {_PATIENCE} s, got one that asks to wait for {seconds:,} s")
    return seconds


class _Capped:
    """An open file that takes no more than so many bytes."""

    def __init__(self, file: Any, most: int) -> None:
        self._inner, self._most = file, most

    def write(self, data: Any) -> Any:
        if self._inner.tell() + len(data) > self._most:
            raise VTSumError(f"{_OP}: a file must be of the {self._most:,} bytes that were stated, got more")
        return self._inner.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _bound_files(files: Any) -> None:
    get = files.http_get

    @functools.wraps(get)
    def http_get(url: str, temp_file: Any, **options: Any) -> Any:
        size = options.get("expected_size")
        if size is None or getattr(_file, "most", None) is not None:  # going on with one, too
            return get(url, temp_file, **options)
        _file.most = size + _PACKED
        try:
            begun = temp_file.tell() - options.get("resume_size", 0)
            return get(url, _Capped(temp_file, begun + size), **options)
        finally:
            _file.most = None

    files.http_get = http_get
