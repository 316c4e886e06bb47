"""Text that a stranger wrote, given to the commands: nothing of it reaches the terminal, nothing hangs, and what cannot
be used is told in one line with exit status 2."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import numbered_clip
from tests.vtsum.samples import small_clip
from vtsum import cli
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.errors import VTSumError
from vtsum.shown import clean
from vtsum.summary import schema
from vtsum.summary.choosing import choose, spans_of
from vtsum.training.settings import read_yaml

ROOT = Path(__file__).resolve().parents[2]
FAKE = [sys.executable, str(Path(__file__).with_name("cli_with_fake_model.py"))]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "OMP_NUM_THREADS": "1"}
UNFIT = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]")
NINES = "9" * 5000
ENTRY = {"video_id": "v", "duration": 3.0, "sampled_frames": 3, "tsum": ["A cat."], "vsum_onehot": [[0, 1, 0]] * 10}


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refuses."""
    code = cli.main(words)
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, ""), printed
    assert printed.err.startswith("vtsum: ")
    assert printed.err.count("\n") == 1
    assert not UNFIT.search(printed.err)
    return printed.err


def test_no_name_title_or_word_commands_the_terminal(tmp_path: Path) -> None:
    name = "[red]a\x1b[31m\u202e\x9bK  b\n.mp4"
    clip = numbered_clip(tmp_path / "clip.mp4", 150, title="A\x1b]0;owned\x07 title \u2067of it").rename(
        tmp_path / name
    )
    words = f"Hello\x1b[2J &#27;[31m &#x202e;there &#{NINES}; \u202emy \u2028friend👩\u200d💻 می\u200cخواهم."
    transcript = os.fsencode(tmp_path) + b"/t\xff\x1b.srt"
    with open(transcript, "w", encoding="utf-8") as file:
        file.write(f"1\n00:00:01,000 --> 00:00:05,000\n{words}\n")
    done = subprocess.run(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o\x1b[31m", "--transcript", transcript],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=100,
    )
    folder = tmp_path / "o\x1b[31m"
    shown = [done.stdout, done.stderr, *((folder / file).read_bytes() for file in ("summary.txt", "report.html"))]
    for text in (part.decode() for part in shown):
        assert not UNFIT.search(text)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown[2].decode().startswith("A ]0;owned title of it\n")
    assert "friend👩\u200d💻 می\u200cخواهم" in shown[2].decode()
    written = (folder / "summary.json").read_text(encoding="utf-8")
    assert not UNFIT.search(written)
    data = schema.read(folder / "summary.json")
    assert data["source"]["name"] == name
    assert data["settings"]["transcript"] == "t?\x1b.srt"
    said = " ".join(word["text"] for u in data["speech"]["utterances"] for word in u["words"])
    assert said == clean(said) == "Hello [2J [31m there my friend👩\u200d💻 می\u200cخواهم."


_TELLS = """
import logging
import warnings

class Tells:
    def boundaries(self, features, fps):
        warnings.warn("a\\x1b]0;owned\\x07 file\\u202e\\nin two lines")
        logging.getLogger("a_library").warning("a %s\\nkey", "\\x9b2J")
        return [1.0] * len(features)
"""


@pytest.mark.parametrize("command", ["summarize", "batch"])
def test_what_a_library_warns_and_logs_of_commands_no_terminal(tmp_path: Path, command: str) -> None:
    (tmp_path / "tells.py").write_text(_TELLS)
    numbered_clip(tmp_path / "clip.mp4", 75)
    words = [command, "clip.mp4", "-o", "o", "--segmenter", "tells:Tells", "--no-speech", "--no-ocr", "-f", "txt", "-q"]
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words], cwd=tmp_path, env=ENVIRONMENT, timeout=100)
    told = done.stderr
    assert done.returncode == 0, told
    assert "UserWarning: a ]0;owned  file in two lines\n" in told
    assert "warnings.warn(" not in told
    assert "a  2J\nkey\n" in told
    assert not UNFIT.search(told)


