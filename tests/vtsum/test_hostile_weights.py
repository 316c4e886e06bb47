"""Weights of a stranger that are quantised, adapted, or said to lie at another source: one line each, nothing looked
up, and no pattern of theirs searched for."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from vtsum_kernels.integrations import torchvision_free

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT, changed_json, refused
from tests.vtsum.samples import small_clip
from tests.vtsum.test_checkpoint import model_folder, tiny_blip, tiny_clip
from tests.vtsum.videoxum_corpus import write_corpus, write_model
from vtsum.errors import VTSumError
from vtsum.model.encoders import load_frame_encoder
from vtsum.model.files import as_floats, read_safetensors
from vtsum.model.pretrained import check_config, check_folder
from vtsum.model.stored import check_stored
from vtsum.model.timm_encoder import TimmFrameEncoder

ENDLESS = "((([a-z]|[a-z_.])+)+)+!"  # backtracks for as many steps as a layer's name has subsets


@pytest.mark.parametrize(
    "how",
    [
        {"quant_method": "gemma", "modules_to_not_convert": [ENDLESS]},
        {"quant_method": "gemma", "module_quant_configs": {ENDLESS: {"num_bits": 4}}},
        {"load_in_4bit": True, "llm_int8_skip_modules": [ENDLESS]},
    ],
)
def test_patterns_of_quantised_weights_are_not_searched_for(how: dict[str, Any], tmp_path: Path) -> None:
    """transformers searched the layers' names for them, without an end."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_blip(folder)
    changed_json(folder, "config.json", quantization_config=how)
    small_clip(video := tmp_path / "clip.mp4")
    said = refused("extract", str(video), "-o", str(tmp_path / "feats"), "--encoder", str(folder), names=folder)
    assert "quantization_config" in said


@pytest.mark.parametrize(
    "method", ["eetq", "mxfp4", "fp8", "fbgemm_fp8", "metal", "gguf", "torchao", "unheard_of", 7, None]
)
def test_quantised_weights_ask_for_no_code_of_the_hub(method: Any) -> None:
    """Where the package kernels is installed, transformers fetches compiled code for some of these."""
    for config in (
        {"quantization_config": {"quant_method": method}},
        {"text_config": {"quantization_config": {"quant_method": method}}},
    ):
        with pytest.raises(
            VTSumError, match="must be of weights as they are, or of bitsandbytes', got quantization_config"
        ):
            check_config(config, "load: config.json")
    for other in ("fp8", ["gptq"]):
        with pytest.raises(VTSumError, match="must be of weights as they are"):
            check_config({"quantization_config": other}, "load: config.json")


def test_weights_that_are_not_quantised_or_by_bitsandbytes_are_not_refused_for_it() -> None:
    check_config({"quantization_config": None}, "load")
    known = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "llm_int8_skip_modules": ["lm_head", "model.vision-1"],
    }
    check_config({"quantization_config": known}, "load")


@pytest.mark.parametrize("content", [{"base_model_name_or_path": "someone/else"}, {"megatron_core": "own"}, {}])
def test_an_adapter_is_no_model(content: dict[str, Any], tmp_path: Path) -> None:
    """Without peft it was passed over in silence; peft imports what its configuration names."""
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(VTSumError, match=r"must hold a whole model, got an adapter \(adapter_config.json\)"):
        check_folder(tmp_path, "load")


@pytest.mark.parametrize("source", ["local-dir", "hf-hub", "hf_hub", "LOCAL-DIR"])
def test_a_backbone_of_timm_is_of_no_other_source(source: str, tmp_path: Path) -> None:
    """A model's config.json named a folder, whose configuration and weights timm read by itself, unchecked."""
    torchvision_free.prepare()
    pytest.importorskip("timm", reason="timm is not installed")
    folder = tmp_path / "model"
    folder.mkdir()
    model_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    config["model"]["frame_encoder"] = f"timm:{source}:{tmp_path}/other"
    (folder / "config.json").write_text(json.dumps(config))
    other = tmp_path / "other"
    small_clip(video := tmp_path / "clip.mp4")
    said = refused("extract", str(video), "-o", str(tmp_path / "feats"), "--encoder", str(folder), names=other)
    assert "must be timm:NAME, of a model that timm knows, or timm:NAME@FOLDER, got another source" in said


