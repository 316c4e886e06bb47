"""Model folders and transformers checkpoints: what was saved comes back, what is broken is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vtsum.test_model import small_model
from vtsum.errors import VTSumError
from vtsum.model import load
from vtsum.model.checkpoint import config_text, pack
from vtsum.model.embedded_encoder import EmbeddedEncoder
from vtsum.model.files import save_safetensors
from vtsum.model.frame_encoder import EmbeddedFrameEncoder
from vtsum.model.summarizer import join_signs, resize
from vtsum.model.vtsum import VTSum


def model_folder(tmp_path: Path) -> Path:
    """A small model with an (untrained) embedded encoder, written as training writes it."""
    model = small_model(tmp_path, frame_encoder="embedded", width=256, num_heads=4)
    torch.manual_seed(5)
    save_safetensors(pack(model, EmbeddedEncoder()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config_text(model.config, {"trained": "never"}))
    return tmp_path


def test_a_saved_model_comes_back(tmp_path):
    summarizer = load(str(model_folder(tmp_path)))
    original = small_model(tmp_path, frame_encoder="embedded", width=256, num_heads=4)
    for (name, a), b in zip(original.state_dict().items(), summarizer.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg=name)
    assert summarizer.facts == {"trained": "never"}
    assert len(summarizer.weights_sha256) == 64
    assert not summarizer.text_is_guess

    images = np.random.default_rng(0).integers(0, 255, (9, 128, 128, 3), dtype=np.uint8)
    features = summarizer.encode(images)
    assert features.shape == (9, 256)
    np.testing.assert_allclose(summarizer.encode(images[3:4]), features[3:4], atol=1e-4)
    saliency = summarizer.saliency(features)
    assert saliency.shape == (9,)
    assert ((saliency > 0) & (saliency < 1)).all()
    assert saliency.std() > 0
    assert summarizer.saliency(features[:0]).shape == (0,)
    sentences = summarizer.describe(features, [(0, 4), (4, 9)])
    assert len(sentences) == 2
    assert all(0 <= s.confidence <= 1 for s in sentences)
    assert summarizer.describe(features, []) == []


def test_fusing_the_norms_changes_nothing():
    torch.manual_seed(0)
    network = EmbeddedEncoder()
    x = torch.rand(4, 3, 128, 128)
    network.train()(x)  # gives the norms statistics of their own
    network.eval()
    with torch.no_grad():
        before = network(x)
        after = network.fuse()(x)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_broken_folders_are_named(tmp_path):
    folder = model_folder(tmp_path)
    weights, config = folder / "model.safetensors", folder / "config.json"
    good_weights, good_config = weights.read_bytes(), config.read_text()

    for name in ("vocab.txt", "config.json", "model.safetensors"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(VTSumError, match=rf"got no {name}"):
            VTSum.load_checkpoint(folder)
        os.mkfifo(folder / name)
        with pytest.raises(VTSumError, match=rf"got something else than a file as {name}"):
            VTSum.load_checkpoint(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(content)

    weights.write_bytes(good_weights[: len(good_weights) // 2])
    with pytest.raises(VTSumError, match=r"model\.safetensors must be a safetensors file"):
        VTSum.load_checkpoint(folder)
    weights.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a command
    with pytest.raises(VTSumError, match="must be a safetensors file"):
        VTSum.load_checkpoint(folder)
    weights.write_bytes(good_weights)

    config.write_text("{")
    with pytest.raises(VTSumError, match=r"config\.json must be JSON"):
        VTSum.load_checkpoint(folder)
    config.write_text(json.dumps({"format": "other/3"}))
    with pytest.raises(VTSumError, match="must be 'vtsum-model/1', got 'other/3'"):
        VTSum.load_checkpoint(folder)
    changed = json.loads(good_config)
    changed["model"]["memory_slots"] = 0
    config.write_text(json.dumps(changed))
    with pytest.raises(VTSumError, match=r"unexpected \['memory"):
        VTSum.load_checkpoint(folder)
    config.write_text(good_config)
    VTSum.load_checkpoint(folder)


def test_unknown_names(tmp_path):
    with pytest.raises(VTSumError, match=r"model must be one of embedded, blip.*got 'nonsense'"):
        load("nonsense")
    with pytest.raises(VTSumError, match=r"got no config\.json"):
        load(str(tmp_path))
    with pytest.raises(VTSumError, match="must be those of the embedded encoder"):
        EmbeddedFrameEncoder({})


def tiny_blip(folder: Path) -> None:
    """A BLIP captioning checkpoint in transformers' format, every size cut down."""
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "man", "runs", "dog", "."]
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(vocab=str(folder / "words.txt"))
    tokenizer.save_pretrained(folder)
    text = {"vocab_size": 11, "hidden_size": 16, "encoder_hidden_size": 24, "intermediate_size": 16,
            "projection_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
            "bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16)
    blip = BlipForConditionalGeneration(config)
    for parameter in blip.vision_model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # so that pictures differ, and a norm applied twice would show
    blip.save_pretrained(folder)


def tiny_clip(folder: Path) -> None:
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8, "projection_dim": 20}  # fmt: skip
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    CLIPModel(config).save_pretrained(folder)
    settings = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(("make", "dim"), [(tiny_blip, 24), (tiny_clip, 20)])
