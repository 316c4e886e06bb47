"""Model folders and weights of a stranger: nothing in them is run, and what is wrong with them is one line."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from vtsum_kernels.integrations import torchvision_free

from tests.vtsum.hostile import Payload, refused
from tests.vtsum.samples import small_clip
from tests.vtsum.test_checkpoint import model_folder, tiny_blip, tiny_clip
from vtsum.enhance.speech.denoise_seq2seq import Seq2SeqDenoiser
from vtsum.enhance.speech.recognisers.whisper import Whisper
from vtsum.errors import VTSumError
from vtsum.evaluation.clip_score import load_clip_text
from vtsum.model.encoders import load_frame_encoder
from vtsum.model.files import read_pt, read_safetensors
from vtsum.model.frame_encoder import EMBEDDED
from vtsum.model.pretrained import at_work, check_folder
from vtsum.model.tokenizer import load_tokenizer
from vtsum.model.videoxum_checkpoint import read_weights
from vtsum.model.vtsum import VTSum
from vtsum.recipes.tiny_clip import TinyClip

CODE = """
from pathlib import Path
Path(r"{mark}").mkdir()
from transformers import AutoTokenizer, CLIPConfig as Own
"""
OWN = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}


def asks_for_code(folder: Path, mark: Path, name: str, **fields: Any) -> Path:
    """A folder whose file `name` names code that lies beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(CODE.format(mark=mark))
    if name != "config.json":
        (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (folder / name).write_text(json.dumps({"auto_map": OWN, **fields}))
    return folder


TRANSFORMERS: dict[str, Callable[[Path], Any]] = {
    "frame encoder": lambda folder: load_frame_encoder(str(folder)),
    "tokenizer": lambda folder: load_tokenizer(str(folder)),
    "denoiser": lambda folder: Seq2SeqDenoiser(folder),
    "whisper": lambda folder: Whisper(str(folder)),
    "tiny clip": TinyClip.load,
}
"""Everything that reads a folder through transformers, but for CLIPScore's, which wants weights to be there."""


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("reader", TRANSFORMERS)
def test_a_folder_that_asks_for_its_own_code_is_refused(reader: str, name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = asks_for_code(tmp_path / "model", mark, name, model_type="unheard_of")
    with pytest.raises(VTSumError, match=r"must do with the code of transformers, got auto_map .*never run") as caught:
        TRANSFORMERS[reader](folder)
    assert str(folder / name) in str(caught.value)
    assert not mark.exists()


def test_clipscores_folder_that_asks_for_its_own_code_is_refused(tmp_path: Path) -> None:
    folder = asks_for_code(tmp_path / "model", tmp_path / "mark", "config.json", model_type="clip")
    save_file({}, folder / "model.safetensors")
    with pytest.raises(VTSumError, match="auto_map"):
        load_clip_text(folder)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("video_preprocessor_config.json", {"auto_map": OWN}),
        ("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_class": "AutoModel"}}),
        ("audio_tokenizer_config.json", {"audio_tokenizer_class": "AutoModel"}),
        ("config.json", {"transformers_weights": "a/model.safetensors"}),
        ("config.json", {"configuration_files": ["config.5.0.0.json"]}),
        ("config.json", {"_attn_implementation_internal": "someone/kernel"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.5.0.0.json"]}),
        ("config.json", {"checkpoint_path": "/home/somebody/model.pth"}),
        ("tokenizer_config.json", {"vocab": "/home/somebody/words.txt"}),
        ("tokenizer_config.json", {"init_inputs": ["/home/somebody/words.txt"]}),
        ("tokenizer_config.json", {"gguf_file": "/home/somebody/model.gguf"}),
        ("special_tokens_map.json", {"vocab": "/home/somebody/words.txt"}),
        ("special_tokens_map.json", {"tokenizer_file": "/home/somebody/tokenizer.json"}),
        ("special_tokens_map.json", {"normalizer_file": "/home/somebody/words.json"}),
        ("preprocessor_config.json", {"class_info_file": "classes.json", "repo_path": "/home/somebody"}),
    ],
)
def test_what_leads_to_code_or_to_files_that_were_not_looked_at_is_refused(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """An audio tokenizer, which no other part needs, had code run that lay beside it."""
    (tmp_path / name).write_text(json.dumps(fields))
    with pytest.raises(VTSumError, match=rf"{name} must .*, got ({next(iter(fields))}|'a/m)"):
        check_folder(tmp_path, "load")


def test_nobody_is_asked_whether_code_may_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks for parts that it was told nothing of; a caller's own checkpoints are none of ours."""
    from transformers import AutoConfig

    asked, answers = list[str](), iter("yn")
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or next(answers))
    folder = asks_for_code(tmp_path / "model", tmp_path / "mark", "config.json", model_type="unheard_of")
    with pytest.raises(VTSumError, match=r"must be a whole checkpoint .* contains custom code"), at_work("x", "load"):
        AutoConfig.from_pretrained(folder)
    assert asked == []
    assert not (tmp_path / "mark").exists()
    next(answers)
    with pytest.raises(ValueError, match="contains custom code"):
        AutoConfig.from_pretrained(folder)
    assert len(asked) == 1