def test_error_lines_and_lists_of_problems_are_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno" / "train_videoxum.json").write_text(json.dumps([ENTRY | {"video_id": "v\u202e\x9b[red]"}]))
    assert cli.main(["data", "check", str(tmp_path), "--split", "train"]) == 2
    printed = capsys.readouterr()
    assert "[red]" in printed.out
    assert not UNFIT.search(printed.out + printed.err)
    assert "no\x1b[31m".replace("\x1b", " ") in run(["summarize", str(tmp_path / "no\x1b[31m.mp4")], capsys)
    assert "No such option: --is" in run(["summarize", str(tmp_path), "--is\x1b]0;x"], capsys)


SIGNS = "<>[](){}\\/&#;:.,!?'\"-_+=*%$@^~`|♪…–’\u200d"


@pytest.mark.parametrize("form", ["one line", "many lines", "subtitles"])
def test_a_transcript_of_a_megabyte_of_signs_is_read_at_once(form: str, tmp_path: Path) -> None:
    run_of = (1 << 20) // len(SIGNS)
    text = "a".join(sign * run_of for sign in SIGNS) + " these are words."
    if form != "one line":
        text = "\n".join(text[i : i + 5000] for i in range(0, len(text), 5000))
    if form == "subtitles":
        text = f"00:01 --> 00:09\n{text}\n"
    (tmp_path / "t.srt").write_text(text, encoding="utf-8")
    before = time.monotonic()
    said = read_transcript(tmp_path / "t.srt", duration=60.0)
    choose(*spans_of(said, [], np.ones(60), 1.0), 8)
    assert time.monotonic() - before < 20
    assert said.text.endswith("these are words.")


def test_a_line_of_subtitles_longer_than_any_is_refused(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "small.mp4").path
    (tmp_path / "t.srt").write_text("1\n00:01 --> 00:09\n" + "<" * (1 << 20))
    done = forked.run(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "t.srt"],
        env=ENVIRONMENT,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"vtsum: read_transcript: {tmp_path}/t.srt: line 3: must have at most 10000 characters, got 1048576\n"
    )
    assert sorted(os.listdir(tmp_path)) == ["small.mp4", "t.srt"]


@pytest.mark.parametrize("form", ["plain", "one subtitle", "inner times"])
def test_more_words_than_a_day_has_are_refused(form: str, tmp_path: Path) -> None:
    """Each word becomes an object with its times: 8 MiB of single letters would take a gigabyte."""
    word = "a<00:00:02.000>b" if form == "inner times" else "a b"
    lines = [" ".join([word] * 500)] * 301
    head = [] if form == "plain" else ["00:00:01.000 --> 00:00:09.000"]
    (tmp_path / "t.srt").write_text("\n".join([*head, *lines]))
    with pytest.raises(VTSumError, match=r"t\.srt: must hold at most 300000 words, got more$"):
        read_transcript(tmp_path / "t.srt", duration=60.0)