def test_transformers_checkpoints_serve_as_encoders(tmp_path, make, dim):
    make(tmp_path)
    summarizer = load(str(tmp_path))
    assert summarizer.image_size == 32
    images = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    features = summarizer.encode(images)
    events = summarizer.event_features(features)
    assert events.shape == (5, dim)

    # The same numbers as the checkpoint's own class gives for the same pixels.
    if make is tiny_blip:
        from transformers import BlipForConditionalGeneration

        mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
        reference = BlipForConditionalGeneration.from_pretrained(tmp_path).eval().vision_model
    else:
        from transformers import CLIPModel

        mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
        reference = CLIPModel.from_pretrained(tmp_path).eval()
    pixels = torch.from_numpy(((images / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        if make is tiny_blip:
            expected = reference(pixel_values=pixels).last_hidden_state[:, 0]
            twice = reference(pixel_values=pixels).pooler_output
            assert (twice - expected).abs().max() > 0.1
        else:
            expected = reference.get_image_features(pixel_values=pixels).pooler_output
    np.testing.assert_allclose(events, expected.numpy(), atol=1e-4)

    # Saliency is the embedded model's, on its own features of the same pictures.
    embedded = load("embedded")
    np.testing.assert_allclose(
        summarizer.saliency(features), embedded.saliency(embedded.encode(resize(images, 128))), atol=1e-5
    )
    sentences = summarizer.describe(features, [(0, 2), (2, 5)], [images[0], images[3]])
    assert len(sentences) == 2
    assert summarizer.text_is_guess == (make is tiny_clip)
    if make is tiny_blip:
        with pytest.raises(VTSumError, match="key_frames must hold one picture a span"):
            summarizer.describe(features, [(0, 2)])


def test_checkpoints_that_cannot_be_had_are_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(VTSumError, match="must be a BLIP or CLIP checkpoint"):
        load(str(tmp_path))
    tiny_clip(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(VTSumError, match="must be a transformers checkpoint") as error:
        load(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a man ' s dog , and a cat .", "a man's dog, and a cat."),
        (" black - and - white ; it  ends", "black-and-white; it ends"),
        ("", ""),
    ],
)
def test_signs_are_joined(words, text):
    assert join_signs(words) == text


def test_resize_averages():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, :, ::2] = 200
    np.testing.assert_allclose(resize(image, 2), 100, atol=12)
    assert (resize(np.full((2, 7, 5, 3), 77, np.uint8), 16) == 77).all()
