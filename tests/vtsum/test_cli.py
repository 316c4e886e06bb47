"""The command line: what it prints, its exit codes, and that it leaves no debris."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests import forked
from tests.vtsum.samples import ENVIRONMENT, ROOT
from vtsum import __version__, cli
from vtsum.bars import Bars
from vtsum.summary import progress, schema

FAKE = [sys.executable, str(Path(__file__).with_name("cli_with_fake_model.py"))]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no videos."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.mp4").touch()
    (folder / "new\nline.mp4").touch()
    return folder


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


# (words after `vtsum summarize`, what the one line must hold); {bad} and {clip} are paths. All that is no video:
# test_video_probe.py.
MISTAKES = [
    (["{bad}/missing.mp4"], ["missing.mp4", "no such file"]),
    (["{bad}/empty.mp4"], ["empty.mp4", "must be a video file", "0 bytes"]),
    (["http://127.0.0.1:9/v.mp4"], ["http://127.0.0.1:9/v.mp4 must be an address that can be read", "refused"]),
    (["{clip}", "--transcript", "http://127.0.0.1:9/v.srt"], [" http://127.0.0.1:9/v.srt must be a readable file"]),
    (["{bad}/new\nline.mp4"], ["new line.mp4", "must be a video file"]),
    (["{clip}", "--budget", "-5%"], ["budget must be", "'-5%'"]),
    (["{clip}", "--budget", "0s"], ["budget must be above zero", "'0s'"]),
    (["{clip}", "--budget", "soon"], ["budget must be", "'soon'"]),
    (["{clip}", "--budget", "150%"], ["budget must be at most 100%"]),
    (["{clip}", "--budget", "1:00:00"], ["at most the length of the video, 12.0 s", "3600 s"]),
    (["{clip}", "--fps", "0"], ["fps must be 0.0001 to 30, got 0"]),
    (["{clip}", "--fps", "many"], ["--fps", "many"]),
    (["{clip}", "--format", "avi"], ["format must be among", "'avi'"]),
    (["{clip}", "--device", "cuda:99"], ["device must be one that PyTorch can use here, got 'cuda:99'"]),
    (["{clip}", "--device", "gpu"], ["device must be one that PyTorch can use here, got 'gpu'"]),
    (["{clip}", "--device", "meta"], ["device must be one that PyTorch can use here, got 'meta'"]),
    (["{clip}", "--model", "gpt-17"], ["model must be", "'gpt-17'"]),
    (["{clip}", "-o", "{clip}"], ["output must be a folder"]),
    (["{clip}", "-o", "{clip}/inside"], ["output must lie in a folder"]),
    (["{clip}", "-o", "{bad}"], ["output must be a new or empty folder"]),
    (["{clip}", "-o", "/proc/vtsum"], ["output", "must be writable"]),
    (["{clip}", "--buget", "3s"], ["--buget"]),
    ([], ["VIDEO"]),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES, ids=lambda value: " ".join(value)[:50].replace("\n", " "))
def test_mistakes_are_one_line_and_status_2(words, expected, bad, clip, tmp_path, capsys):
    out = tmp_path / "out"
    words = [word.format(bad=bad, clip=clip) for word in words]
    if words and "-o" not in words:
        words += ["-o", str(out)]
    code, printed, errors = run(["summarize", *words], capsys)
    assert code == 2
    assert printed == ""
    assert errors.count("\n") == 1
    assert errors.startswith("vtsum: ")
    assert "Traceback" not in errors
    for part in expected:
        assert part in errors
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["env", "summarize /no.mp4 -o /no", "train --data /no --output_dir /no/run"])
def test_a_current_folder_that_was_removed(tmp_path, command):
    place = tmp_path / "gone"
    place.mkdir()
    words = f'cd "{place}" && rmdir "{place}" && exec "{sys.executable}" -m vtsum {command}'
    done = subprocess.run(["sh", "-c", words], env=ENVIRONMENT, capture_output=True, text=True)
    told = "vtsum: the current folder must exist, got one that was removed; go to another\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_an_unwritable_folder(clip, tmp_path, capsys, monkeypatch):
    """Root may write anywhere, so the refusal itself is staged."""

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, _, errors = run(["summarize", str(clip), "-o", str(tmp_path / "o")], capsys)
    assert code == 2
    assert errors == f"vtsum: summarize: output {tmp_path / 'o'} must be writable: Permission denied\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_reader_of_the_output_that_is_full_is_no_traceback(clip, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*FAKE, "summarize", str(clip), "-o", str(tmp_path / "o"), "--json"],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "standard output" in done.stderr


def test_a_run(clip, tmp_path):
    done = forked.run(
        [*FAKE, "summarize", str(clip), "--budget", "4s", "--format", "mp4,txt", "-f", "json", "--json"],
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress where nobody looks"
    data = schema.validate(json.loads(done.stdout))
    assert data["settings"]["formats"] == ["mp4", "txt", "json"]
    assert sorted(os.listdir(tmp_path / "small_summary")) == ["summary.json", "summary.mp4", "summary.txt"]
    assert schema.read(tmp_path / "small_summary" / "summary.json") == data


def test_a_run_tells_where_things_are(clip, tmp_path, capsys):
    out = tmp_path / "o"
    words = ["summarize", str(clip), "-o", str(out)]
    done = forked.run([*FAKE, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert " of 0:12, " in done.stdout
    for name in ("summary.mp4", "summary.txt", "summary.json", "keyframes", "report.html"):
        assert str(out / name) in done.stdout
    assert done.stdout.splitlines()[-1] == f"Open {out / 'report.html'} to look at it", "the last line is the page"
    code, _, errors = run(words, capsys)
    assert code == 2
    assert errors.endswith("must not exist yet (-o names another, --overwrite replaces it)\n")
    quiet = forked.run([*FAKE, *words, "--overwrite", "-q"], env=ENVIRONMENT)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_open_shows_the_page(clip, tmp_path):
    """In the browser of this machine, here a script; where there is no display it is a note and no error."""
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > "{tmp_path}/opened"\n')
    (tmp_path / "browser").chmod(0o755)
    out = tmp_path / "a # folder"
    bare = {k: v for k, v in ENVIRONMENT.items() if k not in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")}
    words = ["summarize", str(clip), "-o", str(out), "--captioner", "none", "--no-ocr", "--no-speech", "--open"]
    seeing = {**bare, "BROWSER": str(tmp_path / "browser")}
    shown = forked.run([*FAKE, *words], env=seeing)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert (tmp_path / "opened").read_text().strip() == (out / "report.html").as_uri()
    (tmp_path / "opened").unlink()
    words = ["recut", str(out), "--video", str(clip), "-o", str(tmp_path / "again"), "--open"]
    blind = forked.run([*FAKE, *words], env=bare)
    assert blind.returncode == 0, blind.stderr
    page = tmp_path / "again" / "report.html"
    assert f"vtsum: note: --open: there is no display here; {page} is the page\n" in blind.stderr
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("-f mp4,txt --open", "summarize: --open must come with the format html, got mp4, txt"),
        ("--dry-run --open", "summarize: --open must be without --dry-run, which makes no page, got both"),
        ("--no-speech --recogniser carried", "summarize: --recogniser must be without --no-speech, got 'carried'"),
    ],
)
def test_what_does_not_go_together_is_refused(clip, tmp_path, capsys, options, told):
    code, _, errors = run(["summarize", str(clip), "-o", str(tmp_path / "o"), *options.split()], capsys)
    assert (code, errors) == (2, f"vtsum: {told}\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interruption_leaves_no_debris(clip, tmp_path, number, code):
    process = subprocess.Popen(
        [*FAKE, "summarize", str(clip), "-o", str(tmp_path / "deep" / "o"), "--slow"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline() == "encoding\n"
    assert len(os.listdir(tmp_path)) == 1, "the temporary folder is there while it works"
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == code
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("columns", [110, 40])
def test_progress_on_a_terminal(clip, tmp_path, columns):
    """On a terminal every stage is named, and all of them together, with the time left, in one row each."""
    import pty

    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*FAKE, "summarize", str(clip), "-o", str(tmp_path / "o")],
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": str(columns)},
        stdout=subprocess.DEVNULL,
        stderr=child,
    )
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait(timeout=60) == 0
    rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
    rows = [row for row in rows if not row.startswith("vtsum: ")]
    stages = ("Watching the video", "Finding events", "Writing the text", "Cutting the summary", "Making the page")
    for stage in ("All of it", *stages):
        assert any(re.match(rf"{stage} .*100%.* left +\d", row) for row in rows), stage
    assert max(map(len, rows)) <= columns


def test_what_is_done_of_all():
    """Stages side by side are done when the slowest is; one that never begins is over when the next begins."""
    bars = Bars(progress.STAGES, phases=progress.PHASES)
    done = []
    for stage, part in (("read", 0.5), ("listen", 0.25), ("read", 1.0), ("listen", 1.0), ("shots", 0.0), ("cut", 0.5),
                        ("text", 1.0), ("page", 1.0)):  # fmt: skip
        bars._done[stage] = part
        done.append(round(bars._overall(), 4))
    assert done == [0.375, 0.1875, 0.1875, 0.75, 0.75, 0.88, 0.88, 1.0]
    quiet = Bars({name: progress.STAGES[name] for name in ("shots", "cut")}, phases=progress.PHASES)
    quiet._done["cut"] = 0.5
    assert quiet._overall() == pytest.approx((2 + 11) / 24)


@pytest.mark.parametrize("words", [[], ["data"]])
def test_a_command_alone_shows_its_help(words, capsys):
    status, _, shown = run(words, capsys)
    assert status == 2
    assert f"Usage: {' '.join(['vtsum', *words])} [OPTIONS] COMMAND" in shown
    assert "\nCommands:\n" in shown


def test_help_is_quick():
    """Under half a second of CPU, and no heavy library."""
    words = [sys.executable, "-m", "vtsum", "--help"]
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert "summarize" in done.stdout
    assert min(times) < 0.5, times
    code = (
        "import sys, vtsum, vtsum.commands; "
        "print([m for m in ('torch', 'numpy', 'av', 'transformers', 'jinja2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr


def test_version(capsys):
    assert run(["--version"], capsys)[:2] == (0, f"vtsum {__version__}\n")
    from setuptools.config.pyprojecttoml import read_configuration

    assert read_configuration(ROOT / "pyproject.toml")["project"]["version"] == __version__


def test_env(capsys):
    code, printed, _ = run(["env"], capsys)
    assert code == 0
    for part in ("vtsum ", "python ", "torch ", "kernels", "optional packages", "vtsum[video]", "av 1", "models"):
        assert part in printed


def test_extras_are_those_of_pyproject(monkeypatch):
    """As the installed package has them, and as a source tree that was not installed has them."""
    from importlib import metadata

    from vtsum.extras import extras

    lines = ["torch>=2.11", 'av>=18; extra == "video"', 'vtsum[video]; extra == "eval"', 'h5py>=3; extra == "eval"']
    lines.append("triton>=3.5; platform_system == 'Linux' and extra == 'dev'")
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert extras() == {"video": ["av"], "eval": ["h5py"], "dev": ["triton"]}

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = extras()
    assert found.keys() == listed.keys() - {"all"}  # which holds other extras alone
    for extra, names in found.items():
        own = [line for line in listed[extra] if not line.startswith("vtsum[")]
        assert len(names) == len(own)
        assert all(line.startswith(name) for name, line in zip(names, own, strict=True))
    assert found["models"] == ["timm"]


def test_without_the_extras(tmp_path):
    """Without PyAV, and without even typer, one line says what to install, on the command line and in Python."""
    for blocked in ("av", "typer"):
        code = (
            "import sys\n"
            "class Block:\n"
            f"    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] == {blocked!r}: raise ModuleNotFoundError(name, name=name)\n"
            "sys.meta_path.insert(0, Block())\n"
            "from importlib import metadata\n"
            "real = metadata.version\n"
            "def version(name):\n"
            f"    if name == {blocked!r}: raise metadata.PackageNotFoundError(name)\n"
            "    return real(name)\n"
            "metadata.version = version\n"
            "import vtsum\n"
            "try:\n"
            "    vtsum.summarize\n"
            "except vtsum.VTSumError as error:\n"
            "    print(error)\n"
            "from vtsum.cli import main\n"
            "sys.exit(main(['summarize', 'x.mp4']))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert blocked in done.stderr
        assert done.stderr.endswith("must be installed: pip install vtsum[video]\n")
        assert done.stderr.count("\n") == 1
        assert done.stdout == f"summarize: {blocked} must be installed: pip install vtsum[video]\n"
