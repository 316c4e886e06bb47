"""Frame encoders by name: timm's backbones, the embedded one, and models that were trained on either."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from vtsum_kernels.integrations import torchvision_free

from tests.vtsum.test_checkpoint import tiny_clip
from tests.vtsum.test_model import small_model
from vtsum.errors import VTSumError
from vtsum.model import FrameEncoder, load, load_frame_encoder

torchvision_free.prepare()
timm = pytest.importorskip("timm")


def pictures(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A random resnet10t with its classifier, in the folder that timm itself would push to the hub."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=7)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    network.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7), input_size=(3, 64, 64))
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return folder, network.eval()


def test_a_timm_backbone_from_its_own_folder(resnet):
    folder, network = resnet
    name = f"timm:resnet10t@{folder}"
    encoder = load_frame_encoder(name)
    assert (encoder.name, encoder.image_size, encoder.dim) == (name, 64, 512)
    images = pictures(3, 64)
    pixels = (images / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.9, 0.8, 0.7])
    with torch.no_grad():
        features = network.forward_features(torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
        expected = network.forward_head(features, pre_logits=True)
    found = encoder.encode(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.std(0).max() > 1e-3
    assert load_frame_encoder(name).weights_sha256 == encoder.weights_sha256
    other = load_frame_encoder(name)
    other.network.conv1[0].weight.data[0] += 1
    assert other.weights_sha256 != encoder.weights_sha256


def test_timms_pretrained_weights_come_from_the_hubs_cache(tmp_path, monkeypatch):
    torch.manual_seed(1)
    network = timm.create_model("resnet10t").eval()
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / ("models--" + network.pretrained_cfg["hf_hub_id"].replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    timm.models.save_for_hf(network, repository / "snapshots" / commit, safe_serialization=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = load_frame_encoder("timm:resnet10t")
    assert (encoder.image_size, encoder.dim) == (176, 512)
    images = pictures(2, 176)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's
    with torch.no_grad():
        pixels = torch.from_numpy((images / 255 - mean) / std).float().permute(0, 3, 1, 2)
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(encoder.encode(images), expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_timm_backbone_from_one_file(tmp_path, suffix):
    """A vision transformer, with the picture size and colours that timm gives for its name."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224").eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    else:
        save_file(network.state_dict(), path)
    encoder = load_frame_encoder(f"timm:vit_tiny_patch16_224@{path}")
    assert (encoder.image_size, encoder.dim) == (224, 192)
    images = pictures(2, 224)
    with torch.no_grad():
        pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 127.5 - 1  # this model's mean and std are 0.5
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(encoder.encode(images), expected, atol=1e-4)
    with pytest.raises(VTSumError, match=r"images must be uint8 \[N, 224, 224, 3\], got uint8 \[2, 64, 64, 3\]"):
        encoder.encode(pictures(2, 64))


def test_what_timm_cannot_give_is_one_line(tmp_path, resnet, monkeypatch):
    def refused(name: str, message: str) -> None:
        with pytest.raises(VTSumError, match=message) as error:
            load_frame_encoder(name)
        assert "\n" not in str(error.value)

    refused("timm:no_such_model", "timm:no_such_model must be a timm model whose pretrained weights .*Unknown model")
    refused(f"timm:no_such_model@{resnet[0]}", "must hold weights of 'no_such_model', got: Unknown model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refused(
        "timm:resnet10t", r"lie in the local cache or can be fetched, got: .+; or give weights .* timm:resnet10t@PATH"
    )
    refused(f"timm:resnet10t@{tmp_path}", r"must be a file or folder, got no .*model\.safetensors")
    refused(f"timm:resnet18@{resnet[0]}", r"must hold weights of 'resnet18', (missing|got: )")
    save_file({"fc.weight": torch.zeros(7, 512)}, tmp_path / "few.safetensors")
    refused(f"timm:resnet10t@{tmp_path}/few.safetensors", r"must hold weights of 'resnet10t', missing \['conv1")
    (tmp_path / "bad.safetensors").write_text("hello")
    refused(f"timm:resnet10t@{tmp_path}/bad.safetensors", r"bad\.safetensors must be a safetensors file, got: ")
    torch.save({"state_dict": Path}, tmp_path / "bad.pth")  # a pickle of more than weights
    refused(f"timm:resnet10t@{tmp_path}/bad.pth", r"bad\.pth must hold tensors and plain data alone, got ")


def test_models_trained_on_a_timm_backbone_summarize(tmp_path, resnet):
    name = f"timm:resnet10t@{resnet[0]}"
    model = small_model(tmp_path, frame_encoder=name, width=512)
    model.save_pretrained(tmp_path / "model")
    summarizer = load(str(tmp_path / "model"))
    assert (summarizer.encoder.name, summarizer.image_size, summarizer.embedded) == (name, 64, False)
    features = summarizer.encode(pictures(6, 64))
    np.testing.assert_allclose(features, load_frame_encoder(name).encode(pictures(6, 64)), atol=1e-5)
    with torch.no_grad():
        expected = model(torch.from_numpy(features)[None]).saliency_logits[0].sigmoid()
    np.testing.assert_allclose(summarizer.saliency(features), expected, atol=1e-6)
    assert len(summarizer.describe(features, [(0, 3), (3, 6)])) == 2
    same = load_frame_encoder(str(tmp_path / "model"))
    assert (same.name, same.weights_sha256) == (name, summarizer.encoder.weights_sha256)

    small_model(tmp_path, frame_encoder=name).save_pretrained(tmp_path / "narrow")
    with pytest.raises(VTSumError, match="dimension must be the model's width 32, got 512 from 'timm:resnet10t@"):
        load(str(tmp_path / "narrow"))


def test_models_trained_on_embedded_features_find_their_encoder(tmp_path):
    """Training reads feature files and has no encoder to save: the shipped one made the features."""
    small_model(tmp_path, frame_encoder="embedded", width=256).save_pretrained(tmp_path / "model")
    encoder = load_frame_encoder("embedded")
    shipped = load("embedded")
    summarizer = load(str(tmp_path / "model"))
    images = pictures(3, 128)
    for other in (summarizer, shipped):
        np.testing.assert_array_equal(other.encode(images), encoder.encode(images))
        assert other.encoder.weights_sha256 == encoder.weights_sha256
    assert (encoder.name, encoder.dim, encoder.image_size) == ("embedded", 256, 128)


def test_encoders_by_name(tmp_path):
    tiny_clip(tmp_path)
    encoder: FrameEncoder = load_frame_encoder(str(tmp_path))
    assert (encoder.dim, encoder.image_size) == (20, 32)
    assert len(encoder.weights_sha256) == 64
    names = "embedded, blip, blip-large, clip, clip-large, timm:NAME, a folder, a file, a hub name or module:Class"
    with pytest.raises(VTSumError, match=f"name must be one of {names} of your own, got 'blib'"):
        load_frame_encoder("blib")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(VTSumError, match="must be a BLIP or CLIP checkpoint"):
        load_frame_encoder(str(tmp_path))