def test_attention_from_the_hub_is_refused(tmp_path: Path) -> None:
    """transformers would fetch the repository that a configuration names, and import what lies there."""
    tiny_blip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["attn_implementation"] = "someone/kernel"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(VTSumError, match="code of transformers, got attn_implementation 'someone/kernel'"):
        load_frame_encoder(str(tmp_path))


NONSENSE = {
    "deep": "[" * 100_000,
    "a list": "[]",
    "401 digits": '{"model_type": "clip", "projection_dim": ' + "9" * 401 + "}",
    "not finite": '{"model_type": "clip", "layer_norm_eps": NaN}',
    "text for numbers": '{"model_type": "clip", "vision_config": {"hidden_size": "wide"}, "image_mean": "grey"}',
    "no object inside": '{"model_type": "clip", "vision_config": [1], "text_config": 3}',
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("config.json", kind) for kind in NONSENSE] + [("preprocessor_config.json", kind) for kind in list(NONSENSE)[:-1]],
)
def test_nonsense_in_a_transformers_folder_is_one_line(name: str, kind: str, tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    (tmp_path / name).write_text(NONSENSE[kind])
    with pytest.raises(VTSumError) as caught:
        load_frame_encoder(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"drop_rate": 5}, "must be a whole checkpoint whose parts fit, got: dropout probability"),
        ({"features_only": True}, "must be a whole checkpoint whose parts fit, got: "),
        ({"layers": [10**4] * 4}, "must have at most 1000 for layers, got 10000"),
    ],
)
def test_arguments_that_a_timm_backbone_does_not_take_are_one_line(
    arguments: dict[str, Any], told: str, tmp_path: Path
) -> None:
    torchvision_free.prepare()
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_args": arguments}))
    with pytest.raises(VTSumError, match=told):
        load_frame_encoder(f"timm:resnet10t@{tmp_path}")


def test_weights_of_another_size_are_told_by_name(tmp_path: Path) -> None:
    video = str(small_clip(tmp_path / "clip.mp4").path)
    tiny_clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["vision_model.post_layernorm.weight"] = torch.zeros(3)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    message = refused("extract", video, "-o", str(tmp_path / "o"), "--encoder", str(tmp_path), names=tmp_path)
    assert "must have weights of the sizes that its configuration states" in message
    assert "1 others, vision_model.post_layernorm.weight of [3] for [" in message