@pytest.mark.parametrize(
    ("name", "line", "count", "message"),
    [
        ("t.txt", "0:12 a\n", 300_001, "words"),
        ("t.txt", "0:12\n", 300_001, "words"),
        ("t.srt", "0:1-->0:1\n", 300_002, "words"),
        ("t.ass", "[Events]\nFormat:start,end,text\n" + "Dialogue:0:0:0,0:0:0,a\n" * 300_001, 1, "words"),
        ("t.tsv", "start\tend\ttext\n" + "0\t1\ta\n" * 300_001, 1, "words"),
        ("t.txt", "\u4e2d" * 600_002, 1, "words"),
        ("t.srt", "0:1 --> 0:9\n" + ("\u0e01" * 9000 + "\n") * 134, 1, "words"),
        ("t.txt", "0:12 a\n", (8 << 20) // 7, "lines, got 1198372"),
        ("t.vtt", "WEBVTT\n\n" + "NOTE\n\n" * 300_000, 1, "lines, got 600002"),
    ],
)
def test_subtitles_without_number_are_refused_before_they_are_read(
    name: str, line: str, count: int, message: str, tmp_path: Path
) -> None:
    """8 MiB of the shortest subtitles took 12 s; scripts without spaces had no bound on their words."""
    (tmp_path / name).write_text(line * count, encoding="utf-8")
    started = time.process_time()
    most = 300_000 if message == "words" else 600_000
    with pytest.raises(VTSumError, match=rf"{name}: must (hold|have) at most {most} {message}"):
        read_transcript(tmp_path / name, duration=60.0)
    assert time.process_time() - started < 6


def test_a_command_refuses_a_book_for_a_clip(tmp_path: Path) -> None:
    """Its words would be spread over seconds, and chosen among for minutes."""
    (tmp_path / "t.txt").write_text("e.g. this. " * 80_000)
    clip = numbered_clip(tmp_path / "clip.mp4", 75)
    done = forked.run(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "t.txt", "-q"],
        env=ENVIRONMENT,
        timeout=60,
    )
    told = "vtsum: summarize: transcript must be of the video, got 160,000 words in 3 s, more than anybody can say\n"
    assert (done.returncode, done.stderr) == (2, told)
    assert not (tmp_path / "o").exists()


