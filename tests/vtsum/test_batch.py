"""Many videos: nothing is lost, nothing is done twice, one bad file stops nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import write_clip
from tests.vtsum.samples import ENVIRONMENT
from vtsum.batches.inputs import find_videos, place
from vtsum.errors import VTSumError
from vtsum.summary.staging import sweep, temporary

MODEL = "tests.vtsum.batch_models:Poisoned"
OPTIONS = ["--model", MODEL, "--no-speech", "--no-ocr", "--captioner", "none", "-f", "mp4,json", "--budget", "1s"]
COMMAND = [sys.executable, "-m", "vtsum.cli", "batch", *OPTIONS]
OURS = '{"format": "vtsum-batch/1"}\n'


def _clip(path: Path, level: int, seconds: float = 3.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [n / 5 for n in range(round(seconds * 5))]
    return write_clip(path, times, lambda n, _: np.full((32, 32, 3), level, np.uint8), rate=5)


def _run(*words: object) -> subprocess.CompletedProcess:
    return forked.run([*COMMAND, *map(str, words)], env=ENVIRONMENT, timeout=300)


def _started(*words: object) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*COMMAND, *map(str, words)], env=ENVIRONMENT, **quiet)


def _entries(folder: Path) -> list[dict]:
    """What the ledger says so far, but for a line that is being written."""
    path = folder / "batch.jsonl"
    lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _whole(folder: Path) -> set[str]:
    """The summaries that are there; a folder is there whole or not at all, and nothing else lies beside."""
    names = set(os.listdir(folder)) - {"batch.jsonl"}
    for name in names:
        assert sorted(os.listdir(folder / name)) == ["summary.json", "summary.mp4"], name
    return names


def test_a_pattern_ends_where_links_lead_back(tmp_path):
    """Two links to the folder that they lie in, and a pattern that goes to any depth; each video comes once."""
    _clip(tmp_path / "in" / "sub" / "a.mp4", 100)
    for name in ("back", "b/again", "sub/up", "sub/here"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(tmp_path / "in", target_is_directory=True)
    for pattern in ("**/*.mp4", "*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*.mp4"):
        words = [
            sys.executable,
            "-m",
            "vtsum.cli",
            "batch",
            tmp_path / "in" / pattern,
            "-o",
            tmp_path / "o",
            "--dry-run",
        ]
        done = forked.run(words, env=ENVIRONMENT, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith(f"{tmp_path / 'in'}/"), done.stdout
        assert done.stdout.count("\n") == 2, done.stdout
    linked = tmp_path / "other"
    linked.symlink_to(tmp_path / "in" / "sub", target_is_directory=True)
    assert find_videos([str(tmp_path / "oth*" / "**" / "*.mp4")], "batch") == [linked / "a.mp4"]


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path):
    """What lies in it would be left out in silence, or the folder be said to hold nothing."""
    closed = tmp_path / "in" / "closed"
    for path in (tmp_path / "in" / "a.mp4", closed / "b.mp4"):
        _clip(path, 100)
    closed.chmod(0)
    kept = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.getuid() == 0 else []
    if kept and not shutil.which("setpriv"):
        pytest.skip("root may look into every folder, and there is no setpriv")
    try:
        for place in (tmp_path / "in", closed, tmp_path / "in" / "**" / "*.mp4", tmp_path / "in" / "*" / "*"):
            words = [*kept, sys.executable, "-m", "vtsum.cli", "batch", place, "-o", tmp_path / "o", "--dry-run"]
            done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
            told = f"vtsum: batch: {closed}: cannot be read: Permission denied\n"
            assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    finally:
        closed.chmod(0o755)


def test_one_bad_file_stops_nobody(tmp_path):
    place, out = tmp_path / "in", tmp_path / "out"
    for name, level in {"a": 100, "sub/a": 120, "white": 255, "black": 0, "z": 90}.items():
        _clip(place / f"{name}.mp4", level)
    (place / "no.mp4").write_text("no video")
    words = [*COMMAND, place, "-o", out, "--workers", "2", "--limit", "25s"]
    # To the end of what it prints, which the process that clears up after workers may outlive it for.
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    told = {line.split(": ", 2)[1]: line for line in done.stderr.splitlines()}
    assert len(told) == 3, done.stderr
    assert "must be a video file" in told[str(place / "no.mp4")]
    assert "ended by signal 9 (SIGKILL)" in told[str(place / "white.mp4")]
    assert "took longer than the limit of 25 s" in told[str(place / "black.mp4")]
    assert done.stdout.splitlines() == [f"3 videos summarised, 3 failed, in {out}"]
    assert _whole(out) == {"a", "sub_a", "z"}
    made = {name: (out / name / "summary.json").stat().st_ino for name in ("a", "sub_a", "z")}
    (place / "white.mp4").unlink()
    (place / "no.mp4").unlink()
    shutil.copy(place / "z.mp4", place / "black.mp4")
    again = _run(place, "-o", out, "--json")
    assert again.returncode == 0, again.stderr
    rows = {Path(row["output"]).name: row["status"] for row in json.loads(again.stdout)}
    assert rows == {"a": "skipped", "sub_a": "skipped", "z": "skipped", "black": "done"}
    assert all((out / name / "summary.json").stat().st_ino == inode for name, inode in made.items())


def _killed_after(folder: Path, words: list[object], count: int, number: int, status: str = "done") -> int:
    """Start a batch, and send it a signal once `count` videos are done or more (of that status); its exit status."""
    process = _started(*words)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if sum(entry["status"] == status for entry in _entries(folder)) >= count:
            break
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait(30)


def _kill_and_finish(tmp_path: Path, count: int, bad: int, kills: list[int]) -> None:
    for number in range(count):
        _clip(tmp_path / "in" / f"v{number:03}.mp4", 40 + number % 150, seconds=2)
    for number in range(bad):
        (tmp_path / "in" / f"bad{number}.mp4").write_bytes(b"\0" * 100)
    out = tmp_path / "out"
    words = [tmp_path / "in", "-o", out, "--workers", 2]
    for turn, number in enumerate(kills):
        before = count * (turn + 1) // (len(kills) + 1)
        status = _killed_after(out, words, max(before, 1), number)
        assert status == {signal.SIGKILL: -9, signal.SIGINT: 130}[number]
    done = _run(*words)
    assert done.returncode == (2 if bad else 0), done.stderr
    assert len(done.stderr.splitlines()) == bad
    assert _whole(out) == {f"v{number:03}" for number in range(count)}
    told = Counter(entry["key"] for entry in _entries(out) if entry["status"] == "done")
    assert set(told.values()) == {1}, "a video was done twice"
    made = {json.loads((out / name / "summary.json").read_text())["source"]["name"] for name in _whole(out)}
    assert len(made) == count


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on(tmp_path, number):
    _kill_and_finish(tmp_path, count=6, bad=1, kills=[number])


@pytest.mark.slow
def test_a_hundred_videos_killed_twice(tmp_path):
    _kill_and_finish(tmp_path, count=95, bad=5, kills=[signal.SIGKILL, signal.SIGKILL])


def test_two_batches_do_not_work_in_one_folder(tmp_path):
    video, out = _clip(tmp_path / "black.mp4", 0), tmp_path / "o"
    first = _started(video, "-o", out)
    try:
        until = time.monotonic() + 60
        while not _entries(out) and time.monotonic() < until:
            time.sleep(0.05)
        second = _run(video, "-o", out)
        assert second.returncode == 2
        assert "must be free, another batch is at work there" in second.stderr
    finally:
        first.terminate()
        assert first.wait(30) == 143
    assert os.listdir(out) == ["batch.jsonl"]


def test_what_is_not_ours_is_left_alone(tmp_path):
    video, mine = _clip(tmp_path / "a.mp4", 100), tmp_path / "o" / "a" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = _run(video, "-o", tmp_path / "o")
    assert done.returncode == 2
    assert "mine.txt" in done.stderr
    assert mine.read_text() == "mine"
    ledger = tmp_path / "o" / "batch.jsonl"
    climbing = OURS + '{"key": "k", "output": "../x", "status": "done"}\n'
    for text in ("my notes\n", '{"format": "other"}\n', climbing):
        ledger.write_text(text)
        done = _run(video, "-o", tmp_path / "o")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert ledger.read_text() == text


def test_inputs(tmp_path):
    for name in ("a.mp4", "b.mkv", "sub/a.mp4", "sub/.hidden/x.mp4", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    a, b, other, note = (tmp_path / name for name in ("a.mp4", "b.mkv", "sub/a.mp4", "note.txt"))
    assert find_videos([tmp_path], "batch") == [a, b, other]
    assert find_videos([str(tmp_path / "**" / "*.mp4")], "batch") == [a, other]
    (tmp_path / "list").write_text(f"# mine\n{b}\n\n{other.parent}\n")
    assert find_videos([f"@{tmp_path / 'list'}", note, b], "batch") == [b, other, note]
    for wrong in ([tmp_path / "none.mp4"], [str(tmp_path / "*.avi")], [f"@{tmp_path / 'none'}"], []):
        with pytest.raises(VTSumError, match=r"^batch: "):
            find_videos(wrong, "batch")
    assert [path.name for path in place([a, b, other], tmp_path / "o", {}).values()] == ["a", "b", "sub_a"]
    assert place([other], tmp_path / "o", {other: "sub_a"})[other].name == "sub_a"


def test_many_videos_of_one_name_are_placed_in_time_that_goes_with_their_number(tmp_path):
    (tmp_path / "list").write_text("".join(f"https://example.org/{n}/a.mp4\n" for n in range(30_000)))
    words = ["batch", f"@{tmp_path / 'list'}", "-o", tmp_path / "o", "--dry-run", "--json"]
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words], env=ENVIRONMENT, timeout=90)
    assert done.returncode == 0, done.stderr
    names = [Path(row["output"]).name for row in json.loads(done.stdout)]
    assert names[:3] == ["a", "example.org_a", "a_2"]
    assert len(set(names)) == 30_000


def test_from_python(tmp_path):
    video = _clip(tmp_path / "a.mp4", 100)
    told: list[tuple] = []
    report = vtsum.batch(
        [video],
        tmp_path / "o",
        progress=lambda *what: told.append(what),
        model=MODEL,
        speech=None,
        ocr=False,
        formats=["json"],
    )
    assert [result.status for result in report.results] == ["done"], report
    assert told[-1] == (1, 1, [])
    wrong = {"workers must be 1 to 1024, got 0": {"workers": 0}, "limit must be above 0": {"limit": 0}}
    for reason, options in wrong.items():
        with pytest.raises(VTSumError, match=reason):
            vtsum.batch([video], tmp_path / "o", **options)


def test_only_what_a_killed_process_left_is_swept(tmp_path):
    video, out = _clip(tmp_path / "a.mp4", 100), tmp_path / "o"
    assert _killed_after(out, [video, "-o", out], 1, signal.SIGKILL, status="begun") == -9
    shutil.rmtree(out / "a", ignore_errors=True)
    left, other, mine = (out / name for name in (temporary("a"), ".a.part-notes", temporary("a")))
    older = left.with_name(f"{temporary('a')}.old")
    for folder in (left, other, mine, older):
        (folder / "keyframes").mkdir(parents=True)
    (left / ".summary.mp4.0123456789abcdef.part").write_text("half")
    (left / "keyframes" / "shot_0001.jpg").write_text("one")
    (mine / "thesis.txt").write_text("mine")
    done = _run(video, "-o", out, "--overwrite")  # as the run must have been that had renamed an older summary
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(out)) == sorted([mine.name, other.name, "a", "batch.jsonl"])
    told = _run(video, "-o", tmp_path / "p", "--budget", "much")
    assert told.returncode == 2
    assert told.stderr.count("budget must be a share") == 1


def test_an_older_summary_is_not_taken_for_what_a_killed_process_was_at(tmp_path):
    """Nor is an empty folder."""
    video, out = _clip(tmp_path / "a.mp4", 100), tmp_path / "o"
    assert _run(video, "-o", out).returncode == 0
    for old in (out / "a" / "summary.json", None):
        before = old and old.stat().st_ino
        (out / "batch.jsonl").unlink()
        if old is None:
            shutil.rmtree(out / "a")
            (out / "a").mkdir()
        words = [video, "-o", out, *(["--overwrite"] if old else [])]
        assert _killed_after(out, words, 1, signal.SIGKILL, status="begun") == -9
        done = _run(*words)
        assert done.stdout.startswith("1 video summarised"), done
        assert _whole(out) == {"a"}
        assert (out / "a" / "summary.json").stat().st_ino != before
    again = _run(video, "-o", out)
    assert again.stdout.startswith("0 videos summarised, 1 there already")


def test_a_worker_that_is_killed_once_all_is_made_has_made_it(tmp_path):
    """With an older summary in the place, too; the next run has nothing to do."""
    video, out = _clip(tmp_path / "a.mp4", 100), tmp_path / "o"
    killed = [*COMMAND[:4], "--model", "tests.vtsum.batch_models:KilledOnceDone", *OPTIONS[2:]]
    for overwrite in ([], ["--overwrite"]):
        (out / "batch.jsonl").unlink(missing_ok=True)
        words = [*killed, str(video), "-o", str(out), *overwrite]
        done = forked.run(words, env=ENVIRONMENT, timeout=300)
        assert done.returncode == 0, done
        assert done.stderr.startswith(f"vtsum: note: {video}: its process was ended by signal 9 (SIGKILL), after all")
        assert [entry["status"] for entry in _entries(out)] == ["begun", "done"]
        assert _whole(out) == {"a"}
        assert _run(video, "-o", out).stdout.startswith("0 videos summarised, 1 there already")


def test_what_a_killed_driver_could_not_say_the_next_one_does(tmp_path):
    """Its ledger said "begun" for ever of a summary that is there; a dry run writes nothing."""
    video, out = _clip(tmp_path / "a.mp4", 100), tmp_path / "o"
    assert _run(video, "-o", out).returncode == 0
    ledger = out / "batch.jsonl"
    begun = "".join(ledger.read_text().splitlines(keepends=True)[:-1])
    ledger.write_text(begun)
    assert _run(video, "-o", out, "--dry-run").returncode == 0
    assert ledger.read_text() == begun
    for _ in range(2):
        assert _run(video, "-o", out).stdout.startswith("0 videos summarised, 1 there already")
        assert [entry["status"] for entry in _entries(out)] == ["begun", "done"]


def test_an_older_summary_stays_until_there_is_another(tmp_path):
    old = tmp_path / f"{temporary('a')}.old"
    old.mkdir()
    (old / "summary.txt").write_text("words")
    sweep([tmp_path / "a"])
    assert (old / "summary.txt").read_text() == "words"
    (tmp_path / "a").mkdir()
    sweep([tmp_path / "a"])
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("left", [OURS[:9], OURS + '{"key": "half', OURS])
def test_a_line_that_was_being_written_is_no_hindrance(tmp_path, left):
    """Neither to the next run nor to the one after."""
    video, out = _clip(tmp_path / "a.mp4", 100), tmp_path / "o"
    out.mkdir()
    (out / "batch.jsonl").write_text(left)
    for words in ("1 video summarised", "0 videos summarised, 1 there already"):
        done = _run(video, "-o", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(words)
    assert (out / "batch.jsonl").read_text().startswith(OURS)
    assert [entry["status"] for entry in _entries(out)] == ["begun", "done"]


STOPPED_AS_A_WORKER_BEGINS = """
import os, signal, sys
from multiprocessing import util

begin = util.spawnv_passfds

def begin_and_stop(path, words, fds):
    begun = begin(path, words, fds)
    if b"--multiprocessing-fork" in map(os.fsencode, words):
        os.kill(os.getpid(), signal.SIGTERM)
    return begun

util.spawnv_passfds = begin_and_stop
from vtsum.cli import main

sys.exit(main())
"""


def test_a_batch_that_is_stopped_as_a_worker_begins_says_no_word(tmp_path):
    """What the worker is to do was not told yet: it ended with a traceback of its own."""
    video = _clip(tmp_path / "a.mp4", 100)
    command = [sys.executable, "-c", STOPPED_AS_A_WORKER_BEGINS, "batch", *OPTIONS, video, "-o", tmp_path / "o"]
    done = subprocess.run([*map(str, command)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (143, "")
    assert os.listdir(tmp_path / "o") == ["batch.jsonl"]