@pytest.mark.parametrize("what", ["weights", "scale"])
def test_features_that_are_no_numbers_are_one_line(what: str, tmp_path: Path) -> None:
    """Written into a feature file in silence, and a summary's "should not have happened"."""
    video = str(small_clip(tmp_path / "clip.mp4").path)
    tiny_clip(tmp_path)
    if what == "weights":
        weights = load_file(tmp_path / "model.safetensors")
        weights["vision_model.post_layernorm.weight"].fill_(torch.nan)
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        told = "features of "
    else:
        (tmp_path / "preprocessor_config.json").write_text('{"image_std": [0, 1, 1]}')
        told = f"image_std of {tmp_path / 'preprocessor_config.json'} must be from 1e-06 to 1e+06"
    message = refused("extract", video, "-o", str(tmp_path / "o"), "--encoder", str(tmp_path), names=tmp_path)
    assert told in message
    assert not list((tmp_path / "o").glob("*.npz"))
    assert told in refused("summarize", video, "-o", str(tmp_path / "s"), "--model", str(tmp_path), names=tmp_path)


@pytest.mark.parametrize("part", ["boundary", "saliency"])
def test_a_models_scores_that_are_no_numbers_are_one_line(part: str, tmp_path: Path) -> None:
    """A saliency of NaN was taken for 0, in silence."""
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if part in name and not name.startswith("saliency."):  # which are looked at when they are loaded
            values.fill_(torch.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    video = str(small_clip(tmp_path / "clip.mp4").path)
    words = ["--model", str(folder), "--no-speech", "--no-ocr"]
    message = refused("summarize", video, "-o", str(tmp_path / "o"), *words, names=folder)
    assert f"of '{folder}' must be finite, got NaN or infinity; are its weights whole?" in message


def test_a_captioners_confidence_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "blip"
    folder.mkdir()
    tiny_blip(folder)
    weights = load_file(folder / "model.safetensors")
    for values in weights.values():
        if values.is_floating_point():
            values.fill_(torch.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    video = str(small_clip(tmp_path / "clip.mp4").path)
    words = ["--captioner", str(folder), "--no-speech", "--no-ocr"]
    message = refused("summarize", video, "-o", str(tmp_path / "o"), *words, names=folder)
    assert (
        f"captioner: '{folder}' must be a whole checkpoint whose parts fit, got: scores of tokens that are no"
        in message
    )


def test_weights_that_are_not_there_are_not_drawn_at_random(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["vision_model.post_layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        VTSumError, match=r"must have all weights of CLIP.* without 1 of them, .*post_layernorm\.weight"
    ):
        load_frame_encoder(str(tmp_path))


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_clip(folder)
    pipe = folder / "model.safetensors"
    pipe.unlink()
    os.mkfifo(pipe)
    video = str(small_clip(tmp_path / "clip.mp4").path)
    message = refused("extract", video, "-o", str(tmp_path / "o"), "--encoder", str(folder), names=pipe)
    assert message.endswith(f"{pipe} must be a file or a folder, got a pipe, a socket or a device")


def test_a_pipe_among_ten_thousand_files_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were as many as are looked at."""
    monkeypatch.setattr("vtsum.model.pretrained._MOST_FILES", 0)
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(VTSumError, match=r"model\.safetensors must be a file or a folder, got a pipe"):
        check_folder(tmp_path, "load")


@pytest.mark.parametrize("name", ["/dev/zero", "../pipe", 5])
def test_weights_that_an_index_has_lie_elsewhere_are_refused(name: Any, tmp_path: Path) -> None:
    """Of /dev/zero was read until memory ended, and a pipe outside the folder was waited for."""
    video = str(small_clip(tmp_path / "clip.mp4").path)
    os.mkfifo(tmp_path / "pipe")
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_clip(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))
    message = refused("extract", video, "-o", str(tmp_path / "o"), "--encoder", str(folder), names=index)
    assert message.endswith(f"{index} must name weights that lie beside it, got {name!r}")


def test_weights_that_unpack_to_more_than_they_are_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "whole.pt")
    read_pt(tmp_path / "whole.pt", "test")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member))
    assert (tmp_path / "a.pt").stat().st_size < 20_000
    with pytest.raises(VTSumError, match=r"a\.pt must be whole and .*, got: \d+ bytes that unpack to"):
        read_pt(tmp_path / "a.pt", "test")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", r"tokenizer\.json must be JSON, got: "),
        ("[1]", r"tokenizer\.json must hold an object, got a list"),
        ('{"model": {"type": "BPE", "vocab": 3}}', "tokenizer must be a transformers checkpoint"),
        ("[" * 100_000, r"tokenizer\.json must be JSON of at most 64 levels"),
    ],
)
def test_nonsense_in_a_tokenizer_is_one_line(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(VTSumError, match=told) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": "32"}, 'VTSumConfig: width must be a whole number, got "32"'),
        ({"width": True}, "width must be a whole number, got true"),
        ({"kernel_size": "x"}, "kernel_size must be a whole number or null, got"),
        ({"dropout": None}, "dropout must be a number, got null"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"depth": 1000}, "depth of .*config.json must fit its weights"),
        ({"depth": 10**15}, "config.json: VTSumConfig: depth must be 0 to 1000, got 10"),
        ({"width": 10**15, "num_heads": 1}, "width of .*config.json must fit its weights"),
        ({"text": {"vocab_size": 10**15}}, "text.vocab_size of .*config.json must fit its weights"),
        ({"text": {"num_layers": 1000}}, "text.num_layers of .*config.json must fit its weights"),
        ({"text": {"num_layers": 10**9}}, "config.json: TextConfig: num_layers must be 1 to 1000, got 10"),
        ({"text": [1]}, "TextConfig: values must be an object"),
    ],
)
def test_nonsense_in_a_models_configuration_is_one_line(changes: Any, message: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    data = json.loads((folder / "config.json").read_text())
    text = data["model"]["text"]
    data["model"] |= changes
    if isinstance(data["model"]["text"], dict):
        data["model"]["text"] = text | data["model"]["text"]
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(VTSumError, match=message):
        VTSum.load_checkpoint(folder)


@pytest.mark.parametrize(("name", "value"), [("auto_map", OWN), ("architecture", "os:system")])
def test_what_a_models_configuration_has_no_place_for_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    """It was passed over: nothing ran, and nobody was told that the folder asks for code."""
    folder = model_folder(tmp_path)
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {name: value}))
    with pytest.raises(VTSumError, match=f"config.json must hold format, class, model and facts alone, got '{name}'"):
        VTSum.load_checkpoint(folder)


WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "VideoXum's": read_weights,
    "BLIP's": lambda path: load_frame_encoder(str(path)),
    "timm's": lambda path: load_frame_encoder(f"timm:resnet10t@{path}"),
    "CLIP's": load_clip_text,
}


@pytest.mark.parametrize("option", ["--model", "--captioner", "--denoiser"])
def test_a_file_for_a_models_folder_is_not_read(option: str, tmp_path: Path) -> None:
    """transformers read it whole, for a configuration, however long; a stranger's analysis may name any file."""
    video, file = str(small_clip(tmp_path / "clip.mp4").path), tmp_path / "film"
    file.write_bytes(b"film")
    said = refused("summarize", video, "-o", str(tmp_path / "o"), "--no-ocr", "-q", option, str(file), names=file)
    assert said.endswith(f": {file} must be a model's folder, got a file")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("reader", WEIGHTS)
def test_weights_that_hold_code_are_refused(reader: str, zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"
    torch.save({"model": {"a": torch.zeros(3)}, "x": Payload(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(VTSumError, match=r"must hold tensors and plain data alone, got posix\.mkdir") as caught:
        WEIGHTS[reader](path)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_weights_of_a_model_folder_that_hold_code_are_refused(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": Payload(tmp_path / "mark")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        VTSumError, match=r"pytorch_model\.bin must hold tensors and plain data alone, got posix\.mkdir"
    ):
        load_frame_encoder(str(tmp_path))
    assert not (tmp_path / "mark").exists()


def test_a_file_of_nothing_but_signs_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is not asked for the file's size at every byte."""
    asked = []
    status = os.fstat
    monkeypatch.setattr("vtsum.model.files.os.fstat", lambda handle: asked.append(handle) or status(handle))
    (tmp_path / "a.pth").write_bytes(b"\x80\x02" + b"]" * 10_000 + b".")
    with pytest.raises(VTSumError, match=r"a\.pth must be whole and written by torch\.save"):
        read_pt(tmp_path / "a.pth", "read")
    assert len(asked) < 100


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for tensor in (torch.zeros(1).expand(10**12), torch.zeros(1).to_sparse(), torch.empty(10**12, device="meta")):
        torch.save({"model": {"a": tensor}}, path)
        with pytest.raises(VTSumError, match=r"weights\.pth must hold whole tensors"):
            read_pt(path, "load")


def test_a_timm_folder_says_what_the_model_is_and_nothing_else(tmp_path: Path) -> None:
    torchvision_free.prepare()
    pytest.importorskip("timm", reason="timm is not installed")
    torch.save({"a": Payload(tmp_path / "mark")}, tmp_path / "other.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    for config, message in (
        ({"model_args": {"checkpoint_path": str(tmp_path / "other.pth")}}, "name no other .*, got checkpoint_path"),
        ({"model_args": {"pretrained": True}}, "must be the model's, got pretrained"),
        ({"model_args": [1]}, "model_args of .*config.json must be an object"),
        ({"pretrained_cfg": "x"}, "pretrained_cfg of .*config.json must be an object"),
        ({"model_args": {"no_such": 1}}, "must hold weights of 'resnet10t', got: "),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(VTSumError, match=message):
            load_frame_encoder(f"timm:resnet10t@{tmp_path}")
    assert not (tmp_path / "mark").exists()


def test_a_model_that_names_itself_as_its_encoder_is_refused(tmp_path: Path) -> None:
    """Each would load the next, until memory or patience ends."""
    for name, other in (("a", "b"), ("b", "a/../a")):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("model.safetensors", "vocab.txt"):
            (folder / file).symlink_to(EMBEDDED / file)
        data = json.loads((EMBEDDED / "config.json").read_text())
        data["model"]["frame_encoder"] = str(tmp_path / other)
        (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(VTSumError, match="must name a frame encoder, got a model that names itself"):
        load_frame_encoder(str(tmp_path / "a"))


def test_a_tokenizer_without_its_words_is_refused(tmp_path: Path) -> None:
    """transformers makes one to which every text is empty, and a summary's sentences would be lost in silence."""
    from transformers import BertTokenizer

    BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "dog": 5}).save_pretrained(
        tmp_path
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip"}))
    assert "dog" in load_tokenizer(str(tmp_path)).get_vocab()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(VTSumError, match="its tokenizer has no words"):
        load_tokenizer(str(tmp_path))


def test_commands_refuse_a_strangers_model(tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4").path
    mark = tmp_path / "mark"
    folder = asks_for_code(tmp_path / "model", mark, "config.json", model_type="unheard_of")
    words = ["summarize", str(clip), "-o", str(tmp_path / "out"), "--model", str(folder)]
    assert "auto_map" in refused(*words, names=folder / "config.json")
    torch.save({"model": Payload(mark)}, tmp_path / "blip.pth")
    words = ["extract", str(clip), "-o", str(tmp_path / "features"), "--encoder", str(tmp_path / "blip.pth")]
    refused(*words, names=tmp_path / "blip.pth")
    assert not mark.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blip.pth", "clip.mp4", "model"]


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_weights_that_are_no_file_are_not_waited_for(kind: str, tmp_path: Path) -> None:
    for path in (tmp_path / "model.safetensors", tmp_path / "state.pt"):
        if kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
    with pytest.raises(VTSumError, match=r"push: .*model\.safetensors must be a regular file, got something else"):
        read_safetensors(tmp_path / "model.safetensors", "push")
    with pytest.raises(VTSumError, match=r"train: .*state\.pt must be a regular file, got something else"):
        read_pt(tmp_path / "state.pt", "train")


def test_a_link_that_leads_nowhere_is_no_name_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    with pytest.raises(VTSumError, match="'loop' must be a folder or a name of the hub, got a symbolic link"):
        Seq2SeqDenoiser("loop")
