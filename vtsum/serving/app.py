"""What the page asks for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from vtsum.errors import VTSumError
from vtsum.reading import parse_json
from vtsum.serving.asked import recut_words, summarize_words
from vtsum.serving.guard import Guard
from vtsum.serving.jobs import Jobs
from vtsum.serving.store import Store
from vtsum.shown import one_line

_STATIC = Path(__file__).with_name("static")
_BASE = Path(__file__).parents[1] / "summary" / "templates" / "page.css"  # colours and type of the summaries' pages
_PAGES = {
    "": (_STATIC / "index.html", "text/html"),
    "page.css": (_BASE, "text/css"),
    "serve.css": (_STATIC / "serve.css", "text/css"),
    "serve.js": (_STATIC / "serve.js", "text/javascript"),
}
_KINDS = {".mp4": "video/mp4", ".vtt": "text/vtt", ".jpg": "image/jpeg"}  # what the page shows; the rest is kept
_VIDEOS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg"}
_NUMBER = re.compile(r"[0-9]{1,18}")
_WORDS = 64 << 10  # bytes of what is asked for in JSON
# A summary's page is made from a stranger's words: it may run its own scripts, and belongs to no site.
_STRANGE = "sandbox allow-scripts allow-downloads allow-popups; frame-ancestors 'none'"


def make_app(store: Store, token: str, hosts: Iterable[str], largest: int) -> Starlette:
    """The application, under /TOKEN/.

    Args:
        hosts: what the Host header may be. largest: bytes of a video.
    """
    return Starlette(
        routes=[Mount(f"/{token}", routes=_Pages(store, largest).routes)],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={VTSumError: _told, ClientDisconnect: _gone},
        lifespan=_lifespan,
    )


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    jobs = Jobs()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.run)
        yield {"jobs": jobs}
        tasks.cancel_scope.cancel()


def _told(request: Request, error: Exception) -> Response:
    return PlainTextResponse(one_line(str(error)), status_code=400)


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


class _Pages:
    def __init__(self, store: Store, largest: int) -> None:
        self._store, self._largest = store, largest
        self.routes = [
            Route("/", self.page),
            Route("/{name:str}", self.page),
            Route("/api/state", self.state),
            Route("/api/check", self.check, methods=["POST"]),
            Route("/api/videos", self.take, methods=["PUT"]),
            Route("/api/summaries", self.summarize, methods=["POST"]),
            Route("/api/recut", self.recut, methods=["POST"]),
            Route("/api/jobs/{number:str}", self.stop, methods=["DELETE"]),
            Route("/videos/{name:str}", self.video),
            Route("/summaries/{summary:str}/{name:path}", self.file),
        ]

    async def page(self, request: Request) -> Response:
        found = _PAGES.get(request.path_params.get("name", ""))
        if found is None:
            return PlainTextResponse("there is no such page", status_code=404)
        return FileResponse(found[0], media_type=found[1])

    async def state(self, request: Request) -> Response:
        listed = await anyio.to_thread.run_sync(self._store.listed)
        return JSONResponse({"jobs": request.state.jobs.told(), "summaries": listed})

    async def check(self, request: Request) -> Response:
        """What cannot be asked for is told before a video is sent."""
        summarize_words(Path("video"), Path("output"), await _asked(request))
        return Response(status_code=204)

    async def take(self, request: Request) -> Response:
        video = await self._store.take(request.query_params.get("name", ""), request.stream(), self._largest)
        return JSONResponse({"video": video.name})

    async def summarize(self, request: Request) -> Response:
        asked = await _asked(request)
        video = self._store.video(str(asked.get("video")))
        if video is None:
            return PlainTextResponse("there is no such video", status_code=404)
        return _add(request, video, lambda: summarize_words(video, self._store.new_summary(video.name), asked))

    async def recut(self, request: Request) -> Response:
        asked = await _asked(request)
        folder = self._store.summary(str(asked.get("summary")))
        video = None if folder is None else self._store.video(self._store.video_of(folder))
        if folder is None or video is None:
            return PlainTextResponse("there is no such summary, or its video is gone", status_code=404)
        return _add(request, video, lambda: recut_words(folder, video, self._store.new_summary(video.name), asked))

    async def stop(self, request: Request) -> Response:
        number = request.path_params["number"]  # Python makes no number of more than 4,300 digits
        stopped = _NUMBER.fullmatch(number) is not None and request.state.jobs.stop(int(number))
        return Response(status_code=204 if stopped else 404)

    async def video(self, request: Request) -> Response:
        path = self._store.video(request.path_params["name"])
        if path is None:
            return PlainTextResponse("there is no such video", status_code=404)
        return FileResponse(path, media_type=_VIDEOS.get(path.suffix.lower(), "application/octet-stream"))

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._store.file(request.path_params["summary"], name)
        if path is None:
            return PlainTextResponse("there is no such file", status_code=404)
        if name == "report.html":
            return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": _STRANGE})
        kind = _KINDS.get(path.suffix)
        if kind is not None and "download" not in request.query_params:
            return FileResponse(path, media_type=kind)
        return FileResponse(path, filename=f"{request.path_params['summary']}{path.suffix}")


async def _asked(request: Request) -> dict[str, Any]:
    """The JSON object that a request holds."""
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > _WORDS:
            raise VTSumError(f"serve: what is asked for must have at most {_WORDS:,} bytes, got more")
    return parse_json(content, dict, "serve: what is asked for")


def _add(request: Request, video: Path, words: Callable[[], list[str]]) -> Response:
    """Have a command wait for its turn. Its words are made now, too, for what is wrong with them, and again then: where
    its output goes depends on those before it."""
    words()
    job = request.state.jobs.add(words, video.name)
    if job is None:
        return PlainTextResponse("too many wait already", status_code=429)
    return JSONResponse(job.told(), status_code=202)
