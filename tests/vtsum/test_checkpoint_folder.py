"""Models saved and loaded in transformers' habits: from a folder or the hub's cache, and never half a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.vtsum.test_model import small_model
from vtsum.errors import VTSumError
from vtsum.files import replacing
from vtsum.model import VTSum, checkpoint
from vtsum.model.summarizer import EMBEDDED
from vtsum.model.tokenizer import load_tokenizer

FILES = ["config.json", "model.safetensors", "vocab.txt"]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    model = small_model(tmp_path, memory_form="student", temporal_window=5, loss_type="l2")
    model.save_pretrained(tmp_path / "new" / "model", facts={"epochs": 3})
    assert listing(tmp_path / "new" / "model") == FILES
    again = VTSum.from_pretrained(tmp_path / "new" / "model")
    assert again.config == model.config
    assert not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert json.loads((tmp_path / "new" / "model" / "config.json").read_text())["facts"] == {"epochs": 3}
    x = torch.randn(1, 9, 32)
    assert model.generate(x, min_length=5)[0] == again.generate(x, min_length=5)[0]

    model.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    halves = VTSum.from_pretrained(str(tmp_path / "half")).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(halves[name], value.bfloat16().float()), name

    silent = VTSum(model.config)  # no text decoder; the folder's old word list goes
    silent.save_pretrained(tmp_path / "half")
    assert listing(tmp_path / "half") == ["config.json", "model.safetensors"]
    back = VTSum.from_pretrained(tmp_path / "half")
    assert back.text_decoder is None
    assert torch.equal(back.saliency_logits(back.encode(x)), silent.eval().saliency_logits(silent.encode(x)))


def test_the_embedded_models_encoder_stays_with_it(tmp_path):
    model = VTSum.from_pretrained(EMBEDDED)
    model.save_pretrained(tmp_path / "copy")
    first, second = (VTSum.load_checkpoint(folder) for folder in (EMBEDDED, tmp_path / "copy"))
    assert first.encoder_state
    assert first.encoder_state.keys() == second.encoder_state.keys()
    for ours, theirs in ((first.encoder_state, second.encoder_state), (model.state_dict(), second.model.state_dict())):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    text = (EMBEDDED / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = first.model.text_decoder.tokenizer.get_vocab()
    assert [words[word] for word in text] == list(range(len(text)))
    assert (tmp_path / "copy" / "vocab.txt").read_text(encoding="utf-8").splitlines() == text


def test_weights_from_elsewhere(tmp_path):
    """Sharded training gathers the weights itself; a module of empty shards is refused."""
    model = small_model(tmp_path)
    whole = {name: value.clone() + 1 for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    with pytest.raises(
        VTSumError, match=r"weights must be whole, got empty model\.position_embeddings\.weight; gather"
    ):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model.save_pretrained(tmp_path / "model", state_dict=whole)
    saved = VTSum.from_pretrained(tmp_path / "model").state_dict()
    assert torch.equal(saved["temporal.norm.weight"], whole["temporal.norm.weight"])


def test_an_interrupted_save_leaves_the_old_model(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    old = small_model(tmp_path)
    old.save_pretrained(folder)
    before = {name: (folder / name).read_bytes() for name in FILES}

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    new = small_model(tmp_path, memory_slots=3)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_safetensors", full)
        with pytest.raises(OSError, match="No space left"):
            new.save_pretrained(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    with pytest.raises(VTSumError, match="facts must be plain data for JSON, got: Object of type Tensor"):
        new.save_pretrained(folder, facts={"loss": torch.zeros(1)})
    assert listing(folder) == FILES

    order: list[str] = []
    rename = os.replace

    def record(source: Path, target: Path) -> None:
        assert all(len(list(folder.glob(f".{name}.*"))) == 1 for name in FILES if name not in order)
        order.append(target.name)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", record)
        new.save_pretrained(folder)
    assert order == ["model.safetensors", "vocab.txt", "config.json"]  # all written first, the configuration last
    assert VTSum.from_pretrained(folder).config.memory_slots == 3
    assert listing(folder) == FILES

    (tmp_path / "file").write_text("mine")
    with pytest.raises(VTSumError, match="folder must be a folder or new, got the file"):
        new.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_replacing_takes_nothing_from_a_failed_block(tmp_path):
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with replacing(tmp_path) as temporary:
            temporary("a").write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert listing(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


LOAD_FROM_THE_CACHE = """
import sys
from vtsum.errors import VTSumError
from vtsum.model import VTSum
model = VTSum.from_pretrained("someone/summarizer")
print(float(model.temporal.norm.weight[0]), model.config.memory_slots)
try:
    VTSum.from_pretrained("someone/nothing")
except VTSumError as error:
    print(error)
"""


def test_the_hubs_cache_serves_without_a_network(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--summarizer"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    model = small_model(tmp_path, memory_slots=5)
    with torch.no_grad():
        model.temporal.norm.weight.fill_(0.25)
    model.save_pretrained(repository / "snapshots" / commit)
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_THE_CACHE],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found, missing = done.stdout.strip().splitlines()
    assert found == "0.25 5"
    assert missing.startswith(
        "from_pretrained: 'someone/nothing' must be a folder, or a repository on the hub or in its"
    )


def test_tokenizers_come_from_a_list_a_folder_or_an_object(tmp_path):
    small_model(tmp_path)  # writes vocab.txt
    by_file, by_folder = load_tokenizer(tmp_path / "vocab.txt"), load_tokenizer(str(tmp_path))
    assert by_file.get_vocab() == by_folder.get_vocab()
    assert load_tokenizer(by_file) is by_file
    (tmp_path / "saved").mkdir()
    by_file.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "vocab.txt").unlink(missing_ok=True)  # what is left is transformers' own format
    assert load_tokenizer(str(tmp_path / "saved")).get_vocab() == by_file.get_vocab()
    assert by_file("a man").input_ids == load_tokenizer(str(tmp_path / "saved"))("a man").input_ids
    (tmp_path / "with_enc.txt").write_text((tmp_path / "vocab.txt").read_text() + "[ENC]\n")
    with_enc = load_tokenizer(tmp_path / "with_enc.txt")
    assert with_enc.decode([6, 12, 7], skip_special_tokens=True) == "a man"

    with pytest.raises(VTSumError, match=r"source must be a word list, a folder or a hub name, got .*missing\.txt"):
        load_tokenizer(tmp_path / "missing.txt")
    with pytest.raises(VTSumError, match="must be a word list, a folder, a hub name or a tokenizer, got 7"):
        load_tokenizer(7)
    (tmp_path / "words.txt").write_text("[PAD]\n[UNK]\na\nman\n")
    with pytest.raises(VTSumError, match=r"must hold \[PAD\], \[UNK\], .*got no \[CLS\] and no \[SEP\]"):
        load_tokenizer(tmp_path / "words.txt")
    (tmp_path / "words.txt").write_bytes(b"\x80\x81\n")
    with pytest.raises(VTSumError, match="must be a text file, one word a line"):
        load_tokenizer(tmp_path / "words.txt")


def test_others_may_read_a_model_where_the_umask_says_so(tmp_path):
    model = small_model(tmp_path)
    before = os.umask(0o027)
    try:
        model.save_pretrained(tmp_path / "new")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == dict.fromkeys(
        FILES, 0o640
    )


def test_a_model_that_may_not_be_read_is_not_called_another(tmp_path, monkeypatch):
    model, access = small_model(tmp_path), os.access
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "config.json" and access(path, mode))
    with pytest.raises(VTSumError, match=r"config\.json must be a file that may be read: Permission denied$"):
        model.save_pretrained(tmp_path / "model")
