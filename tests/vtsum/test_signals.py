"""Signals: they wait for an import, are not lost on their way, and leave nothing behind whenever they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.vtsum.hostile import ENVIRONMENT, ROOT

BEGIN = """
import os, pathlib, signal, sys, time
from vtsum import signals

def said(*words):
    print(*words, flush=True)

def me(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    for _ in range(10):
        time.sleep(0.01)
"""
PROGRAMS = {
    "an import": (
        """
pathlib.Path("half.py").write_text("import __main__; __main__.me(); whole = True")
sys.path.insert(0, "")
with signals.stopping():
    try:
        import half
        for _ in range(500):
            time.sleep(0.01)
    finally:
        said(sys.modules["half"].whole)
""",
        "True\n",
    ),
    "lost": (
        """
with signals.stopping():
    try:
        me()
    except SystemExit:
        pass
    said("lost")
    while True:
        signals.check()
""",
        "lost\n",
    ),
    "in a destructor": (
        """
class Dropped:
    def __del__(self):
        me()

with signals.stopping():
    Dropped()
    for _ in range(500):
        time.sleep(0.01)
    said("lost")
""",
        "",
    ),
    "turned into an error": (
        """
with signals.stopping():
    try:
        me()
    except SystemExit:
        raise ValueError("some library's") from None
""",
        "",
    ),
    "twice": (
        """
with signals.stopping():
    try:
        me()
    finally:
        me(signal.SIGINT)
        said("tidied up")
""",
        "tidied up\n",
    ),
    "before the block that removes it": (
        """
with signals.stopping():
    for path in (pathlib.Path("folder/file"), pathlib.Path("file")):
        signals.begun(pathlib.Path(path.parts[0]))
        path.parent.mkdir(exist_ok=True)
        path.write_text("begun")
    me()
""",
        "",
    ),
    "amid an import that is the last of the work": (
        """
pathlib.Path("half.py").write_text("import os; os.kill(os.getpid(), 15)")
sys.path.insert(0, "")
with signals.stopping():
    import half
time.sleep(0.2)
said("lost")
""",
        "",
    ),
    "after the work": (
        """
with signals.stopping(last=True):
    pass
said("done")
me()
said("lost")
""",
        "done\n",
    ),
    "while a thread works": (
        """
import threading
try:
    with signals.stopping():
        threading.Thread(target=time.sleep, args=(60,)).start()
        me()
except SystemExit as stop:
    signals.end(stop.code)
""",
        "",
    ),
}


@pytest.mark.parametrize("when", PROGRAMS)
def test_a_signal_ends_a_process_wherever_it_comes(when: str, tmp_path: Path) -> None:
    program, printed = PROGRAMS[when]
    command = [sys.executable, "-c", BEGIN + program]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (143, printed, "")
    assert {path.name for path in tmp_path.iterdir()} <= {"half.py", "__pycache__"}


@pytest.mark.parametrize("wait", [0.0, 0.4, 0.8, 1.2])
def test_a_summary_that_is_stopped_as_it_begins_leaves_nothing(clip: Path, tmp_path: Path, wait: float) -> None:
    """PyTorch is imported in these seconds, while the sound is listened to and pictures are decoded."""
    command = [sys.executable, "-m", "vtsum", "summarize", str(clip), "-o", str(tmp_path / "o"), "-q"]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not os.listdir(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.001)
    time.sleep(wait)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (143, "")
    assert os.listdir(tmp_path) == []


AT_THE_END = """
import os, sys, time
from vtsum import cli

class Dropped:
    def __del__(self, kill=os.kill, me=os.getpid(), number=int(sys.argv.pop(1)), sleep=time.sleep):
        kill(me, number)
        sleep(0.05)

sys.dropped = Dropped()  # of which an interpreter lets go when its handlers are gone
sys.exit(cli.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_all_was_done_does_not_end_the_process_without_a_word(number: int) -> None:
    command = [sys.executable, "-c", AT_THE_END, str(int(number)), "--version"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_as_the_command_begins_is_one_line() -> None:
    code = "import os, signal, sys; sys.path.insert(0, sys.argv.pop(1)); from vtsum.cli import main; sys.exit(main())"
    typer = "import os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\n"
    typer += "del sys.path[0], sys.modules['typer']\nimport typer\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "typer.py").write_text(typer)
        command = [sys.executable, "-c", code, folder, "--version"]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vtsum: stopped\n")
