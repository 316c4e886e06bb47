"""`vtsum serve`: the page in a real browser, and what is refused to everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests import forked
from tests.vtsum.chromium import Browser
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.serving.asked import recut_words, summarize_words
from vtsum.serving.jobs import Jobs
from vtsum.serving.store import Store

SERVE = "from vtsum.serving import serve; serve({!r}, largest={}, ready=lambda a: print(a, flush=True))"


class Served:
    """A server's process, and how to ask it."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()
        found = urlsplit(self.address)
        self.host, self.path = found.netloc, found.path

    def ask(
        self, method: str, path: str, body: Any = None, *, whole: bool = False, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of an answer; whole: the path is not one below the page's."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, timeout=30)
        with contextlib.closing(connection):
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path if whole else self.path + path, content, named)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}

    def state(self) -> Any:
        return json.loads(self.ask("GET", "api/state")[1])

    def wait(self, *ends: str, seconds: float = 120) -> dict[str, Any]:
        """The newest job, once it is in one of these states."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.state()["jobs"][0]
            if job["state"] in ends:
                return dict(job)
            assert time.monotonic() < deadline, job
            time.sleep(0.1)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Its exit status, and what it said on standard error."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """One that takes videos of at most 3 MB."""
    server = Served([sys.executable, "-c", SERVE.format(str(folder), 3_000_000)])
    yield server
    server.end()


def test_nobody_else_is_answered(served):
    assert served.ask("GET", "")[0] == 200
    for path in ("/", "/api/state", "/x/api/state", served.path[:-2] + "/"):
        assert served.ask("GET", path, whole=True)[0] == 404
    port = served.host.rpartition(":")[2]
    assert served.ask("GET", "api/state", host=f"localhost:{port}")[0] == 200
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil.example", ""):
        assert served.ask("GET", "api/state", host=host)[0] == 403
    asked = {"video": "none.mp4"}
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}):
        for method, path in (("POST", "api/summaries"), ("PUT", "api/videos?name=a.mp4"), ("DELETE", "api/jobs/1")):
            assert served.ask(method, path, asked, **headers)[0] == 403
    assert served.ask("POST", "api/summaries", asked, origin=f"http://{served.host}")[0] == 404
    assert served.ask("POST", "api/state", asked)[0] == 405


def test_every_answer_says_what_a_page_may_do(served):
    for path in ("", "serve.js", "api/state", "nothing", "summaries/a/b"):
        headers = served.ask("GET", path)[2]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"  # the address is the secret
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_many_that_connect_and_say_nothing_keep_nobody_out(tmp_path):
    """More than files may be open: asyncio said so thousands of times a second, and took no one from then on."""
    serve = [sys.executable, "-m", "vtsum", "serve", str(tmp_path / "d")]
    server = Served(["/bin/sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *serve])
    host, _, port = server.host.partition(":")
    with contextlib.ExitStack() as silent:
        for _ in range(400):
            silent.enter_context(socket.create_connection((host, int(port)), timeout=30))
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert server.ask("GET", "api/state")[0] == 200
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
    code, said = server.end()
    assert code in (0, 130)
    assert said == ""


@pytest.mark.parametrize(
    "path",
    [
        "summaries/..%2f..%2fetc/passwd",
        "summaries/%2e%2e/videos/x",
        "summaries/videos/..%2fbatch.jsonl",
        "summaries/made/keyframes/..%2fnotes.txt",
        "summaries/made/notes.txt",
        "summaries/made/summary.txt%00.mp4",
        "summaries/made/summary.srt",
        "summaries/link/summary.json",
        "videos/..%2fmade%2fsummary.json",
        "videos/link.mp4",
        "videos/.hidden.mp4",
        "static/index.html",
        "..%2fserve.js",
    ],
)
def test_no_other_file_is_given(served, folder, path):
    made = folder / "made"
    if not made.exists():
        made.mkdir()
        for name in ("summary.json", "notes.txt"):
            (made / name).write_text("{}")
        (made / "summary.srt").symlink_to("/etc/passwd")
        (folder / "link").symlink_to(made)
        (folder / "videos/link.mp4").symlink_to("/etc/passwd")
        (folder / "videos/.hidden.mp4").write_text("x")
    assert served.ask("GET", path)[0] == 404
    assert served.ask("GET", "summaries/made/summary.json?download")[0] == 200


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../.ssh/authorized_keys", "authorized_keys"),
        ("C:\\films\\a b.MP4", "a b.MP4"),
        (".profile", "profile"),
        ("-o=x.mp4", "o=x.mp4"),
        ("a\x1b]0;x\x07\u202ec.mp4", "a ]0;x c.mp4"),
        ("", "video"),
        ("x" * 400 + ".mkv", "x" * 100 + ".mkv"),
        ("{stem}.mp4", "{stem}.mp4"),
        ("a.mp4/", "video_3"),
    ],
)
def test_a_video_is_kept_under_a_name_of_ours(served, folder, name, kept):
    before = set((folder / "videos").iterdir())
    status, content, _ = served.ask("PUT", f"api/videos?name={quote(name)}", b"x")
    assert (status, json.loads(content)) == (200, {"video": kept})
    (new,) = set((folder / "videos").iterdir()) - before
    assert new == folder / "videos" / kept
    assert json.loads(served.ask("PUT", f"api/videos?name={quote(name)}", b"yy")[1])["video"] != kept
    assert new.read_bytes() == b"x"


def test_what_cannot_be_is_told_and_nothing_left(served, folder):
    video = json.loads(served.ask("PUT", "api/videos?name=there.mp4", b"x")[1])["video"]
    before = sorted((folder / "videos").iterdir())
    assert served.ask("PUT", "api/videos?name=b.mp4", b"x" * 3_000_001)[:2] == (
        400,
        b"serve: a video must have at most 3,000,000 bytes, got more",
    )
    assert served.ask("PUT", "api/videos?name=b.mp4", b"")[0] == 400
    connection = http.client.HTTPConnection(served.host)  # one that goes away midway
    connection.putrequest("PUT", f"{served.path}api/videos?name=b.mp4")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders(b"x" * 1_000_000)
    connection.close()
    for body, told in (
        (b"[]", b"must hold an object"),
        (b"{" * 100, b"must be JSON"),
        (b'{"video": "' + b"x" * 70_000 + b'"}', b"at most 65,536 bytes"),
        ({"video": video, "budget": "all of it"}, b"budget must be a share"),
        ({"video": video, "budget": ["1"]}, b"budget must be text"),
    ):
        status, content, _ = served.ask("POST", "api/summaries", body)
        assert (status, told in content) == (400, True), content
    assert served.ask("POST", "api/check", {"budget": "all of it"})[0] == 400
    assert served.ask("POST", "api/check", {"budget": "2min", "ocr": False})[:2] == (204, b"")
    for number in ("9", "9" * 5000, "-1", "x"):
        assert served.ask("DELETE", f"api/jobs/{number}")[:2] == (404, b"")
    deadline = time.monotonic() + 10
    while sorted((folder / "videos").iterdir()) != before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


LISTED = {
    **{
        "title": {"text": "\u202egood"},
        "source": {"name": "../x.mp4", "duration": 2.0},
        "summary": {"duration": 1.0},
    },
    **{"settings": {"budget": "15%"}, "text": [], "shots": [{"start": 0, "end": 1.5, "clip": None}]},
}


def test_a_strangers_summary_does_not_hide_the_others(tmp_path, served, folder):
    good = LISTED
    odd = [
        [],
        {**good, "shots": [{"start": "x", "end": 1, "clip": None}]},
        {**good, "shots": [{"start": 0, "end": "inf", "clip": None}]},
        {**good, "summary": {"duration": "nan"}},
        {**good, "shots": 7},
        {**good, "title": None},
        {**good, "shots": good["shots"] * 100_001},
    ]
    named = {os.fsencode(f"odd{number}"): content for number, content in enumerate([*odd, good])}
    named |= {b"\xff": good, b"two\nlines": good}  # which no address can name
    for name, content in named.items():
        (folder / os.fsdecode(name)).mkdir()
        (folder / os.fsdecode(name) / "summary.json").write_text(json.dumps(content))
    listed = {summary["name"]: summary for summary in served.state()["summaries"]}
    assert set(listed) == {f"odd{len(odd)}"}
    assert listed[f"odd{len(odd)}"]["recut"] is False
    assert listed[f"odd{len(odd)}"]["title"] == "good"


def test_what_is_wrong_with_a_strangers_summary_is_found_out_once(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    store = Store(tmp_path)
    for content, listed in (("[" * 20_000_000, 0), (json.dumps(LISTED), 1)):
        (made / "summary.json").write_text(content)
        store.listed()
        began = time.process_time()
        assert [len(store.listed()) for _ in range(20)] == [listed] * 20
        assert time.process_time() - began < 1


def test_names_of_folders_are_shown_clean(tmp_path):
    folder = tmp_path / "a\u202egpj.exe"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({**LISTED, "settings": {"budget": "\x1b[31m15%"}}))
    (told,) = Store(tmp_path).listed()
    assert (told["name"], told["shown"], told["budget"]) == (folder.name, "agpj.exe", "[31m15%")


def test_who_goes_away_while_asking_is_no_mishap(tmp_path):
    server = Served([sys.executable, "-c", SERVE.format(str(tmp_path / "d"), 1000)])
    for path in ("api/summaries", "api/recut", "api/check", "api/videos?name=a.mp4"):
        connection = http.client.HTTPConnection(server.host, timeout=30)
        connection.putrequest("PUT" if "videos" in path else "POST", server.path + path)
        connection.putheader("Content-Length", "100")
        connection.endheaders(b'{"video": ')
        connection.close()
    assert server.state()["jobs"] == []
    assert "Disconnect" not in server.end()[1]


def test_what_is_asked_for_cannot_become_an_option(tmp_path):
    words = summarize_words(tmp_path / "-x.mp4", tmp_path / "{a}", {"budget": " 30s ", "speech": False})
    assert words[-2:] == ["--", str(tmp_path / "-x.mp4")]
    assert f"--output={tmp_path}/{{{{a}}}}" in words
    assert "--budget=30s" in words
    words = recut_words(tmp_path, tmp_path / "v.mp4", tmp_path / "o", {"keep": [[1, 2.5], [4, 5]]})
    assert "--keep=1.000-2.500,4.000-5.000" in words
    assert "--drop=" in words
    for keep in ("--overwrite", [["1", "2"]], [[2, 1]], [[1, 2], [1.5, 3]], [[True, 2]], [[1]], [[float("nan"), 2]]):
        with pytest.raises(VTSumError, match="keep must"):
            recut_words(tmp_path, tmp_path / "v.mp4", tmp_path / "o", {"keep": keep})


def test_a_video_that_fails_is_told_and_ctrl_c_stops_what_runs(tmp_path, clip):
    server = Served([sys.executable, "-m", "vtsum", "serve", str(tmp_path / "d")])
    assert server.address.startswith("http://127.0.0.1:")
    for name, content in (("bad.mp4", b"no video"), ("good.mp4", clip.read_bytes())):
        server.ask("PUT", f"api/videos?name={name}", content)
    server.ask("POST", "api/summaries", {"video": "bad.mp4"})
    assert "must be a video file" in server.wait("failed")["error"]
    for _ in range(2):
        assert server.ask("POST", "api/summaries", {"video": "good.mp4"})[0] == 202
    waiting = server.state()["jobs"][0]
    assert waiting["state"] == "waiting"
    assert server.ask("DELETE", f"api/jobs/{waiting['number']}")[0] == 204
    assert server.ask("DELETE", f"api/jobs/{waiting['number']}")[0] == 404
    assert server.wait("stopped")["name"] == "good.mp4"
    half = f"PUT {server.path}api/videos?name=half.mp4 HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: 9\r\n\r\nhalf"
    with socket.create_connection(server.host.split(":"), timeout=30) as sending:
        sending.sendall(half.encode())
        until_there(tmp_path / "d" / "videos", ".half.mp4.*.part")
        assert server.end() == (0, "")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["videos"]  # no summary, whole or half
    assert sorted(path.name for path in (tmp_path / "d" / "videos").iterdir()) == ["bad.mp4", "good.mp4"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_terminal_that_closes_and_kill_stop_what_runs(tmp_path, clip, number, status):
    server = Served([sys.executable, "-m", "vtsum", "serve", str(tmp_path / "d")])
    server.ask("PUT", "api/videos?name=good.mp4", clip.read_bytes())
    server.ask("POST", "api/summaries", {"video": "good.mp4"})
    server.wait("running")
    assert server.end(number) == (status, "")
    assert os.listdir(tmp_path / "d") == ["videos"]


def test_a_job_that_is_stopped_while_its_process_begins_ends(monkeypatch):
    begin, begun = asyncio.create_subprocess_exec, []

    async def slowly(*words: str, **options: Any) -> asyncio.subprocess.Process:
        process = await begin(sys.executable, "-c", "import time; time.sleep(60)", **options)
        begun.append(process)
        assert jobs.stop(1)
        return process

    async def run() -> None:
        jobs.add(lambda: [], "film.mp4")
        running = asyncio.create_task(jobs.run())
        while not begun:
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(begun[0].wait(), 30) == -signal.SIGTERM
        running.cancel()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    jobs = Jobs()
    asyncio.run(run())
    assert jobs.told()[0]["state"] == "stopped"


def until_there(folder: Path, pattern: str, seconds: float = 30) -> None:
    """Wait until a folder holds a file of such a name."""
    deadline = time.monotonic() + seconds
    while not any(folder.glob(pattern)):
        assert time.monotonic() < deadline, pattern
        time.sleep(0.05)


def test_the_whole_way_in_a_browser(tmp_path, clip, browser: Browser):
    """Choose a file, watch its summary being made, look at it, keep a shot that it had left out, and cut again."""
    server = Served([sys.executable, "-m", "vtsum", "serve", str(tmp_path / "d")])
    try:
        film = tmp_path / 'a "film" <b>&amp;.mp4'
        os.link(clip, film)
        browser.open(server.address, 1280, 800)
        browser.run("document.getElementById('speech').click(); document.getElementById('ocr').click(); 0")
        browser.run("document.getElementById('budget').value = 'abc'; 0")
        browser.choose("#files", film)
        until(browser, "document.getElementById('told').textContent.includes('budget must be')")
        assert os.listdir(tmp_path / "d" / "videos") == []  # told before it is sent
        browser.run("document.getElementById('budget').value = '30%'; 0")
        browser.choose("#files", film)
        until(browser, "document.querySelector('#jobs .name')?.textContent")
        assert browser.run("document.querySelector('#jobs .name').textContent") == film.name
        until(browser, "document.querySelector('#jobs progress')?.value > 0")
        until(browser, "document.querySelectorAll('#summaries > li').length === 1")
        (made,) = server.state()["summaries"]
        assert browser.run("document.querySelector('#summaries h3').textContent") == made["title"]
        assert 0 < made["lasts"] < made["seconds"]
        browser.run("document.querySelector('#summaries video').play().then(() => 0)")
        until(browser, "document.querySelector('#summaries video').currentTime > 0.1")
        picture = next(shot["picture"] for shot in made["shots"] if shot["picture"])
        assert server.ask("GET", f"summaries/{quote(made['name'])}/{picture}")[2]["content-type"] == "image/jpeg"
        page = server.ask("GET", f"summaries/{quote(made['name'])}/report.html")[2]
        assert page["content-security-policy"].startswith("sandbox allow-scripts")
        left = next(i for i, shot in enumerate(made["shots"]) if not shot["chosen"])
        browser.run("document.querySelector('.change').click()")
        if where := os.environ.get("VTSUM_PICTURES"):
            browser.picture(Path(where) / "serve_change.png", whole=False)
        browser.run(f"document.querySelectorAll('.shot .time')[{left}].click()")
        until(browser, f"document.getElementById('original').currentTime >= {made['shots'][left]['start'] - 0.1}")
        browser.run(f"document.querySelectorAll('.shot select')[{left}].value = 'keep'; 0")
        browser.run("document.getElementById('new-budget').value = '60%'; document.getElementById('again').click()")
        until(browser, "document.querySelectorAll('#summaries > li').length === 2")
        new = server.state()["summaries"][0]
        assert new["name"] == made["name"] + "_2"
        assert new["shots"][left]["chosen"]
        assert new["budget"] == "60%"
        assert not browser.errors
        assert all(urlsplit(url).netloc == server.host for url in browser.requests if not url.startswith("blob:"))
        for width in (1280, 360):
            browser.open(server.address, width, 800, dark=width == 360)
            until(browser, "document.querySelectorAll('#summaries > li').length === 2")
            assert browser.run("document.documentElement.scrollWidth") <= width
            if where := os.environ.get("VTSUM_PICTURES"):
                browser.picture(Path(where) / f"serve_{width}.png")
        assert server.end(signal.SIGTERM)[0] in (0, 143)
    finally:
        server.process.kill()


def until(browser: Browser, condition: str, seconds: float = 120) -> None:
    """Wait until a condition holds in the page."""
    deadline = time.monotonic() + seconds
    while not browser.run(f"Boolean({condition})"):
        assert time.monotonic() < deadline, (condition, browser.run("document.getElementById('told')?.textContent"))
        time.sleep(0.05)


def test_a_folder_that_is_a_link_and_a_port_that_is_taken_are_refused(tmp_path, served):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(VTSumError, match=r"serve: .*link must lie where it is named"):
        Store(tmp_path / "link")
    port = served.host.rpartition(":")[2]
    command = [sys.executable, "-m", "vtsum", "serve", str(tmp_path / "d"), "--port", port]
    done = forked.run(command, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.startswith(f"vtsum: serve: port must be free, got {port}: ")


def test_what_a_killed_server_left_of_a_video_is_removed(tmp_path):
    """And not what another one is still being sent."""
    command = [sys.executable, "-m", "vtsum", "serve", str(tmp_path / "d")]
    mine = tmp_path / "d" / "videos" / ".notes.part"
    killed = Served(command)
    mine.touch()
    with contextlib.closing(http.client.HTTPConnection(killed.host, timeout=30)) as connection:
        connection.putrequest("PUT", f"{killed.path}api/videos?name=a.mp4")
        connection.putheader("Content-Length", "100000")
        connection.endheaders(b"x" * 1000)
        until_there(tmp_path / "d", "videos/.a.mp4.*.part")
        assert Served(command).end()[0] in (0, 130)
        assert len(os.listdir(mine.parent)) == 2
        killed.end(signal.SIGKILL)
    assert Served(command).end()[0] in (0, 130)
    assert os.listdir(mine.parent) == [mine.name]
