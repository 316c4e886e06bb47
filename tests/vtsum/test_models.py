"""`vtsum models`, and `vtsum models get` from a hub on this machine: whole, resumed, and refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.vtsum.image_text_checkpoints import make_instruct
from tests.vtsum.samples import small_clip
from tests.vtsum.stub_hub import COMMIT, StubHub, blobs, running
from vtsum import catalogue, cli
from vtsum.catalogue import better
from vtsum.enhance.speech.recognisers import at_hand
from vtsum.enhance.speech.recognisers.faster_whisper import FasterWhisper
from vtsum.errors import VTSumError
from vtsum.model import downloads
from vtsum.model.captioners import CPU_CHECKPOINTS, best_at_hand, make_captioner

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer's, with 25 MB of weights, and what of a repository is not fetched."""
    folder = make_instruct(tmp_path_factory.mktemp("writer"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + bytes(25_000_000))
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: our-own\n---\n# Mine\n")
    (folder / "run.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with running() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "hub"


@pytest.fixture
def run(hub: StubHub, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`vtsum models ...` in this process."""
    hub.here(monkeypatch, cache)

    def start(*words: str) -> tuple[int, str, str]:
        status = cli.main(["models", *words])
        return status, *capsys.readouterr()

    return start


def command(hub: StubHub, home: Path, *words: str, **options: Any) -> tuple[int, str, str]:
    """The same in one of its own."""
    environment = hub.environment(home) | options.pop("env", {})
    line = [sys.executable, "-m", "vtsum", "models", *words]
    done = forked.run(line, env=environment, **options)
    return done.returncode, done.stdout, done.stderr


def refused(done: tuple[int, str, str]) -> str:
    status, _, told = done
    assert status == 2, done
    assert told.count("\n") == 1, told
    return told


def test_a_model_is_fetched_listed_and_not_fetched_again(
    hub: StubHub, run: Run, checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("me/writer", checkpoint)
    status, told, errors = run("get", "me/writer")
    assert (status, errors) == (0, "")
    first, last = told.splitlines()
    assert first.startswith("me/writer: ")
    assert first.endswith(" MB, licence: mit")
    folder = cache / "models--me--writer" / "snapshots" / COMMIT
    assert last == f"{folder}: --writer me/writer"
    there = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "README.md"} <= there
    assert not there & {"run.py", "pytorch_model.bin"}
    (entry,) = (entry for entry in json.loads(run("--json")[1]) if entry["name"] == "me/writer")
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert (entry["part"], entry["state"], entry["get"]) == ("writer", "cached", None)
    assert (entry["licence"], entry["sha256"]) == ("our-own", {"model.safetensors": digest})
    assert entry["size"] > 25_000_000
    hub.asked.clear()
    assert run("get", "me/writer", "-q") == (0, "", "")
    assert not [asked for asked in hub.asked if asked[0] == "GET" and "/resolve/" in asked[1]]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run("get", "me/writer")[:2] == (0, f"me/writer is there already, in {folder}\n")


def test_a_whisper_is_fetched_as_ctranslate2_has_it(hub: StubHub, run: Run) -> None:
    pytest.importorskip("faster_whisper")
    files = {"config.json": b"{}", "model.bin": b"numbers", "vocabulary.txt": b"a", "tokenizer.json": b"{}"}
    hub.repositories["Systran/faster-whisper-small"] = {**files, "pytorch_model.bin": b"a pickle"}
    status, told, _ = run("get", "small")
    assert status == 0
    assert told.endswith(": taken by itself; --recogniser faster-whisper:small\n")
    ((size, folder),) = at_hand._cached(at_hand.CPU_SIZES)
    assert size == "small", "the recogniser finds it"
    assert {path.name for path in folder.iterdir()} == set(files)


def test_a_killed_download_goes_on(hub: StubHub, run: Run, checkpoint: Path, cache: Path) -> None:
    hub.add("me/writer", checkpoint)
    hub.stalls["model.safetensors"] = 12_000_000
    line = [sys.executable, "-m", "vtsum", "models", "get", "me/writer"]
    process = subprocess.Popen(line, env=hub.environment(cache.parent), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not any(name.endswith(".incomplete") and size > 1_000_000 for name, size in blobs(cache).items()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (there,) = (size for name, size in blobs(cache).items() if name.endswith(".incomplete"))
    assert "me/writer" not in run()[1], "half a model serves nothing"
    wanted = downloads.offer("me/writer")
    arrived = downloads._arrived(cache / "models--me--writer", wanted)
    assert there <= arrived < wanted.size - 10_000_000, "by which the bar goes"
    hub.asked.clear()
    assert run("get", "me/writer")[0] == 0
    ranges = [asked[2] for asked in hub.asked if asked[0] == "GET" and asked[1].endswith("model.safetensors")]
    assert ranges == [f"bytes={there}-"]
    whole = cache / "models--me--writer" / "snapshots" / COMMIT / "model.safetensors"
    assert whole.read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert not [name for name in blobs(cache) if name.endswith(".incomplete")]


def test_what_the_hub_refuses_is_one_line(hub: StubHub, run: Run, checkpoint: Path, tmp_path: Path) -> None:
    assert "me/none must be on http://127.0.0.1" in refused(run("get", "me/none"))
    hub.add("me/gated", checkpoint)
    hub.gated.add("me/gated")
    assert "me/gated must be open to you, got a gated one: ask at http://127.0.0.1" in refused(run("get", "me/gated"))
    assert "NAME must be OWNER/NAME on the hub or one of " in refused(run("get", "writer"))
    assert "the name must be OWNER/NAME, got 'a/b/c'" in refused(run("get", "a/b/c"))
    said = refused(command(hub, tmp_path, "get", "me/writer", env={"HF_HUB_OFFLINE": "1"}))
    assert said == "vtsum: models get: HF_HUB_OFFLINE must not be set to fetch me/writer, got '1'\n"
    said = refused(command(hub, tmp_path, "get", "me/writer", env={"HF_ENDPOINT": "http://127.0.0.1:9"}))
    assert "http://127.0.0.1:9/me/writer must be reachable, got: " in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "http://[::1"),
        ("HF_ENDPOINT", "http://user@[bad]/"),
        ("HF_ENDPOINT", "http://localhost:99999"),
        ("HF_HUB_ETAG_TIMEOUT", "soon"),
    ],
)
def test_settings_that_the_hubs_client_cannot_read_are_one_line(
    hub: StubHub, tmp_path: Path, name: str, value: str
) -> None:
    """By them neither it nor transformers can be imported: no command could be run."""
    said = refused(command(hub, tmp_path, "get", "me/writer", env={name: value}))
    told = "models get: HF_ENDPOINT must be an address (https://HOST) and HF_HUB_*_TIMEOUT whole seconds, got "
    assert said.startswith(f"vtsum: {told}")
    assert f"{name}={value}" in said


def test_a_pipe_in_the_cache_is_not_waited_for(hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner, whisper = CPU_CHECKPOINTS[-1], "Systran/faster-whisper-small"
    for name in ("me/writer", captioner, whisper):
        refs = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "refs"
        refs.mkdir(parents=True)
        os.mkfifo(refs / "main")
    status, told, errors = command(hub, tmp_path, timeout=120)
    assert (status, errors) == (0, "")
    assert f"vtsum models get {captioner}" in told
    clip, output = str(small_clip(tmp_path / "clip.mp4").path), str(tmp_path / "o")
    words = ["summarize", clip, "-o", output, "-q", "--no-speech", "--no-ocr", "--writer", "me/writer"]
    line = [sys.executable, "-m", "vtsum", *words]
    environment = hub.environment(tmp_path) | {"HF_HUB_OFFLINE": "1"}
    done = forked.run(line, env=environment, timeout=120)
    rule = "/refs/main must be a file or a folder, got a pipe, a socket or a device"
    assert rule in refused((done.returncode, done.stdout, done.stderr))
    hub.here(monkeypatch, tmp_path / "hub")
    with pytest.raises(VTSumError, match=rule):
        make_captioner(captioner)
    assert best_at_hand() is None
    pytest.importorskip("faster_whisper")
    assert list(at_hand._cached(at_hand.CPU_SIZES)) == []
    with pytest.raises(VTSumError, match=rule):
        FasterWhisper("small")


def test_what_is_no_data_is_refused(hub: StubHub, run: Run, checkpoint: Path) -> None:
    hub.add("me/pickle", checkpoint)
    del hub.repositories["me/pickle"]["model.safetensors"]
    said = refused(run("get", "me/pickle"))
    assert "me/pickle must have its weights in safetensors, which hold no code, got pytorch_model.bin alone" in said
    config = json.loads((checkpoint / "config.json").read_text()) | {"auto_map": {"AutoModel": "run.Model"}}
    hub.add("me/code", checkpoint)
    hub.repositories["me/code"]["config.json"] = json.dumps(config).encode()
    assert "must do with the code of transformers, got auto_map" in refused(run("get", "me/code"))
    asked = [path for kind, path, _ in hub.asked if kind == "GET" and "/resolve/" in path]
    assert not [path for path in asked if path.endswith((".safetensors", ".py", ".bin"))], "weights come last"


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({"sha": None}, "the revision of me/writer must be a plain name, got None"),
        ({"sha": "../../../elsewhere"}, "the revision of me/writer must be a plain name, got '../../../elsewhere'"),
        ({"siblings": [{"rfilename": 5}]}, "must have files of some size, got '5' of 0 bytes"),
        ({"siblings": [{"rfilename": "a.safetensors", "size": "x"}]}, "got 'a.safetensors' of 'x' bytes"),
        ({"siblings": [{"rfilename": "a.safetensors", "size": -1}]}, "got 'a.safetensors' of -1 bytes"),
        ({"siblings": [{"rfilename": "a.safetensors", "size": 1e999}]}, "got 'a.safetensors' of inf bytes"),
    ],
)
def test_what_a_hub_says_is_checked(
    says: dict[str, Any], told: str, hub: StubHub, run: Run, checkpoint: Path, cache: Path
) -> None:
    """Some of it was what nobody foresaw: exit status 70."""
    hub.add("me/writer", checkpoint)
    hub.says["me/writer"] = says
    assert told in refused(run("get", "me/writer"))
    assert not blobs(cache)


def test_a_card_that_is_none_names_no_licence(hub: StubHub, run: Run, checkpoint: Path) -> None:
    hub.add("me/writer", checkpoint)
    hub.says["me/writer"] = {"cardData": "x"}
    status, told, _ = run("get", "me/writer")
    assert (status, told.splitlines()[0].endswith("licence: none named")) == (0, True)


def test_a_hubs_answers_lead_out_of_no_folder(hub: StubHub, run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """The hub's client keeps a file under its ETag, and with one of dots and slashes put it anywhere."""
    hub.add("me/writer", checkpoint)
    hub.tags["config.json"] = "../../../../elsewhere"
    assert "the ETag of a file must be a plain name, got '../../../../elsewhere'" in refused(run("get", "me/writer"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_cache_that_cannot_be_written_to_is_told_as_that(
    hub: StubHub, run: Run, checkpoint: Path, cache: Path
) -> None:
    """The hub was said not to be reachable."""
    hub.add("me/writer", checkpoint)
    cache.mkdir(parents=True)
    (cache / ".locks").write_text("mine")
    said = refused(run("get", "me/writer"))
    assert str(cache / ".locks") in said
    assert "must be a path that can be used, got: " in said


def test_a_download_goes_on_through_no_link(hub: StubHub, run: Run, checkpoint: Path, cache: Path) -> None:
    """What it led to was written to."""
    hub.add("me/writer", checkpoint)
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    (mine := cache.parent / "mine").parent.mkdir(parents=True)
    mine.write_text("mine")
    (cache / "models--me--writer" / "blobs").mkdir(parents=True)
    (cache / "models--me--writer" / "blobs" / f"{digest}.incomplete").symlink_to(mine)
    assert "must be a path that can be used, got: Too many levels of symbolic links" in refused(run("get", "me/writer"))
    assert mine.read_text() == "mine"


def test_a_hub_that_says_nothing_is_not_waited_for(hub: StubHub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no end to it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("vtsum.model.hub_bounds.SILENCE", 0.5)
        assert "must be reachable, got: " in refused(run("get", "me/writer"))


@pytest.mark.parametrize("of", ["me/writer", "config.json"])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("silence", "must be reachable, got: "),
        ("drops", "must come at 1,024 bytes a second, got "),
        ("later", "got one that asks to wait for 86,400 s"),
    ],
)
def test_a_hub_without_end_is_given_up(
    how: str, told: str, of: str, hub: StubHub, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file, it was asked again for six minutes, waited for as long as bytes came, and for a day."""
    hub.add("me/writer", checkpoint)
    hub.slow[of] = how
    monkeypatch.setattr("vtsum.model.hub_bounds.SILENCE", 0.5)
    monkeypatch.setattr("vtsum.model.hub_bounds._WINDOW", 0.5)
    began = time.monotonic()
    said = refused(run("get", "me/writer"))
    if (how, of) == ("later", "me/writer"):  # which the client does not ask again
        told = "must be reachable, got: 429 "
    assert told in said
    assert time.monotonic() - began < 20


def test_an_answer_without_end_is_refused(
    hub: StubHub, run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was kept in memory until that ended."""
    hub.add("me/writer", checkpoint)
    hub.slow["me/writer"] = "flood"
    monkeypatch.setattr("vtsum.model.hub_bounds._MOST", 1 << 22)
    assert "must be an answer of at most 4,194,304 bytes, got more" in refused(run("get", "me/writer"))


def test_a_hub_that_says_nothing_of_a_file_can_be_left(hub: StubHub, checkpoint: Path, tmp_path: Path) -> None:
    """The signal waited for the client's threads, which waited for the hub."""
    hub.add("me/writer", checkpoint)
    hub.slow["config.json"] = "silence"
    words = [sys.executable, "-m", "vtsum", "models", "get", "me/writer"]
    with subprocess.Popen(words, env=hub.environment(tmp_path / "home"), stderr=subprocess.PIPE, text=True) as process:
        while not any(how == "HEAD" for how, *_ in hub.asked):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.communicate(timeout=60)[1].strip().endswith("vtsum: stopped")
        assert (process.returncode, time.monotonic() - began < 5) == (130, True)


def test_what_arrives_broken_is_not_kept(hub: StubHub, run: Run, checkpoint: Path, cache: Path) -> None:
    hub.add("me/writer", checkpoint)
    hub.lies["model.safetensors"] = bytes(len(hub.repositories["me/writer"]["model.safetensors"]))
    assert "model.safetensors of me/writer must have the sha256 " in refused(run("get", "me/writer"))
    assert max(blobs(cache).values()) < 1_000_000
    hub.lies.clear()
    assert run("get", "me/writer")[0] == 0


def test_a_full_disk_is_told(hub: StubHub, run: Run, checkpoint: Path, cache: Path) -> None:
    hub.add("me/writer", checkpoint)
    hub.sizes["model.safetensors"] = 1 << 60
    assert f"{cache} must have room for 1152921504.6 GB, got " in refused(run("get", "me/writer"))
    hub.sizes.clear()

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15_000_000, 15_000_000))

    line, environment = [sys.executable, "-m", "vtsum", "models", "get", "me/writer"], hub.environment(cache.parent)
    done = subprocess.run(line, env=environment, preexec_fn=small, capture_output=True, text=True, timeout=300)
    said = refused((done.returncode, done.stdout, done.stderr))
    assert "must have room for me/writer, got a full disk; HF_HOME names another place" in said
    assert max(blobs(cache).values()) > 5_000_000, "what has arrived is kept"
    assert run("get", "me/writer")[0] == 0


def test_the_list_names_what_is_at_hand(run: Run) -> None:
    status, told, errors = run()
    assert (status, errors) == (0, "")
    lines = told.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(catalogue.PARTS)
    assert any(line.split()[:2] == ["embedded", "installed"] for line in lines)
    assert any(line.endswith("vtsum models get small") for line in lines)
    for entry in json.loads(run("--json")[1]):
        assert (entry["get"] is None) == (entry["state"] in ("installed", "cached"))


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "settings": {"offline_default": False, "speech": "auto", "captioner": "auto"},
        "speech": {"source": "faster-whisper:tiny.en", "utterances": [], "warnings": []},
        "model": {"text_is_guess": True},
        "models": [{"part": "speech", "device": "cpu"}],
        "text": [{"origin": "measured"}],
    }
    for name, change in changes.items():
        made[name] = {**made[name], **change} if isinstance(change, dict) else change
    return made


def test_what_would_help_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "cached", lambda name: None)
    foreign = {"warnings": [f"3 stretches of sound {catalogue.NOT_UNDERSTOOD}"]}
    assert (better(document(speech=foreign)) or "").endswith(": vtsum models get small")
    on_gpu = document(speech=foreign, models=[{"part": "speech", "device": "cuda:0"}])
    assert (better(on_gpu) or "").endswith(": vtsum models get large-v3-turbo")
    other = document(speech={**foreign, "source": "faster-whisper:small"}, settings={"captioner": "none"})
    assert better(other) is None, "it knows the languages"
    assert (better(document()) or "").endswith(f"vtsum models get {catalogue.SUGGESTED}")
    assert catalogue.SUGGESTED in CPU_CHECKPOINTS, "it is taken by itself"
    assert better(document(settings={"offline_default": True}, speech=foreign)) is None
    assert better(document(text=[{"origin": "heard"}])) is None
    assert better(document(models=[{"part": "captions", "device": "cpu"}])) is None
    assert better(document(model={"text_is_guess": False})) is None
    monkeypatch.setattr(catalogue, "cached", lambda name: Path())
    assert better(document()) is None, "it has one; why it did not help is told elsewhere"


def test_a_summary_ends_with_the_command_that_would_help(clip: Path, run: Run, tmp_path: Path, capsys: Any) -> None:
    """Of a silent video without words, without a captioner; never for who wants quiet or the same on every machine."""
    words = ["summarize", str(clip), "-o", str(tmp_path / "o"), "--no-speech", "--no-ocr", "-f", "json", "--overwrite"]
    assert cli.main(words) == 0
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("vtsum: note: a model that describes pictures may tell what is seen: ")
    assert last.endswith(f"vtsum models get {catalogue.SUGGESTED}")
    for other in ("--quiet", "--json", "--offline-default"):
        assert cli.main([*words, other]) == 0
        assert "vtsum models get" not in capsys.readouterr().err
