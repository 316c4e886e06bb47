"""What a run is asked beside what it makes: a dry run, progress for programs, a log, settings from a file, names."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vtsum
from tests import forked
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT, ROOT
from vtsum import cli
from vtsum.bars import Lines
from vtsum.commands.app import EXIT_CODES
from vtsum.errors import VTSumError
from vtsum.summary import schema

FAKE = [sys.executable, str(Path(__file__).with_name("cli_with_fake_model.py"))]
VTSUM = [sys.executable, "-m", "vtsum.cli"]


def _run(program: list[str], *words: object, cwd: Path, **more) -> subprocess.CompletedProcess:
    command = [*program, *map(str, words)]
    return forked.run(command, cwd=cwd, env={**ENVIRONMENT, **more})


@pytest.fixture(scope="module")
def made(clip, nobody_listens, tmp_path_factory) -> vtsum.Summary:
    folder = tmp_path_factory.mktemp("run_options")
    source = Path(shutil.copy(clip, folder / "small.mp4"))
    return vtsum.summarize(source, folder / "o", budget="5s", ocr=False, captioner="none", model=ColourModel())


def test_a_dry_run_tells_what_a_run_would_keep_and_writes_nothing(made, clip, tmp_path, nobody_listens):
    dry = vtsum.summarize(clip, tmp_path / "o", budget="5s", ocr=False, model=ColourModel(), dry_run=True)
    schema.validate(dry.data)
    assert dry.files == {}
    assert [shot["clip"] and shot["clip"]["start"] for shot in dry.shots] == pytest.approx(
        [shot["clip"] and shot["clip"]["start"] for shot in made.shots], abs=0.05
    )
    done = _run(FAKE, "summarize", clip, "--budget", "5s", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *kept, closing = done.stdout.splitlines()
    chosen = [shot for shot in made.shots if shot["chosen"]]
    assert [line.partition("  ")[2] for line in kept] == [shot["reason"] for shot in chosen]
    assert re.fullmatch(r"\d:\d\d-\d:\d\d", kept[0].partition("  ")[0])
    assert closing.startswith(f"0:0{round(dry.duration)} of 0:12, {len(chosen)} of {len(made.shots)} shots, in ")
    assert closing.endswith(f"; nothing was written to {tmp_path / 'small_summary'}")
    again = _run(VTSUM, "recut", made.output, "--budget", "3s", "--dry-run", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["summary"]["duration"] <= 3
    refused = _run(VTSUM, "recut", made.output, "-o", made.output, "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2
    assert os.listdir(tmp_path) == []
    assert sorted(os.listdir(made.output.parent)) == ["o", "small.mp4"]


def test_a_dry_run_of_a_batch_tells_what_it_would_do(clip, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip, tmp_path / name)
    words = ["batch", "a.mp4", "b.mp4", "-o", "out/{stem}_{budget}", "--budget", "2s", "--dry-run"]
    done = _run(VTSUM, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [f"{tmp_path}/{stem}.mp4: to {tmp_path}/out/{stem}_2s" for stem in "ab"]
    assert done.stdout.splitlines()[:2] == lines
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_progress_for_programs_is_json_alone(made, clip, tmp_path):
    done = _run(FAKE, "summarize", clip, "--budget", "5s", "--progress", "json", "-f", "mp4,json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    steps = [line for line in told if "stage" in line]
    assert {line["stage"] for line in steps} == {"read", "listen", "shots", "text", "cut"}
    for stage in {line["stage"] for line in steps}:
        own = [line for line in steps if line["stage"] == stage]
        assert all(line.keys() == {"stage", "done", "total", "eta"} for line in own)
        assert [line["done"] for line in own] == sorted(line["done"] for line in own)
        assert (own[-1]["done"], own[-1]["total"], own[-1]["eta"]) == (1, 1, 0)
    wrong = _run(FAKE, "summarize", clip, "--budget", "99s", "--progress", "json", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "budget must be at most" in json.loads(wrong.stderr)["message"]
    other = _run(FAKE, "summarize", clip, "--progress", "xml", cwd=tmp_path)
    assert (other.returncode, other.stderr) == (2, "vtsum: summarize: progress must be bars or json, got 'xml'\n")


def test_lines_of_progress_are_few_and_tell_the_time_left(capsys, monkeypatch):
    now = iter(n * 0.06 for n in range(1000))
    monkeypatch.setattr("vtsum.bars.time.monotonic", lambda: next(now))
    lines = Lines()
    for n in range(101):
        lines("read", n / 100)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert 40 < len(told) < 60
    half = next(line for line in told if line["done"] == 0.5)
    assert half["eta"] == pytest.approx(3, abs=0.1)


def test_a_log_says_what_was_done_and_said(made, clip, tmp_path):
    log = tmp_path / "run.log"
    words = ["recut", made.output, "--budget", "3s", "-f", "mp4", "--log", log, "-o", tmp_path / "o"]
    assert _run(VTSUM, *words, cwd=tmp_path).returncode == 0
    assert _run(VTSUM, *words, cwd=tmp_path).returncode == 2  # the folder is there
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ", line) for line in lines)
    told = [line[20:] for line in lines]
    assert [line for line in told if line.startswith("exit")] == ["exit status 0", "exit status 2"]
    assert f"vtsum {vtsum.__version__} recut {made.output} --budget 3s" in told[0]
    assert told.index("cut: begun") < told.index("cut: done") < told.index("exit status 0")
    assert "must not exist yet" in told[-2]
    movie = tmp_path / "movie.mp4"
    shutil.copy(clip, movie)
    before = movie.read_bytes()
    wrong = _run(VTSUM, "recut", made.output, "--log", movie, cwd=tmp_path)
    assert wrong.returncode == 2
    assert "must be a new file or an older log, got another file" in wrong.stderr
    assert movie.read_bytes() == before


def test_a_log_is_not_replaced_with_an_older_summary(made, tmp_path):
    """A new file under a name that a summary may have: it went with the folder."""
    older = tmp_path / "older"
    shutil.copytree(made.output, older)
    before = sorted(older.iterdir())
    words = ["recut", made.output, "--budget", "3s", "-o", older, "--overwrite", "--log", older / "live.npz"]
    done = _run(VTSUM, *words, cwd=tmp_path)
    assert done.returncode == 2
    told = f"vtsum: recut: --log must lie outside the output that is replaced, got {older}/live.npz\n"
    assert done.stderr == told
    assert sorted(older.iterdir()) == before


def test_a_log_for_which_there_is_no_room_ends_nothing(tmp_path):
    """What could not be written was tried once more as the log was closed: a traceback, after a summary was made."""
    full = "import resource, sys; sys.dont_write_bytecode = True; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)); "
    command = [sys.executable, "-c", f"{full}from vtsum.cli import main; sys.exit(main())"]
    command += ["summarize", "none.mp4", "--log", "log"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "none.mp4" in done.stderr


def test_a_file_of_options_stands_in_for_the_command_line(made, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "budget: 0:04\nformat: [mp4, json]\nmargin: [0.1, 0.2]\nkeep: 0:05-0:06\nquiet: true\noutput: 'o_{budget}'\n"
    )
    done = _run(VTSUM, "recut", made.output, "--config", config, "--budget", "3s", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    data = schema.read(tmp_path / "o_3s" / "summary.json")
    assert data["settings"]["budget"] == "3s"  # the command line wins
    assert data["settings"]["margin"] == [0.1, 0.2]
    assert data["settings"]["formats"] == ["mp4", "json"]
    assert data["settings"]["keep"] == [{"start": 5.0, "end": 6.0}]
    for text, reason in {
        "buget: 3s": "must name options of vtsum recut, got 'buget'; did you mean budget?",
        "fps: 2": "must name options of vtsum recut, got 'fps'",
        "config: a.yaml": "must name options of vtsum recut, got 'config'",
        "quiet: 3": "quiet must be true or false, got '3'",
        "budget: {a: 1}": "budget must be a word or a list of words, got {'a': '1'}",
        'output: "a\\0b"': "line 1: must be text, got a NUL or half a surrogate pair",
        '"\\ud800": 1': "line 1: must be text, got a NUL or half a surrogate pair",
        "a: &x 1\nb: *x": "must be plain YAML without aliases (*) and tags (!)",
        "- 1": "must hold settings by name, got a list",
    }.items():
        config.write_text(text)
        wrong = _run(VTSUM, "recut", made.output, "--config", config, cwd=tmp_path)
        assert wrong.returncode == 2, text
        assert reason in wrong.stderr
        assert wrong.stderr.count("\n") == 1, wrong.stderr
    assert sorted(os.listdir(tmp_path)) == ["c.yaml", "o_3s"]


def test_names_of_outputs_from_a_template(made, clip, tmp_path, nobody_listens):
    options = {"ocr": False, "formats": "json", "model": ColourModel(), "captioner": "none", "budget": "4 s"}
    days = [datetime.date.today()]
    named = vtsum.summarize(clip, f"{tmp_path}/{{stem}}_{{budget}}_{{date}}_{{{{x}}}}", **options)
    days.append(datetime.date.today())  # midnight may have passed
    assert named.output in [tmp_path / f"small_4s_{day}_{{x}}" for day in days]
    plain = vtsum.summarize(clip, tmp_path / "{stem}", **options)
    assert plain.output == tmp_path / "{stem}"
    assert vtsum.recut(made.output, f"{tmp_path}/{{stem}}_again").output == tmp_path / "small_again"
    for template in ("{name}", "{stem.__class__}", "{stem!r}", "{budget:>9}", "{", "a}", "{}"):
        with pytest.raises(
            VTSumError, match=r"summarize: output must hold \{budget\} or \{date\} or \{stem\}, or braces twice"
        ):
            vtsum.summarize(clip, f"{tmp_path}/{template}", **options)
    with pytest.raises(VTSumError, match=r"batch: output must hold \{budget\} or \{date\}, or braces twice"):
        vtsum.batch([clip], f"{tmp_path}/{{stem}}/out")


def test_a_shell_completes_commands_options_and_values(tmp_path):
    for words, count, found in (
        ("vtsum summ", 1, "summarize"),
        ("vtsum recut --min", 2, "--min-shot"),
        ("vtsum summarize --refine k", 3, "knapsack"),
    ):
        asked = {"_VTSUM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        code = "import sys; sys.argv = ['vtsum']; from vtsum.cli import main; sys.exit(main())"
        done = _run([sys.executable, "-c", code], cwd=tmp_path, **asked)
        assert done.stdout.split() == [found], done.stderr


def test_exit_codes_are_told_in_help_and_docs(capsys):
    assert cli.main(["--help"]) == 0
    assert " ".join(EXIT_CODES.split()) in " ".join(capsys.readouterr().out.split())
    page = (ROOT / "docs" / "summarize.md").read_text()
    for code in re.findall(r"\b\d+\b", EXIT_CODES):
        assert re.search(rf"^\| `{code}` \| ", page, re.MULTILINE), code
