"""A hub on this machine: repositories of files, downloads that can be cut off, gated and missing ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.vtsum.samples import ENVIRONMENT

COMMIT = "c" * 40
_LARGE = (".safetensors", "model.bin")


class StubHub(ThreadingHTTPServer):
    """Attributes:
    repositories: files by name, of each repository; sizes: what it says of a file's, where that is not true.
    gated: names of those that nobody may have. stalls: files that end after so many bytes and leave the line open.
    asked: (method, path, range) of all that was asked for. lies: contents served in place of a file's own.
    slow: files, and names of repositories, of which nothing is told ("silence"), a byte each tenth of a second
    ("drops"), bytes without end ("flood") or when to ask again ("later").
    says: of repositories, by name: what takes the place of what is told of them. tags: ETags, by file.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.lies: dict[str, bytes] = {}
        self.says: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}
        self.gated: set[str] = set()
        self.slow: dict[str, str] = {}
        self.stalls: dict[str, int] = {}
        self.stalled = threading.Event()
        self.asked: list[tuple[str, str, str | None]] = []

    def add(self, name: str, folder: Path, **more: bytes) -> None:
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.repositories[name] = files | more

    def here(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Make it the hub of this very process, with that cache."""
        from huggingface_hub import constants

        address = f"http://127.0.0.1:{self.server_port}"
        told = {"ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        told["HUGGINGFACE_CO_URL_TEMPLATE"] = address + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in told.items():
            patch.setattr(constants, name, value)
        patch.setenv("NO_PROXY", "127.0.0.1")

    def environment(self, home: Path) -> dict[str, str]:
        """Of a command that knows this hub alone."""
        own = {k: v for k, v in ENVIRONMENT.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
        own |= {"HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return own | {"NO_PROXY": "127.0.0.1"}


@contextlib.contextmanager
def running() -> Iterator[StubHub]:
    with StubHub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.stalled.set()
        server.shutdown()
        thread.join()


class _Asked(BaseHTTPRequestHandler):
    server: StubHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(self.path.split("?")[0])
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if api := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/\w+|/tree/\w+)?", path):
            name, kind = api[1], api[2] or ""
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            name, kind = file[1], "file"
        else:
            return self.answer(404)
        if how := hub.slow.get(path.partition("/resolve/")[2].partition("/")[2] or name):
            return self.dawdle(how)
        files = hub.repositories.get(name)
        if files is None:
            return self.answer(401, {"error": "Invalid username or password."}, X_Error_Code="RepoNotFound")
        if name in hub.gated and (kind == "file" or kind.startswith("/tree")):
            return self.answer(401, {"error": "restricted"}, X_Error_Code="GatedRepo", X_Error_Message="restricted")
        if kind == "file":
            return self.send(name, file[2], files)
        listed = [self.entry(name, file, content) for file, content in files.items()]
        if kind.startswith("/tree"):
            tree = [{"type": "file", "path": entry["rfilename"], "oid": entry["blobId"], **entry} for entry in listed]
            return self.answer(200, tree)
        return self.answer(
            200,
            {"id": name, "sha": COMMIT, "siblings": listed, "cardData": {"license": "mit"}, "private": False,
             "gated": "auto" if name in hub.gated else False, "tags": [], "downloads": 0, "likes": 0,
             **hub.says.get(name, {})},
        )  # fmt: skip

    def dawdle(self, how: str) -> None:
        """Answer as one of `StubHub.slow`."""
        self.close_connection = True
        if how == "silence":
            self.server.stalled.wait(60)
            return None
        if how == "later":
            return self.answer(429, Retry_After="86400")
        self.send_response(200)
        told = {"X-Repo-Commit": COMMIT, "ETag": f'"{"a" * 40}"', "Content-Length": str(1 << 30)}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        with contextlib.suppress(ConnectionError):
            while not self.server.stalled.wait(0.1 if how == "drops" else 0):
                self.wfile.write(b" " if how == "drops" else bytes(1 << 20))
        return None

    def entry(self, name: str, file: str, content: bytes) -> dict[str, Any]:
        size = self.server.sizes.get(file, len(content))
        found: dict[str, Any] = {"rfilename": file, "size": size, "blobId": hashlib.sha1(content).hexdigest()}
        if file.endswith(_LARGE):
            digest = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"sha256": digest, "oid": digest, "size": size, "pointerSize": 134}
        return found

    def send(self, name: str, file: str, files: dict[str, bytes]) -> None:
        hub = self.server
        if file not in files:
            return self.answer(404, X_Error_Code="EntryNotFound")
        content = hub.lies.get(file, files[file])
        large = file.endswith(_LARGE)
        etag = hub.tags.get(file) or (hashlib.sha256 if large else hashlib.sha1)(files[file]).hexdigest()
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if large:
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "HEAD":
            return None
        stop = hub.stalls.pop(file, None)
        with contextlib.suppress(ConnectionError):  # the one who asked has gone
            self.wfile.write(content[first : len(content) if stop is None else stop])
        if stop is not None:
            self.wfile.flush()
            hub.stalled.wait(60)
            self.close_connection = True
        return None


def blobs(cache: Path) -> dict[str, int]:
    """Sizes of what a cache holds, by name."""
    found = {}
    for path in cache.glob("models--*/blobs/*"):
        with contextlib.suppress(FileNotFoundError):  # the client's own trial of links, gone again
            found[path.name] = path.stat().st_size
    return found
