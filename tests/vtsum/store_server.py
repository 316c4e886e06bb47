"""An object store of one bucket that speaks as much of S3 as reading takes: objects, parts of them, and what there is
under a prefix. What lies under closed/ nobody may read, what lies under stalled/ comes half."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "talks"
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@contextmanager
def serving(objects: Mapping[str, bytes], *, ends: bool = True) -> Iterator[tuple[str, list[str]]]:
    """The address of a store that has these objects, and what it was asked for.

    Args:
        ends: False of a store that always says that there is more under a prefix than it has told yet.
    """
    asked: list[str] = []
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer()

        def _answer(self, head: bool = False) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            parts = urlsplit(self.path)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            if bucket != BUCKET:
                self._error(404, "NoSuchBucket", head)
            elif not key:
                self._list({name: values[0] for name, values in parse_qs(parts.query).items()})
            elif key.startswith("closed/"):
                self._error(403, "AccessDenied", head)
            elif key not in objects:
                self._error(404, "NoSuchKey", head)
            else:
                content, status = objects[key], 200
                if wanted := self.headers.get("Range"):
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    content, status = content[int(first) : int(last) + 1], 206
                self._send(status, content, head, stalls=key.startswith("stalled/"))

        def _list(self, query: Mapping[str, str]) -> None:
            prefix, split = query.get("prefix", ""), query.get("delimiter", "")
            names = [name for name in sorted(objects) if name.startswith(prefix)]
            below = {name.partition(prefix)[2] if prefix else name: name for name in names}
            folders = {prefix + rest.partition(split)[0] + split for rest in below if split and split in rest}
            keys = [name for rest, name in below.items() if not split or split not in rest]
            rows = [
                f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in keys
            ]
            rows += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
            more = "<IsTruncated>false</IsTruncated>"
            if not ends:
                more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{len(asked)}</NextContinuationToken>"
            head = f"<Name>{BUCKET}</Name>{more}<KeyCount>{len(rows)}</KeyCount>"
            self._send(200, f"<ListBucketResult {_NAMESPACE}>{head}{''.join(rows)}</ListBucketResult>".encode(), False)

        def _error(self, status: int, code: str, head: bool) -> None:
            self._send(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), head)

        def _send(self, status: int, content: bytes, head: bool, stalls: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if not head and stalls:
                self.wfile.write(content[: len(content) // 2])
                done.wait(60)
                self.close_connection = True
            elif not head:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        done.set()
        http.shutdown()