def test_plain_text_goes_with_a_video_without_sound(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Hello there. This is said.")
    clip = numbered_clip(tmp_path / "clip.mp4", 75)
    done = forked.run(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "t.txt", "-f", "json", "-q"],
        env=ENVIRONMENT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    words = [w for u in schema.read(tmp_path / "o" / "summary.json")["speech"]["utterances"] for w in u["words"]]
    assert [word["text"] for word in words] == ["Hello", "there.", "This", "is", "said."]
    assert words[-1]["end"] == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("name", ["missing.srt", "empty.srt"])
def test_a_wrong_transcript_is_told_before_the_video_is_watched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = small_clip(tmp_path / "small.mp4").path
    (tmp_path / "empty.srt").touch()
    monkeypatch.setattr("vtsum.summary.pipeline.WatchedFrames", None)
    monkeypatch.setattr("vtsum.summary.pipeline.watch", None)
    with pytest.raises(VTSumError, match=rf"^read_transcript: .*{name}"):
        vtsum.summarize(clip, tmp_path / "o", transcript=tmp_path / name)


def test_a_megabyte_of_lines_that_are_nearly_times_is_read_at_once(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "small.mp4").path
    lines = "1" * 9990 + "x-->\n"
    (tmp_path / "t.srt").write_text("00:00:00,000 --> 00:00:01,000\nhello there\n\n" + lines * 100)
    done = forked.run(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "t.srt", "-f", "json", "-q"],
        env=ENVIRONMENT,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "hello" in (tmp_path / "o" / "summary.json").read_text()


def test_a_command_that_reads_much_answers_to_a_signal(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "small.mp4").path
    (tmp_path / "t.txt").write_text("<a [b (c. " * 90_000)
    job = subprocess.Popen(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "t.txt"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
    )
    time.sleep(4)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert sorted(os.listdir(tmp_path)) == ["small.mp4", "t.txt"]


ANNOTATIONS = {
    "climbs": ([ENTRY | {"video_id": "../../../etc/passwd"}], "video_id must be a file's name"),
    "absolute": ([ENTRY | {"video_id": "/etc/passwd"}], "video_id must be a file's name"),
    "the folder above": ([ENTRY | {"video_id": ".."}], "video_id must be a file's name"),
    "NUL": ([ENTRY | {"video_id": "a\0b"}], "video_id must be a file's name"),
    "backslashes": ([ENTRY | {"video_id": "..\\x"}], "video_id must be a file's name"),
    "too long": ([ENTRY | {"video_id": "v" * 5000}], "video_id must be a file's name"),
    "a list as id": ([ENTRY | {"video_id": ["v"]}], "video_id must be a file's name"),
    "half a pair": (b'[{"video_id": "\\ud800"}]', "half a surrogate pair"),
    "deep": (b"[" * 100_000, "at most 64 levels"),
    "401 digits": (b'[{"duration": ' + b"9" * 401 + b"}]", "more than 64 bits"),
    "5,000 digits": (b'[{"duration": ' + NINES.encode() + b"}]", "more than 64 bits"),
    "NaN": (b'[{"duration": NaN}]', "not finite"),
    "a long video": (
        [{k: v for k, v in ENTRY.items() if k != "vsum_onehot"} | {"duration": 1e308}],
        "up to 10,000,000",
    ),
    "many frames": ([ENTRY | {"sampled_frames": 10**18}], "from 1 to 10,000,000"),
    "no UTF-8": (b'["\xff"]', "in UTF-8"),
    "empty": (b"", "must be JSON"),
    "an object": ({}, "must hold a list"),
    "a number": ([3], "entry must be an object"),
    "texts for labels": ([ENTRY | {"vsum_onehot": [[{}], ["a"]]}], "vsum_onehot must be"),
    "deep labels": ([ENTRY | {"vsum_onehot": [[[[0]]]]}], "vsum_onehot must be"),
}


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_hostile_annotations_are_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, reason = ANNOTATIONS[kind]
    for folder in ("anno", "feat/blip"):
        (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / "anno" / "train_videoxum.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert cli.main(["data", "check", str(tmp_path), "--split", "train", "--unannotated"]) == 2
    assert reason in capsys.readouterr().out
    if kind != "a long video":
        assert reason in run(["train", "--data", str(tmp_path), "--output_dir", str(tmp_path / "run")], capsys)


CAPTIONS = {
    "climbs": ({"../../../etc/passwd": {}}, "an id must be a file's name"),
    "deep": ("[" * 100_000, "at most 64 levels"),
    "a list": ([], "must hold an object"),
    "endless": ('{"v": {"duration": 1e400}}', "not finite"),
    "no time": (
        {"v": {"duration": -1, "timestamps": [], "sentences": []}},
        "duration must be a number of seconds above 0",
    ),
    "a text for sentences": (
        {"v": {"duration": 1, "timestamps": [[0, 1]], "sentences": "x"}},
        "sentences must be a list of texts",
    ),
}


@pytest.mark.parametrize("kind", CAPTIONS)
def test_hostile_captions_are_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, reason = CAPTIONS[kind]
    path = tmp_path / "captions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    line = run(["data", "activitynet", str(path), "-o", str(tmp_path / "out.json")], capsys)
    assert reason in line
    assert os.listdir(tmp_path) == ["captions.json"]


def test_captions_that_unpack_without_end_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setattr("vtsum.data.activitynet.LIMIT", 1 << 20)
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b" " * (2 << 20)))
    line = run(["data", "activitynet", str(tmp_path / "c.json.gz"), "-o", str(tmp_path / "out.json")], capsys)
    assert "must unpack to at most 1048576 bytes" in line


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
SETTINGS = {
    "code": ("seed: !!python/object/apply:os.system [touch owned]\n", "line 1: must be plain YAML"),
    "a tag": ("seed: !!int ''\n", "line 1: must be plain YAML"),
    "billion laughs": (BOMB, "line 2: must be plain YAML"),
    "set twice by a merge": ("seed: 1\n<<: {seed: 2}\n", r"line 2: must be plain YAML without merge keys \(<<\)"),
    "merged in a model": ("model:\n  <<: [{width: 8}, {width: 16}]\n", "line 2: must be plain YAML without merge keys"),
    "deep": ("data: " + "[" * 30_000, "at most 16 levels"),
    "too long": ("# " + "x" * 100_000, "at most 65536 bytes"),
    "5,000 digits": (f"seed: {NINES}\n", "at most 1000 characters"),
    "401 digits": (f"seed: {'9' * 401}\n", "must be a whole number"),
    "5,000 hexadecimal digits": (f"seed: 0x{'F' * 5000}\n", "at most 1000 characters"),
    "4,000 sixtieths": (f"seed: {':'.join('1' * 4000)}\n", "at most 1000 characters"),
    "a long number for a name": (f"? 0x{'F' * 5000}\n: 1\n", "at most 1000 characters"),
    "a 99th": ("data: 2001-01-99\n", "must be YAML"),
    "NUL": ('data: "a\\0b"\n', "line 1: must be text, got a NUL"),
    "half a pair": ('data: "\\ud800"\n', "must be"),
    "octal": ("data: d\nseed: 010\n", "line 2: must be a decimal number, or stand in quotes, got 010"),
    "hexadecimal": ("seed: 0x10\n", "line 1: must be a decimal number, or stand in quotes, got 0x10"),
    "sixtieths": ("model:\n  width: 1:30\n", "line 2: must be a decimal number, or stand in quotes, got 1:30"),
    "a number of parts": ("seed: 1_0\n", "line 1: must be a decimal number, or stand in quotes, got 1_0"),
    "infinite": ("init_lr: .inf\n", "init_lr must be a number"),
    "a list": ("- seed\n", "must hold settings by name"),
    "a list for a value": ("seed: [1]\n", "seed of .* must be one value"),
    "a list for a model": ("model: [1]\n", "model of .* must hold settings by name"),
    "no UTF-8": (b"data: \xff\n", "must be YAML"),
    "binary": (b"data: \x00\x01\n", "must be YAML"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_hostile_settings_are_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, reason = SETTINGS[kind]
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert re.search(reason, run(["train", "--config", "s.yaml"], capsys))
    assert os.listdir(tmp_path) == ["s.yaml"]


def test_settings_without_aliases_and_tags_are_read(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("seed: 3\nmodel:\n  text: {dropout: 0.5}\n  kernel_size: null\n")
    assert read_yaml(tmp_path / "s.yaml")[0] == {"seed": 3, "model.text.dropout": 0.5, "model.kernel_size": None}


PLACES = [
    ["summarize", "{clip}", "-o", "o", "--transcript", "{at}"],
    ["data", "activitynet", "{at}", "-o", "o"],
    ["train", "--config", "{at}"],
    ["train", "--deepspeed", "{at}", "--data", "d"],
    ["table", "{at}"],
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]} {place[-2]}")
def test_pipes_devices_and_folders_are_no_files(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = str(small_clip(tmp_path / "small.mp4").path) if "{clip}" in place else ""
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for at, reason in (("pipe", "regular file"), ("/dev/zero", "regular file"), ("folder", "readable file")):
        line = run([word.format(at=at, clip=clip) for word in place], capsys)
        assert f"{at} must be a {reason}" in line
    assert not Path("o").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["summarize", "{clip}", "--budget", f"{NINES}:10:10"], "budget must be"),
        (["summarize", "{clip}", "--budget", f"{NINES}s"], "budget must be"),
        (["summarize", "{clip}", "--speech-limit", f"{NINES}min"], "speech_limit must be"),
        (["summarize", "{clip}", "--fps", NINES], "fps must be"),
        (["summarize", "{clip}", "--fps", "1e-320"], "fps must be"),
        (["extract", "{clip}", "-o", "o", "--batch-size", "9" * 40], "batch_size must be"),
        (["extract", "{clip}", "-o", "o", "--fps", "nan"], "fps must be"),
        (["data", "synth", "o", "--seed", "9" * 40], "seed must be at most"),
        (["data", "synth", "o", "--train", "9" * 40], "train must be at most"),
        (["train", "--seed", "9" * 401], "seed must be a whole number"),
        (["train", "--max_epoch", NINES], "max_epoch must be a whole number"),
        (["train", "--init_lr", "nan"], "init_lr must be a number"),
        (["train", "--data", "\ud800"], "data must be text"),
        (["evaluate", "--checkpoint", "x", "--data", "x", "--seed", "9" * 40], "seed must be at most"),
        (["evaluate", "--checkpoint", "x", "--data", "x", "--resamples", "9" * 40], "resamples must be at most"),
        (["evaluate", "--checkpoint", "x", "--data", "x", "--repetition_penalty", "nan"], "repetition_penalty"),
        (["evaluate", "--checkpoint", "x", "--data", "x", "--limit", NINES], "--limit"),
    ],
    ids=lambda part: " ".join(part)[:60] if isinstance(part, list) else "",
)  # fmt: skip
def test_numbers_beyond_reason_are_refused(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = str(small_clip(tmp_path / "small.mp4").path) if "{clip}" in words else ""
    assert reason in run([word.format(clip=clip) for word in words], capsys)
    assert set(os.listdir(tmp_path)) <= {"small.mp4"}


def test_a_hostile_evaluation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads((ROOT / "bench/results/synthetic_memory.json").read_text(encoding="utf-8"))
    path = tmp_path / "e.json"
    for change, field in [
        ({"measures": []}, "measures"),
        ({"measures": whole["measures"] | {"f1": {"value": "x", "low": 0, "high": 1}}}, "measures"),
        ({"measures": whole["measures"] | {"f1": {"value": None, "low": None, "high": None}}}, "measures"),
        ({"baselines": {"random": 3, "uniform": {}}}, "baselines.random"),
        ({"baselines": whole["baselines"] | {"": {}}, "videos": [None]}, "baselines."),
        ({"settings": whole["settings"] | {"resamples": 10**12}}, "settings.resamples or settings.seed"),
        ({"settings": whole["settings"] | {"seed": -1}}, "settings.resamples or settings.seed"),
        ({"protocol_revision": "2"}, "protocol_revision"),
        ({"data": {"name": ["a"]}}, "data.path"),
        ({"clip": 3}, "clip"),
        ({"videos": [3]}, "videos"),
        ({"videos": []}, "videos"),
        ({"videos": [{"video_id": "v", "f1": "x"}]}, r"videos[].f1"),
        ({"videos": [{"video_id": "v", "f1": [1, 2]}]}, r"videos[].f1"),
        ({"videos": [{"video_id": "v", "f1": 1e308}]}, r"videos[].f1"),
        ({"videos": [{"video_id": "v", "bleu_counts": [1] * 9}]}, r"videos[].bleu4"),
        ({"videos": [{"video_id": "v", "meteor_counts": [-1] * 23}]}, r"videos[].meteor"),
        ({"measures": whole["measures"] | {"f1": {"value": 1e308, "low": 0, "high": 1}}}, "measures"),
    ]:
        path.write_text(json.dumps(whole | change))
        assert f"{path} must be an evaluation, got {field} of another kind" in run(["table", str(path)], capsys)
    path.write_text(json.dumps(whole | {"checkpoint": {"name": "a\x1b[31m\n| $\\frac x"}}))
    assert cli.main(["table", str(path), "--plot", str(tmp_path / "p.svg")]) == 0
    assert "\n| a \\[31m \\| \\$\\\\frac x |" in (printed := capsys.readouterr().out)
    assert not UNFIT.search(printed)


def test_hostile_metrics_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    for line, reason in [
        ("[" * 100_000, "line 1 must be JSON of at most 64 levels"),
        ('{"step": "1"}', "line 1 must have a step"),
        ('{"step": 1, "loss": "x"}', "loss in .* must be a number"),
        ('{"step": 1, "loss": ' + NINES + "}", "more than 64 bits"),
    ]:
        path.write_text(line + "\n")
        assert re.search(reason, run(["plot", str(tmp_path)], capsys))


def test_a_video_whose_name_can_be_no_id_does_not_keep_others_from_being_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = small_clip(tmp_path / "good.mp4").path
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.mp4"))
    os.link(good, odd.with_name("x.mp4"))
    os.rename(odd.with_name("x.mp4"), odd)
    assert cli.main(["extract", str(good), str(odd), "-o", str(tmp_path / "f"), "--quiet"]) == 2
    assert "t?.mp4: its name without its ending must be a file's name" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "f").glob("*.npz")) == ["good.npz"]
