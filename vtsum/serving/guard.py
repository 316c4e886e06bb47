"""Who may ask: this machine's own browser, on the page that the command printed, and nobody else.

The page's address holds a secret, so another site cannot name what it would ask for. A name that another site has made
to lead here (DNS rebinding) is refused by the Host header, and whatever another page sends by Origin and
Sec-Fetch-Site.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what does not come from the page, and has every answer say what a page may do.

    Args:
        app: what is guarded. hosts: what the Host header may be.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(f"http://{host}" for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", POLICY)
                headers.update(_ALWAYS)
            await send(message)

        if (why := self._refused(Headers(scope=scope), scope["method"])) is not None:
            await PlainTextResponse(why, status_code=403)(scope, receive, named)
            return
        await self._app(scope, receive, named)

    def _refused(self, headers: Headers, method: str) -> str | None:
        if headers.getlist("host") not in ([host] for host in self._hosts):
            return "this page is served to this machine only"
        if method in ("GET", "HEAD"):
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if (origin is not None and origin not in self._origins) or site not in (None, "same-origin"):
            return "this page is asked by itself only"
        return None
