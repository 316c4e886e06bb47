"""`vtsum push` against a hub on this machine that speaks its protocol: what arrives is the model and an honest card."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.videoxum_corpus import write_corpus, write_model
from vtsum import cli
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.hub import card, push_to_hub
from vtsum.model import VTSum


class Hub(ThreadingHTTPServer):
    """Takes one repository; `refuse` answers everything with 403, `full` the weights after a word on the card."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.created: list[dict[str, Any]] = []
        self.large: dict[str, bytes] = {}
        self.commits: list[list[dict[str, Any]]] = []
        self.tokens: set[str | None] = set()
        self.refuse = self.full = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self) -> dict[str, bytes]:
        """The content of the last commit."""
        found = {}
        for line in self.commits[-1]:
            if line["key"] == "file":
                found[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                found[line["value"]["path"]] = self.large[line["value"]["oid"]]
        return found


class Asked(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *words: Any) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self.body()
        self.answer({}, 403 if self.server.full else 200)

    def do_POST(self) -> None:
        hub, body, path = self.server, self.body(), self.path.split("?")[0]
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.refuse:
            self.answer({"error": "no\nentry"}, 403)
        elif path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self.answer({"url": f"{hub.address}/me/mine"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": [{"message": "no licence"}] if hub.full else []})
        elif path == "/api/models/me/mine/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            self.answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif path == "/me/mine.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{hub.address}/store/{each['oid']}"}}
            self.answer({"transfer": "basic", "objects": objects})
        elif path == "/api/models/me/mine/commit/main":
            hub.commits.append([json.loads(line) for line in body.splitlines()])
            self.answer({"success": True, "commitOid": "a" * 40, "commitUrl": f"{hub.address}/me/mine/commit/aaa"})
        else:
            self.answer({"error": f"no {path}"}, 404)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def push(hub: Hub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {**ENVIRONMENT, "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_secret", "HF_HOME": str(home)}
    own.pop("HF_HUB_OFFLINE")
    own["HF_HUB_DISABLE_XET"] = "1"  # by plain HTTP: the other store's protocol is its library's
    command = [sys.executable, "-m", "vtsum.cli", "push", *words]
    return forked.run(command, env=own)


def test_what_arrives_is_the_model_and_a_card_with_the_protocol(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(java, "_java", lambda: None)
    corpus, run, file = write_corpus(tmp_path / "corpus"), tmp_path / "run", tmp_path / "e.json"
    model = write_model(run / "model")
    words = ["--data", str(corpus), "--caption_tokenizer", "plain", "--resamples", "20", "-o", str(file)]
    assert cli.main(["evaluate", "--checkpoint", str(run), *words, "--quiet"]) == 0
    done = push(hub, tmp_path, str(run), "me/mine", "--evaluation", str(file), "--private")
    assert (done.returncode, done.stdout) == (0, f"{hub.address}/me/mine\n"), done.stderr
    assert hub.created[0]["name"] == "mine"
    assert hub.created[0]["organization"] == "me"
    assert hub.created[0].get("private") is True or hub.created[0].get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_secret"}
    files = hub.files()
    assert set(files) == {"config.json", "model.safetensors", "vocab.txt", "README.md"}
    back = tmp_path / "back"
    back.mkdir()
    for name, content in files.items():
        (back / name).write_bytes(content)
    theirs = VTSum.from_pretrained(model).state_dict()
    for name, value in VTSum.from_pretrained(back).state_dict().items():
        assert torch.equal(value, theirs[name]), name
    text = files["README.md"].decode()
    found = json.loads(file.read_text())
    assert text.startswith("---\nlibrary_name: vtsum\n")
    assert 'VTSum.from_pretrained("me/mine")' in text
    assert f"Protocol videoxum-strict (revision {found['protocol_revision']}), split test of corpus, 11 videos" in text
    assert f"| me/mine | {100 * found['measures']['f1']['value']:.1f} |" in text
    assert "| random |" in text


def test_an_evaluation_of_other_weights_is_refused_before_anything_is_sent(hub, tmp_path):
    model = write_model(tmp_path / "model")
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    evaluation = json.loads((Path(__file__).parents[2] / "bench" / "results" / "synthetic_memory.json").read_text())
    (tmp_path / "e.json").write_text(json.dumps(evaluation))
    done = push(hub, tmp_path, str(model), "me/mine", "--evaluation", str(tmp_path / "e.json"))
    assert done.returncode == 2
    assert f"must be an evaluation of {model / 'model.safetensors'} ({digest}), got one of" in done.stderr
    assert not hub.tokens


def test_a_hub_that_refuses_is_one_line(hub, tmp_path):
    hub.refuse = True
    done = push(hub, tmp_path, str(write_model(tmp_path / "model")), "me/mine")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'me/mine' must be a repository of the hub that you may write to (hf auth login), got: " in line


def test_a_hub_that_refuses_midway_is_one_line(hub, tmp_path):
    """Its client told of each try, of the card and how far the weights were besides."""
    hub.full = True
    done = push(hub, tmp_path, str(write_model(tmp_path / "model")), "me/mine")
    assert done.returncode == 2
    assert hub.large
    (line,) = done.stderr.splitlines()
    assert line.startswith("vtsum: push: 'me/mine' must be a repository of the hub that you may write to")


def test_a_class_that_python_takes_for_another_word_is_in_no_card():
    for name in ("import:Model", "a.class.b:Model", "a:None"):
        with pytest.raises(VTSumError, match=r"class of config\.json must be module:Class"):
            card("me/m", {"class": name, "model": {}}, [])


def test_a_hub_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    """There was no end to it."""
    write_model(tmp_path / "model")
    monkeypatch.setattr("vtsum.model.hub_bounds.WORK", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        with pytest.raises(VTSumError, match=r"push: 'me/model' must be a repository .*, got: timed out"):
            push_to_hub(tmp_path / "model", "me/model")


@pytest.mark.parametrize("name", ["me/\udcff", "a/b/c", "me/../x", "", "me/a b", "-o", "me/x\ny"])
def test_a_name_that_no_repository_has_is_one_line(name: str, hub: Hub, tmp_path: Path) -> None:
    done = push(hub, tmp_path, str(write_model(tmp_path / "model")), *(["--"] if name.startswith("-") else []), name)
    assert done.returncode == 2
    assert done.stderr.startswith("vtsum: push: name must be OWNER/NAME, got '")
    assert done.stderr.count("\n") == 1
    assert not hub.tokens


def test_a_configuration_that_says_nothing_of_the_model_is_refused(hub, tmp_path):
    model = write_model(tmp_path / "model")
    (model / "config.json").write_text('{"format": "vtsum-model/1"}')
    done = push(hub, tmp_path, str(model), "me/mine")
    assert done.returncode == 2
    assert done.stderr == f"vtsum: push: model of {model / 'config.json'} must be an object, got none\n"
    assert not hub.tokens


def test_a_strangers_folder_uploads_no_file_of_the_users(hub, tmp_path):
    model = write_model(tmp_path / "model")
    secret = tmp_path / "id_rsa"
    secret.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    (model / "vocab.txt").unlink()
    (model / "vocab.txt").symlink_to(secret)
    done = push(hub, tmp_path, str(model), "me/mine")
    assert done.returncode == 2
    assert done.stderr.startswith(f"vtsum: push: {model / 'vocab.txt'} must lie where it is named, got a symbolic link")
    assert not hub.tokens
    (model / "vocab.txt").unlink()
    for make, told in ((None, "must be a readable file, got: no such file"), (os.mkfifo, "must be a regular file")):
        if make is not None:
            make(model / "vocab.txt")
        done = push(hub, tmp_path, str(model), "me/mine")
        assert done.returncode == 2, "a model whose words are missing was uploaded"
        assert f"{model / 'vocab.txt'} {told}" in done.stderr
        assert not hub.tokens
    (model / "vocab.txt").unlink()
    secret.rename(model / "vocab.txt")
    done = push(hub, tmp_path, str(model), "me/mine")
    assert done.returncode == 2
    assert done.stderr.startswith(f"vtsum: push: {model / 'vocab.txt'} must hold [PAD], [UNK], [CLS] and [SEP], got no")
    assert not hub.tokens


@pytest.mark.parametrize("linked", ["model.safetensors", "vocab.txt", "config.json", "model"])
def test_a_strangers_run_uploads_no_model_of_the_users(hub, tmp_path, linked):
    """What a link leads to may be whole and of the right kind, and still not meant to be published."""
    own = write_model(tmp_path / "own" / "model")
    theirs = write_model(tmp_path / "theirs" / "model")
    if linked == "model":
        theirs.rename(tmp_path / "gone")
        theirs.symlink_to(own)
    else:
        (theirs / linked).unlink()
        (theirs / linked).symlink_to(own / linked)
    done = push(hub, tmp_path, str(theirs.parent), "me/mine")
    assert done.returncode == 2, done
    place = theirs if linked == "model" else theirs / linked
    assert done.stderr == f"vtsum: push: {place} must lie where it is named, got a symbolic link; remove the link\n"
    assert not hub.tokens


@pytest.mark.parametrize("of", ["os:system\n```\n", "a b:C", 7, ["a:B"]])
def test_a_class_that_can_be_none_is_not_put_on_the_card(hub, tmp_path, of):
    model = write_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"class": of, "facts": [1]}))
    done = push(hub, tmp_path, str(model), "me/mine")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("vtsum: push: class of config.json must be module:Class, got ")
    assert not hub.tokens


def test_a_strangers_words_are_text_on_the_card():
    model = {"width": "<script>", "frame_encoder": "`![a](http://b)`\n# c"}
    text = card("me/mine", {"model": model, "facts": {"training": {"steps": "[x](y)"}}}, [])
    assert r"features of \`!\[a\](http\://b)\` # c (width \<script>): a saliency" in text
    assert "[x](y)" not in text
    assert card("me/mine", {"model": {}, "facts": [1]}, []).count("Nothing yet") == 1


def test_the_card_of_an_unmeasured_model_says_so():
    text = card("me/mine", {"model": {"width": 8}, "class": "own_model:TwoLayers"}, [])
    assert "Nothing yet: no evaluation came with these weights." in text
    assert 'from own_model import TwoLayers\n\nmodel = TwoLayers.from_pretrained("me/mine")' in text
