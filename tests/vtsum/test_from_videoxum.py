"""The original project's checkpoints: read by their own names, they give the original model's own numbers."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vtsum.errors import VTSumError
from vtsum.model import VTSum, load_frame_encoder
from vtsum.model.blip_vision import PREFIX, vision_model
from vtsum.model.videoxum_checkpoint import our_name, read_weights

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "video", "of", "man", "dog", "runs", "."]
WIDTH, HEADS, HIDDEN = 32, 4, 16


def golden_model(folder: Path, kernel_size: int | None, loss_type: str = "cross_entropy") -> VTSum:
    checkpoint, words = folder / "vtsum_tiny_tt_ca_fp16.pth", folder / "vocab.txt"
    options = {"loss_type": loss_type, "loss_mean": "released"}
    return VTSum.from_videoxum(checkpoint, words, kernel_size, text_num_heads=4, **options)


@pytest.mark.parametrize("loss_type", ["cross_entropy", "l2"])
@pytest.mark.parametrize(("key", "kernel_size"), [("tt", None), ("tt_ca", 5)])
def test_agrees_with_the_original_model(shared, key, kernel_size, loss_type):
    folder = shared / "golden" / "vtsum"
    golden = torch.load(folder / "golden.pt", weights_only=True)
    inputs, expected = golden["inputs"], golden[key]
    model = golden_model(folder, kernel_size, loss_type)
    mask = inputs["video_mask"].bool()
    out = model(inputs["video_embeddings"], mask, inputs["vsum_labels"].float(), inputs["tsum_labels"])
    torch.testing.assert_close(out.saliency_logits[mask], expected["saliency_scores"][mask], atol=1e-4, rtol=0)
    torch.testing.assert_close(out.loss_vsum, expected[f"loss_vsum_{loss_type}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(out.loss_tsum, expected["loss_tsum"], atol=1e-5, rtol=0)
    torch.testing.assert_close(out.loss, 15 * out.loss_vsum + out.loss_tsum)
    assert torch.equal(out.decoder_targets, expected["decoder_targets"])
    read = expected["text_attention_mask"].bool()
    torch.testing.assert_close(out.text_logits[read], expected["decoder_logits"][read], atol=1e-4, rtol=0)

    long = inputs["video_embeddings_600"]  # more frames than positions
    found = model(long).saliency_logits
    torch.testing.assert_close(found, expected["saliency_scores_600"], atol=1e-4, rtol=0)

    (out.loss_vsum + out.loss_tsum).backward()  # the recorded gradients are those of the plain sum
    norms, gradients = expected[f"gradnorm_{loss_type}"], expected[f"grads_{loss_type}"]
    assert len(norms) >= 66
    for name, norm in norms.items():
        gradient = model.get_parameter(str(our_name(name))).grad
        assert gradient is not None, name
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), name
    for name, wanted in gradients.items():
        gradient = model.get_parameter(str(our_name(name))).grad
        assert gradient is not None
        assert (gradient - wanted).norm() <= 1e-4 * wanted.norm() + 1e-7, name


@pytest.mark.parametrize(("key", "kernel_size"), [("tt", None), ("tt_ca", 5)])
def test_writes_the_original_models_sentences(shared, key, kernel_size):
    folder = shared / "golden" / "vtsum"
    golden = torch.load(folder / "golden.pt", weights_only=True)
    model = golden_model(folder, kernel_size)
    inputs = golden["inputs"]
    recorded = [name for name in golden[key] if name.startswith("generate_")]
    assert len(recorded) == 3
    for name in recorded:
        beams, longest, shortest, penalty = (part.lstrip("abeginmrtxp") for part in name.split("_")[1:])
        texts, ids, saliency = model.generate(
            inputs["video_embeddings"],
            inputs["video_mask"],
            num_beams=int(beams),
            max_length=int(longest),
            min_length=int(shortest),
            repetition_penalty=float(penalty),
        )
        assert torch.equal(ids, golden[key][name]["ids"]), name
        assert texts == golden[key][name]["texts"]
        mask = inputs["video_mask"].bool()
        torch.testing.assert_close(saliency[mask], golden[key]["saliency_scores"][mask], atol=1e-4, rtol=0)


def test_the_vision_transformer_agrees_with_the_originals(shared):
    golden = torch.load(shared / "golden" / "vtsum" / "golden_vit.pt", weights_only=True)
    network = vision_model(golden["state_dict"], golden["config"]["num_attention_heads"])
    with torch.no_grad():
        found = network(pixel_values=golden["pixel_values"]).last_hidden_state
    torch.testing.assert_close(found, golden["last_hidden_state"], atol=1e-4, rtol=0)


def random_checkpoint(*, blip: bool = False, local: bool = True) -> dict[str, Tensor]:
    """Small weights under the original's names, or BLIP's."""
    generator = torch.Generator().manual_seed(11)

    def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
        return {f"{name}.weight": random(rows, columns), f"{name}.bias": random(rows)}

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + random(width), f"{name}.bias": random(width)}

    def attention(name: str) -> dict[str, Tensor]:
        return linear(f"{name}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{name}.attn.proj", WIDTH, WIDTH)

    bert, layer = "text_decoder.bert.embeddings", "text_decoder.bert.encoder.layer.0"
    head = "text_decoder.cls.predictions"
    words = len(WORDS) + 2
    state = {
        f"{bert}.position_ids": torch.arange(24)[None],
        f"{bert}.word_embeddings.weight": random(words, HIDDEN),
        f"{bert}.position_embeddings.weight": random(24, HIDDEN),
        **norm(f"{bert}.LayerNorm", HIDDEN),
        **linear(f"{layer}.intermediate.dense", 24, HIDDEN),
        **linear(f"{layer}.output.dense", HIDDEN, 24),
        **norm(f"{layer}.output.LayerNorm", HIDDEN),
        f"{head}.bias": random(words),
        **linear(f"{head}.transform.dense", HIDDEN, HIDDEN),
        **norm(f"{head}.transform.LayerNorm", HIDDEN),
    }
    for kind, read in (("attention", HIDDEN), ("crossattention", HIDDEN if blip else WIDTH)):
        state |= linear(f"{layer}.{kind}.self.query", HIDDEN, HIDDEN)
        state |= linear(f"{layer}.{kind}.self.key", HIDDEN, read) | linear(f"{layer}.{kind}.self.value", HIDDEN, read)
        state |= linear(f"{layer}.{kind}.output.dense", HIDDEN, HIDDEN)
        state |= norm(f"{layer}.{kind}.output.LayerNorm", HIDDEN)
    state[f"{head}.decoder.weight"] = state[f"{bert}.word_embeddings.weight"]
    if blip:
        return state
    state |= {"position_embeddings.weight": random(24, WIDTH), **linear("vsum_head.0", 1, WIDTH)}
    for depth in range(2):
        block = f"tt.blocks.{depth}"
        state |= norm(f"{block}.norm1", WIDTH) | attention(block) | norm(f"{block}.norm2", WIDTH)
        state |= linear(f"{block}.mlp.fc1", 2 * WIDTH, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 2 * WIDTH)
    state |= norm("tt.norm", WIDTH)
    if local:
        state |= norm("local_atten_head.norm1", WIDTH) | attention("local_atten_head")
    return state


def read(
    tmp_path: Path, data: Any, words: Sequence[str] = WORDS, name: str = "checkpoint.pth", **options: Any
) -> VTSum:
    torch.save(data, tmp_path / name)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    options = {"num_heads": HEADS, "text_num_heads": 2} | options
    return VTSum.from_videoxum(tmp_path / name, tmp_path / "vocab.txt", **options)


def test_training_checkpoints_are_read_with_all_that_lies_beside_the_weights(tmp_path):
    state = random_checkpoint()
    beside = {"optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}, "config": {"vit": "base"}, "epoch": 3}
    model = read(tmp_path, {"model": {f"module.{k}": v.half() for k, v in state.items()}, **beside})
    config = model.config
    assert (config.width, config.depth, config.mlp_ratio, config.kernel_size) == (WIDTH, 2, 2, 5)
    assert (config.memory_slots, config.max_positions, config.max_text_length) == (0, 24, 24)
    assert (config.text.vocab_size, config.text.hidden_size, config.text.num_layers) == (len(WORDS) + 2, HIDDEN, 1)
    assert not model.training
    assert model.loading.describe() == ""
    for name, value in state.items():
        if not name.endswith("position_ids"):
            torch.testing.assert_close(model.state_dict()[str(our_name(name))], value.half().float())
    plain = read(tmp_path, state)
    torch.testing.assert_close(plain.temporal.norm.weight, state["tt.norm.weight"])


def test_a_checkpoint_says_whether_it_knows_local_attention(tmp_path, caplog):
    state = random_checkpoint(local=False)
    assert read(tmp_path, state).config.kernel_size is None
    with caplog.at_level(logging.WARNING):
        model = read(tmp_path, state, kernel_size=7, memory_slots=8)
    assert model.local_attention is not None
    fresh = "freshly initialised, for the checkpoint has no weights of it: the "
    report = model.loading.describe().splitlines()
    assert [line.removeprefix(fresh) for line in report] == ["memory bank (6)", "local attention (6)"]
    assert all(line in caplog.text for line in report)
    assert "temporal.norm.weight" not in model.loading.missing


def test_the_published_tt_model_has_no_local_attention_whatever_its_file_holds(tmp_path):
    """Its training was started with one, and its evaluation leaves it out."""
    state = random_checkpoint()
    model = read(tmp_path, {"model": state}, name="vtsum_tt.pth")
    assert (model.config.kernel_size, model.local_attention) == (None, None)
    hint = "not used: local_atten_head (6 weights; the TT model has none, kernel_size=5 reads them)"
    assert model.loading.describe() == hint
    without = {name: value for name, value in state.items() if not name.startswith("local_atten_head.")}
    video = torch.randn(1, 9, WIDTH)
    expected = read(tmp_path, {"model": without})(video).saliency_logits
    assert torch.equal(model(video).saliency_logits, expected)
    asked = read(tmp_path, {"model": state}, name="vtsum_tt.pth", kernel_size=5)
    both = read(tmp_path, {"model": state}, name="vtsum_tt_ca.pth")
    assert torch.equal(asked(video).saliency_logits, both(video).saliency_logits)
    assert (both(video).saliency_logits - expected).abs().max() > 1e-3


def test_positions_start_as_a_copy_or_from_a_normal_distribution(tmp_path):
    state = random_checkpoint(blip=True)
    torch.manual_seed(0)
    model = read(tmp_path, {"model": state}, position_start="normal")
    start = model.position_embeddings.weight
    assert start.std().item() == pytest.approx(1.0, abs=0.1)
    assert start.mean().item() == pytest.approx(0.0, abs=0.1)
    assert "the position embeddings start from N(0, 1)" in model.loading.describe().splitlines()
    kept = read(tmp_path, {"model": random_checkpoint()}, position_start="normal")
    assert torch.equal(kept.position_embeddings.weight, random_checkpoint()["position_embeddings.weight"])


def test_blips_own_checkpoints_start_a_model(tmp_path):
    state = random_checkpoint(blip=True)
    beside = {"visual_encoder.cls_token": torch.zeros(1, 1, 4), "image_queue": torch.zeros(4, 8)}
    model = read(tmp_path, {"model": state | beside})
    assert (model.config.width, model.config.depth, model.config.kernel_size) == (HIDDEN, 1, 5)
    positions = state["text_decoder.bert.embeddings.position_embeddings.weight"]
    assert torch.equal(model.position_embeddings.weight, positions)
    assert torch.equal(model.get_parameter("text_decoder.lm.bert.embeddings.position_embeddings.weight"), positions)
    assert model.position_embeddings.weight.data_ptr() != positions.data_ptr()
    fresh = model.temporal.blocks[0].attn.qkv
    assert 0.01 < fresh.weight.std() < 0.03
    report = model.loading.describe()
    for part in ("the temporal transformer (14)", "the local attention (6)", "the saliency head (2)"):
        assert part in report
    assert "not used: visual_encoder (1 weights; load_frame_encoder reads it from the same file)" in report
    assert "not used: image_queue (1 weights)" in report
    assert "the position embeddings start as a copy of the text decoder's" in report


def wrapped_reference(state: dict[str, Tensor], video: Tensor) -> Tensor:
    """The wrapped model's saliency logits of one video [T, C], written out in plain PyTorch."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attend(name: str, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = linear(f"{name}.qkv", x).view(len(x), 3, HEADS, -1).permute(1, 2, 0, 3)
        scores = (q @ k.transpose(1, 2)) * (WIDTH // HEADS) ** -0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return linear(f"{name}.proj", (weights @ v).permute(1, 0, 2).flatten(1))

    state = {k.removeprefix("base."): v.double() for k, v in state.items()}
    bank, t = state["memory_bank"], torch.arange(len(video))
    unit = video / video.norm(dim=1, keepdim=True)
    weights = (unit @ (bank / bank.norm(dim=1, keepdim=True)).T * WIDTH**-0.5).softmax(1)
    x = torch.cat([video, weights @ bank], 1) @ state["memory_fusion.weight"].T + state["memory_fusion.bias"]
    position = state["position_embeddings.weight"][: len(video)]
    x = x + position
    for depth in range(2):
        block = f"base.tt.blocks.{depth}".removeprefix("base.")
        x = x + attend(f"{block}.attn", norm(f"{block}.norm1", x), torch.ones(len(x), len(x), dtype=torch.bool))
        hidden = torch.nn.functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + linear(f"{block}.mlp.fc2", hidden)
    x = norm("tt.norm", x) + position
    near = (t[:, None] - t).abs() <= 2
    x = x + attend("local_atten_head.attn", norm("local_atten_head.norm1", x), near)
    return linear("vsum_head.0", x)[:, 0]


def wrapped_checkpoint() -> dict[str, Tensor]:
    state = {f"base.{name}": value for name, value in random_checkpoint().items()}
    generator = torch.Generator().manual_seed(5)
    state["memory_bank"] = torch.randn(40, WIDTH, generator=generator) * 3
    state["memory_fusion.weight"] = torch.randn(WIDTH, 2 * WIDTH, generator=generator) * 0.2
    state["memory_fusion.bias"] = torch.randn(WIDTH, generator=generator) * 0.2
    return state


def test_the_memory_extensions_checkpoints_give_its_numbers(tmp_path):
    state = wrapped_checkpoint()
    model = read(tmp_path, {"model": state})
    assert model.loading.describe() == ""
    assert (model.config.memory_slots, model.config.memory_form, model.config.memory_position) == (
        40,
        "student",
        "before",
    )
    videos = torch.randn(2, 19, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, 12:] = False
    found = model.double()(videos, mask).saliency_logits
    torch.testing.assert_close(found[0], wrapped_reference(state, videos[0]), atol=1e-9, rtol=1e-9)
    # The extension itself reads its bank at padded frames too; nothing ever looks at those, so that the real frames
    # are those of the video alone.
    torch.testing.assert_close(found[1, :12], wrapped_reference(state, videos[1, :12]), atol=1e-9, rtol=1e-9)
    shuffled = {**state, "memory_bank": state["memory_bank"] * 0.1}
    assert (found[0] - wrapped_reference(shuffled, videos[0])).abs().max() > 1e-2  # the bank has a say


class Dangerous:
    """A pickle of it makes a folder when it is read carelessly."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("pwned",))


def test_what_is_no_checkpoint_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = random_checkpoint()

    def refused(data: Any, message: str, **options: Any) -> None:
        with pytest.raises(VTSumError, match=message) as error:
            read(tmp_path, data, **options)
        assert "\n" not in str(error.value)

    with pytest.raises(VTSumError, match="checkpoint must be a file, got nowhere"):
        read_weights("nowhere")
    refused({"model": state, "config": Dangerous()}, "must hold tensors and plain data alone, got posix.mkdir")
    assert not (tmp_path / "pwned").exists()
    refused(
        {"model": state, "args": argparse.Namespace(lr=1)},
        "must hold tensors and plain data alone, got argparse.Namespace",
    )
    refused([1, 2], 'must hold weights, by name or under "model", got list')
    refused({"epoch": 3, "loss": [0.5]}, r"got the keys \['epoch', 'loss'\]")
    refused({"layer.weight": torch.zeros(3)}, "must hold VideoXum's or BLIP's weights, got no text_decoder.bert")
    lost = {k: v for k, v in state.items() if k not in ("tt.norm.weight", "tt.norm.bias")}
    refused(lost, r"must hold all weights of the temporal transformer, got none for temporal.norm.weight and 1 more")
    refused({**state, "tt.norm.bias": torch.zeros(3)}, r"tt.norm.bias must be \[32\], got \[3\]")
    refused(state, "num_heads must be given where the width is no multiple of 64, got 32", num_heads=None)
    refused(state, "depth must be left out or be the checkpoint's 2, got 3", depth=3)
    refused(state, r"keys must be among .*got \['dept'\]", dept=2)
    refused(state, "kernel_size must be an odd number, None or \"auto\", got 'none'", kernel_size="none")
    refused(state, r"keys of text must be among .*got \['prompts'\]", text={"prompts": ""})
    refused(state, "tokenizer must have the checkpoint's 14 words, .*got 15", words=[*WORDS, "cat", "tree"])
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(
        VTSumError, match=r"text\.pth must (be whole and written by torch\.save|hold tensors and plain data)"
    ):
        read_weights(tmp_path / "text.pth")
    torch.save({"model": state}, tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:4000])
    with pytest.raises(VTSumError, match=r"half\.pth must be whole and written by torch\.save"):
        read_weights(tmp_path / "half.pth")


def test_a_read_model_is_saved_and_comes_back(tmp_path):
    model = read(tmp_path, {"model": random_checkpoint()}, text={"dropout": 0.0, "prompt": "a video of "})
    model.save_pretrained(tmp_path / "model")
    again = VTSum.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    video = torch.randn(1, 9, WIDTH)
    first, second = (m(video, tsum_labels=["a man runs."]) for m in (model, again))
    assert torch.equal(first.saliency_logits, second.saliency_logits)
    assert torch.equal(first.text_logits, second.text_logits)
    assert (
        again.generate(video, max_length=12, min_length=4)[0] == model.generate(video, max_length=12, min_length=4)[0]
    )


def test_blips_file_gives_a_frame_encoder(tmp_path):
    import numpy as np

    torch.manual_seed(0)
    width = 64  # the number of heads is the width / 64
    state = {f"{PREFIX}cls_token": torch.randn(1, 1, width), f"{PREFIX}pos_embed": torch.randn(1, 5, width)}
    shapes = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    shapes |= {"mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)}
    for depth in range(2):
        for name, shape in shapes.items():
            state[f"{PREFIX}blocks.{depth}.{name}.weight"] = torch.randn(shape) * 0.2
            state[f"{PREFIX}blocks.{depth}.{name}.bias"] = torch.randn(shape[0]) * 0.2
    state |= {f"{PREFIX}norm.weight": torch.randn(width), f"{PREFIX}norm.bias": torch.randn(width)}
    state |= {f"{PREFIX}patch_embed.proj.weight": torch.randn(width, 3, 8, 8) * 0.05}
    state |= {f"{PREFIX}patch_embed.proj.bias": torch.randn(width)}
    path = tmp_path / "model_base.pth"
    torch.save({"model": state | random_checkpoint(blip=True)}, path)
    encoder = load_frame_encoder(str(path))
    assert (encoder.image_size, encoder.dim, encoder.name) == (16, width, str(path))
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    pixels = (
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        - torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    ) / torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        expected = vision_model(state)(pixel_values=pixels).last_hidden_state[:, 0]
    np.testing.assert_allclose(encoder.encode(images), expected, atol=1e-5)
    assert len(encoder.weights_sha256) == 64
    torch.save({"model": random_checkpoint(blip=True)}, path)
    with pytest.raises(VTSumError, match=r"weights must hold BLIP's visual_encoder\.\*, got no 'embeddings.patch"):
        load_frame_encoder(str(path))
    del state[f"{PREFIX}norm.bias"]
    torch.save({"model": state}, path)
    with pytest.raises(VTSumError, match=r"must be those of BLIP's visual_encoder.*post_layernorm.bias"):
        load_frame_encoder(str(path))