def recast(path: Path, kind: torch.dtype, metadata: dict[str, str] | None = None) -> None:
    """Let the weights of a file be numbers of another kind."""
    save_file({name: value.to(kind) for name, value in load_file(path).items()}, path, metadata)


def test_a_model_holds_no_tensors_of_other_names(tmp_path: Path) -> None:
    """What is in none of its parts was left out in silence, as of a file of which a prefix was lost."""
    corpus, model = write_corpus(tmp_path / "data", 2, clip=False), write_model(tmp_path / "net")
    path = model / "model.safetensors"
    save_file({**load_file(path), "other.weight": torch.zeros(2)}, path)
    words = ["--checkpoint", str(model), "--data", str(corpus), "-o", str(tmp_path / "e.json")]
    said = refused("evaluate", *words, "--caption_tokenizer", "plain", "--device", "cpu", names=model)
    assert said.endswith("must hold tensors named model.*, encoder.*, saliency.* alone, got ['other.weight']")


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64], ids=str)
def test_a_models_weights_are_floating_point_numbers(kind: torch.dtype, tmp_path: Path) -> None:
    """Of quantised ones the scales were left out in silence, of complex ones a half."""
    corpus, model = write_corpus(tmp_path / "data", 2, clip=False), write_model(tmp_path / "net")
    recast(model / "model.safetensors", kind)
    words = ["--checkpoint", str(model), "--data", str(corpus), "-o", str(tmp_path / "e.json")]
    said = refused("evaluate", *words, "--caption_tokenizer", "plain", "--device", "cpu", names=model)
    assert said.endswith(f"must be floating point numbers, got {str(kind).removeprefix('torch.')}")


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64], ids=str)
def test_weights_of_a_transformers_folder_are_floating_point_numbers(kind: torch.dtype, tmp_path: Path) -> None:
    """transformers takes the one for the other in silence."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_blip(folder)
    recast(folder / "model.safetensors", kind, {"format": "pt"})
    small_clip(video := tmp_path / "clip.mp4")
    said = refused("extract", str(video), "-o", str(tmp_path / "feats"), "--encoder", str(folder), names=folder)
    assert "must have floating point numbers for weights, got " in said


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_that_torch_saved_in_a_transformers_folder_are_floating_point_numbers(
    sharded: bool, tmp_path: Path
) -> None:
    """Those alone were not looked at where there was nothing else."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_blip(folder)
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name = "weights.part" if sharded else "pytorch_model.bin"
    small_clip(video := tmp_path / "clip.mp4")
    if sharded:
        index = {"metadata": {}, "weight_map": dict.fromkeys(whole, name)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    torch.save({key: value.to(torch.int8) for key, value in whole.items()}, folder / name)
    said = refused("extract", str(video), "-o", str(tmp_path / "feats"), "--encoder", str(folder), names=folder)
    assert "must have floating point numbers for weights, got " in said
    torch.save(whole, folder / name)
    load_frame_encoder(str(folder))


def test_weights_of_a_timm_model_are_floating_point_numbers(tmp_path: Path) -> None:
    torchvision_free.prepare()
    timm = pytest.importorskip("timm", reason="timm is not installed")
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    for kind, taken in ((torch.float16, True), (torch.int8, False)):
        save_file({name: value.to(kind) for name, value in state.items()}, tmp_path / "w.safetensors")
        if taken:
            TimmFrameEncoder(f"timm:test_vit@{tmp_path / 'w.safetensors'}")
            continue
        with pytest.raises(VTSumError, match="must be floating point numbers, got int8"):
            TimmFrameEncoder(f"timm:test_vit@{tmp_path / 'w.safetensors'}")


def test_counts_of_a_network_are_whole_numbers() -> None:
    assert as_floats("encoder.norm.num_batches_tracked", torch.tensor(7), "load").item() == 7


def test_what_the_hubs_client_tells_of_a_refusal_is_left_out() -> None:
    """It told of each attempt, in lines of their own before the one that says why."""
    code = """
from huggingface_hub.utils.logging import get_logger
from vtsum.model.pretrained import told_if_well
told = get_logger("huggingface_hub.utils._http").warning
told("before")
with told_if_well():
    told("of what went well")
try:
    with told_if_well():
        told("Retrying in 1s [Retry 1/5].")
        raise ValueError
except ValueError:
    told("after")
"""
    done = forked.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, input="", timeout=240)
    assert done.stderr.split("\n") == ["before", "of what went well", "after", ""]


