"""The server itself: on this machine's own address only, under an address that nobody can guess."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from vtsum.errors import VTSumError
from vtsum.serving.app import make_app
from vtsum.serving.store import Store
from vtsum.shown import reason

HOST = "127.0.0.1"
LARGEST = 64 << 30  # bytes of a video
_MOST = 100  # connections at a time: files that a process may have open are some 1,000, and every user here may connect


def serve(
    folder: str | os.PathLike[str],
    *,
    port: int = 0,
    largest: int = LARGEST,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a page on which videos are summarised, until Ctrl-C, SIGTERM or SIGHUP, which stop what runs.

    Args:
        folder: where videos and summaries are kept; made if need be.
        port (int): 0 takes a free one. largest (int): bytes of a video.
        ready: told the page's address once it answers.
    Raises:
        VTSumError: the folder cannot be used, or the port is taken.
    """
    if not 0 <= port <= 65_535:
        raise VTSumError(f"serve: port must be 0 to 65535, got {port}")
    if largest < 1:
        raise VTSumError(f"serve: largest must be at least 1 byte, got {largest}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
        except OSError as error:
            raise VTSumError(f"serve: port must be free, got {port}: {reason(error)}") from None
        store = Store(Path(os.path.abspath(os.fspath(folder))))
        port = bound.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = make_app(store, token, [f"{HOST}:{port}", f"localhost:{port}"], largest)
        config = uvicorn.Config(
            app,
            http=_Connection,
            backlog=16,  # asyncio takes as many at once, and some times that before one too many is closed
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_wrong)
        server = _Server(config, lambda: ready(f"http://{HOST}:{port}/{token}/") if ready else None)
        server.run(sockets=[bound])


def _is_wrong(record: logging.LogRecord) -> bool:
    """False of what only says that the end broke something off: a film that plays, a video that is being sent."""
    broken = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not broken and not str(record.msg).startswith("Cancel %s running task(s)")


class _Connection(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """One that says nothing is closed as one that has said all, and so is one too many."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > _MOST:
            transport.abort()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


class _Server(uvicorn.Server):
    """Says when it answers, and ends for a terminal that closes (not for nohup's) as it does for kill."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():  # which raises anew, as it ends, what came
            before = signal.getsignal(signal.SIGHUP)
            heard = threading.current_thread() is threading.main_thread() and before != signal.SIG_IGN
            if heard:
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                if heard:
                    signal.signal(signal.SIGHUP, before)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
