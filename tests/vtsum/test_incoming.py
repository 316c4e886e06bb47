"""Videos that are no files: standard input, pipes, addresses on the web."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import vtsum
from tests import forked
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.video import incoming

pytestmark = pytest.mark.usefixtures("nobody_listens")
OPTIONS = {"ocr": False, "captioner": "none", "budget": "4s", "formats": ["mp4", "json", "edl", "analysis"]}
SECRET = "this is nobody's business"


@pytest.fixture
def spool(tmp_path, monkeypatch) -> Path:
    """The system's temporary folder, to look at what is left in it."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def server(clip, tmp_path) -> Iterator[str]:
    content = Path(clip).read_bytes()
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = self.path.partition("?")[0]
            if place.startswith("/to-"):
                target = {
                    "/to-clip": "/a%20talk.mp4",
                    "/to-file": f"file://{secret}",
                    "/to-ftp": "ftp://127.0.0.1/x.mp4",
                    "/to-concat": f"concat:{secret}",
                    "/to-itself": "/to-itself",
                }[place]
                self.send_response(302)
                self.send_header("Location", target)
                self.end_headers()
                return
            if place == "/slow.mp4":
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    for byte in content:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.1)
                return
            body = {
                "/a%20talk.mp4": content,
                "/closed.mp4": content,
                "/short.mp4": content[:-5000],
                "/list.m3u8": f"#EXTM3U\n#EXTINF:5,\nfile://{secret}\n".encode(),
            }.get(place)
            self.send_response(404 if body is None else 200)
            if place != "/closed.mp4":
                self.send_header("Content-Length", str(len(content if place == "/short.mp4" else body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(scope="module")
def of_file(clip, nobody_listens, tmp_path_factory) -> vtsum.Summary:
    return vtsum.summarize(clip, tmp_path_factory.mktemp("file") / "o", model=ColourModel(), **OPTIONS)


def _same(made: vtsum.Summary, of_file: vtsum.Summary) -> None:
    assert made.shots == of_file.shots
    assert made.data["source"]["size_bytes"] == of_file.data["source"]["size_bytes"]


@pytest.mark.parametrize("place", ["/a%20talk.mp4?token=1", "/to-clip"])
def test_an_address_is_summarised_as_its_file(server, spool, of_file, tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    note = lambda stage, done: told.append(stage)  # noqa: E731
    server = server.replace("http", "HTTP") if "to" in place else server
    made = vtsum.summarize(server + place, model=ColourModel(), progress=note, **OPTIONS)
    _same(made, of_file)
    name = "a talk" if "talk" in place else "to-clip"
    assert made.output == tmp_path / f"{name}_summary"
    assert made.data["source"]["name"] == ("a talk.mp4" if "talk" in place else "to-clip")
    assert told[0] == "fetch"
    assert "spool" not in made.files["edl"].read_text()
    again = vtsum.recut(made.output, tmp_path / "r", video=server + place, budget="2s")
    assert again.duration <= 2.05
    assert os.listdir(spool) == []


def test_an_answer_that_ends_as_the_connection_does_is_taken(server, spool, of_file, tmp_path, monkeypatch):
    """HTTP of both kinds knows answers of no stated length: nobody can say that one is cut."""
    monkeypatch.chdir(tmp_path)
    _same(vtsum.summarize(f"{server}/closed.mp4", model=ColourModel(), **OPTIONS), of_file)


def test_what_an_address_cannot_be(server, spool, tmp_path, monkeypatch):
    for place, reason in {
        "/to-file": "must be an address that can be read",
        "/to-ftp": "must be an address that can be read",
        "/to-concat": "must be an address that can be read",
        "/to-itself": "must be an address that can be read",
        "/none.mp4": "must be an address that can be read, got: .*404",
        "/short.mp4": "must (come whole|be an address that can be read)",
        "/list.m3u8": "/list.m3u8: must be a video file, got a playlist",
    }.items():
        with pytest.raises(VTSumError, match=reason) as told:
            vtsum.summarize(server + place, tmp_path / "o", model=ColourModel(), **OPTIONS)
        assert SECRET not in str(told.value)
        assert str(spool) not in str(told.value)
        assert server + place in str(told.value)
    monkeypatch.setattr(incoming, "LIMIT", 10_000)
    with pytest.raises(VTSumError, match="must have at most 10,000 bytes, got more"):
        vtsum.summarize(f"{server}/a%20talk.mp4", tmp_path / "o", model=ColourModel(), **OPTIONS)
    for nowhere in ("ftp://127.0.0.1/x.mp4", "file:///etc/hostname", "concat:a|b", "http:x.mp4"):
        with pytest.raises(VTSumError, match=r"no such file|must be a file on this machine"):
            vtsum.summarize(nowhere, tmp_path / "o", model=ColourModel(), **OPTIONS)
    with pytest.raises(VTSumError, match=r"summarize: http://127\.0\.0\.1:9/x must be an address"):  # no password
        vtsum.summarize("http://me:word@127.0.0.1:9/x", tmp_path / "o", model=ColourModel(), **OPTIONS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(VTSumError, match="output must be a new or empty folder"):  # before anything is fetched
        vtsum.summarize("http://127.0.0.1:9/x.mp4", tmp_path / "full", model=ColourModel(), **OPTIONS)
    assert os.listdir(spool) == []
    assert not (tmp_path / "o").exists()


def test_an_address_that_sends_a_byte_now_and_then_is_one_line(server, tmp_path):
    """Each of them came in time for the call that waited for it; the whole would have taken hours."""
    hurried = "import sys; from vtsum import cli; from vtsum.video import incoming; incoming._PATIENCE = 3.0; "
    words = [sys.executable, "-c", f"{hurried}sys.exit(cli.main())", "summarize", f"{server}/slow.mp4"]
    env = {**ENVIRONMENT, "TMPDIR": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [*words, "-o", tmp_path / "o", "-q"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert re.search(r"/slow\.mp4 must send 1,024 bytes a second, got \d+ in [34] s", done.stderr), done
    assert os.listdir(tmp_path) == ["secret.txt"]


def test_standard_input_and_pipes(clip, spool, of_file, tmp_path, monkeypatch):
    environment = {**ENVIRONMENT, "TMPDIR": str(spool)}
    run = [sys.executable, "-m", "vtsum.cli", "summarize", "--no-speech", "--no-ocr", "--budget", "4s", "-f", "json"]
    with open(clip, "rb") as source:
        words = ["-", "-o", "{stem}"]
        done = subprocess.run(
            [*run, *words], stdin=source, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert schema.read(tmp_path / "stdin" / "summary.json")["source"]["name"] == "stdin"
    nothing = subprocess.run(
        [*run, "-"], stdin=subprocess.DEVNULL, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    reason = "vtsum: probe: standard input: must be a video file, got an empty file (0 bytes)\n"
    assert (nothing.returncode, nothing.stderr) == (2, reason)
    pipe = tmp_path / "film.mp4"
    os.mkfifo(pipe)
    writer = threading.Thread(target=_pour, args=(clip, pipe))
    writer.start()
    made = vtsum.summarize(pipe, tmp_path / "o", model=ColourModel(), **OPTIONS)
    writer.join()
    _same(made, of_file)
    monkeypatch.setattr(incoming, "LIMIT", 10_000)
    writer = threading.Thread(target=_pour, args=(clip, pipe))
    writer.start()
    with pytest.raises(VTSumError, match=r"summarize: .*film.mp4 must have at most 10,000 bytes, got more"):
        vtsum.summarize(pipe, tmp_path / "x", model=ColourModel(), **OPTIONS)
    writer.join()
    assert os.listdir(spool) == []


def _pour(source: Path, pipe: Path) -> None:
    try:
        with open(pipe, "wb") as target:
            target.write(Path(source).read_bytes())
    except BrokenPipeError:
        pass


@pytest.mark.parametrize("secret", ["none.mp4;token=s3cret", "none.mp4?a=1;sig=s3cret", "none.mp4#access_token=s3cret"])
def test_what_lets_in_is_neither_told_nor_kept(server, tmp_path, secret):
    words = ["summarize", f"{server}/{secret}", "-o", str(tmp_path / "o"), "--log", str(tmp_path / "log")]
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words], env=ENVIRONMENT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "none.mp4" in done.stderr
    assert "s3cret" not in done.stderr + (tmp_path / "log").read_text()
    assert incoming.name_of(f"{server}/{secret}") == "none.mp4"


def test_a_batch_takes_addresses(server, spool, tmp_path):
    (tmp_path / "list").write_text(f"{server}/a%20talk.mp4\n{server}/none.mp4\n")
    model = ["--model", "tests.vtsum.batch_models:Poisoned", "--captioner", "none", "--no-speech", "--no-ocr"]
    words = ["batch", f"@{tmp_path / 'list'}", "-o", str(tmp_path / "out"), "-f", "json", "--budget", "2s", *model]
    run = [sys.executable, "-m", "vtsum.cli", *words, "--json"]
    environment = {**ENVIRONMENT, "TMPDIR": str(spool)}
    done = forked.run(run, env=environment)
    assert done.returncode == 2
    rows = {row["source"]: row for row in json.loads(done.stdout)}
    assert rows[f"{server}/a%20talk.mp4"]["status"] == "done", done.stderr
    assert "404" in rows[f"{server}/none.mp4"]["reason"]
    assert (tmp_path / "out" / "a talk" / "summary.json").exists()
    again = forked.run(run, env=environment)
    assert {row["status"] for row in json.loads(again.stdout)} == {"skipped", "failed"}
    assert [name for name in os.listdir(spool) if name.startswith("vtsum-")] == []