def test_what_torch_warns_of_stands_beside_no_refusal(tmp_path: Path) -> None:
    """Of sizes of 0 it warns on two lines, whichever line follows."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_blip(folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["patch_size"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    small_clip(video := tmp_path / "clip.mp4")
    words = ["extract", video, "-o", tmp_path / "feats", "--encoder", folder]
    done = forked.run([sys.executable, "-m", "vtsum.cli", *words], cwd=ROOT, env=ENVIRONMENT, timeout=240)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.mark.parametrize("layers", [1, 0, -3])
def test_layers_that_a_towers_configuration_leaves_out_are_told(layers: int, tmp_path: Path) -> None:
    """They were left out in silence: features of half a network, or of none."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_clip(folder)
    small_clip(video := tmp_path / "clip.mp4")
    load_frame_encoder(str(folder))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config))
    said = refused("extract", str(video), "-o", str(tmp_path / "feats"), "--encoder", str(folder), names=folder)
    assert "must have as many layers as its configuration states, got " in said
    assert "vision_model.encoder.layers." in said


@pytest.mark.parametrize("command", ["extract", "summarize"])
def test_layers_that_the_configuration_of_a_blip_leaves_out_are_told(command: str, tmp_path: Path) -> None:
    """transformers told of them in many lines, and the model worked without."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_blip(folder)
    path = folder / "model.safetensors"
    weights = load_file(path)
    last = "vision_model.encoder.layers.99.mlp.fc1.bias"
    save_file(weights | {last: torch.zeros(8)}, path, {"format": "pt"})
    small_clip(video := tmp_path / "clip.mp4")
    option = ["--encoder"] if command == "extract" else ["--no-ocr", "--no-speech", "--captioner"]
    words = [command, str(video), "-o", str(tmp_path / "out"), *option, str(folder)]
    assert f"with 1 weights besides, {last} the first" in refused(*words, names=folder)


def test_parts_of_a_blip_that_are_not_wanted_are_not_refused(tmp_path: Path) -> None:
    """As BLIP's checkpoints for questions have them."""
    tiny_blip(tmp_path)
    path = tmp_path / "model.safetensors"
    more = {"text_encoder.encoder.layer.0.output.dense.bias": torch.zeros(8), "itm_head.bias": torch.zeros(2)}
    save_file(load_file(path) | more | {"text_decoder.bert.embeddings.position_ids": torch.arange(8)}, path)
    assert load_frame_encoder(str(tmp_path), device="cpu").dim > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("suppress_tokens", [5] * 10_001),
        ("bad_words_ids", [[5] * 101] * 100),
        ("sequence_bias", [[[5], 0.5]] * 5001),
        ("stop_strings", ["a" * 10_001]),
    ],
)
def test_tokens_that_are_not_to_be_chosen_have_an_end(key: str, value: Any) -> None:
    """A writer took 18 s for 3, for there were 100,000."""
    with pytest.raises(VTSumError, match=f"config must have at most 10,000 tokens for {key}, got 10,"):
        check_config({"generation_config": {key: value}}, "config")
    check_config({key: value[:90] if len(value) > 90 else [[5]]}, "config")


def test_weights_that_may_not_be_read_are_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no such file, safetensors said."""
    (path := tmp_path / "model.safetensors").touch()

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("vtsum.model.files.open", denied, raising=False)  # as for all but root
    said = r"load: .*model\.safetensors must be a file that may be read: Permission denied$"
    with pytest.raises(VTSumError, match=said):
        read_safetensors(path, "load")
    with pytest.raises(VTSumError, match=said):
        check_stored(tmp_path, "model", "load")
