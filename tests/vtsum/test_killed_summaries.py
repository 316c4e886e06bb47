"""What `vtsum summarize` and `vtsum recut` leave when they are killed, where nobody tidies up, is swept by the next."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.samples import small_clip
from vtsum.files import OLD
from vtsum.summary.staging import temporary

COMMAND = [
    sys.executable,
    "-m",
    "vtsum.cli",
    "summarize",
    "clip.mp4",
    "-o",
    "s",
    "--no-speech",
    "--no-ocr",
    "-f",
    "json",
]


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    small_clip(tmp_path / "clip.mp4")
    return tmp_path


def test_what_killed_ones_left_does_not_pile_up(here: Path) -> None:
    for _ in range(2):
        killed = subprocess.Popen(COMMAND, cwd=here, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        until, before = time.monotonic() + 120, hidden(here)
        while hidden(here) in (before, []) and killed.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        assert len(hidden(here)) == 1
    done = forked.run(COMMAND, cwd=here, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["clip.mp4", "s"]


def test_what_is_at_work_or_the_users_is_not_swept(here: Path) -> None:
    at_work, users, other, older = (here / temporary(name) for name in ("s", "s", "t", "s"))
    older = older.with_name(older.name + OLD)
    for folder in (at_work, users, other, older):
        folder.mkdir()
        (folder / "summary.json").write_text("{}")
    (users / "notes.txt").write_text("mine")
    (here / temporary("s")).symlink_to(other)
    before = hidden(here)
    handle = os.open(at_work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        (here / "s").mkdir()  # else the older one would be put back
        done = forked.run(COMMAND, cwd=here, env=ENVIRONMENT, timeout=240)
        assert done.returncode == 0, done.stderr
        assert hidden(here) == before
    finally:
        os.close(handle)
    done = forked.run([*COMMAND, "--overwrite"], cwd=here, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 0, done.stderr
    assert hidden(here) == sorted(set(before) - {at_work.name})
    assert (users / "notes.txt").read_text() == "mine"
