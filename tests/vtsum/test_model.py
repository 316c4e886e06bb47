"""What must hold of the summarizer's network at any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vtsum.config import TextConfig, VTSumConfig, from_dict, to_dict
from vtsum.errors import VTSumError
from vtsum.model.checkpoint import load_tokenizer
from vtsum.model.spans import gather_spans
from vtsum.model.temporal import ROWS, Mlp, PositionEmbedding
from vtsum.model.vtsum import VTSum

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "man", "runs", "fast", ".", "dog"]


def small_model(tmp_path: Path, **changes: Any) -> VTSum:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    text = TextConfig(len(WORDS), 16, 1, 2, 32, 32, 0.0, "")
    config = VTSumConfig(
        **({"width": 32, "num_heads": 4, "max_positions": 24, "memory_slots": 8, "text": text} | changes)
    )
    torch.manual_seed(3)
    return VTSum(config, load_tokenizer(vocabulary)).eval()


def test_padding_changes_nothing(tmp_path):
    """A short video beside a long one gives the numbers it gives alone: saliency, text loss and sentences."""
    model = small_model(tmp_path)
    x = torch.randn(2, 40, 32)
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[1, 13:] = False
    x[1, 13:] = 1e3  # what stands in the padding must not matter
    frames = model.encode(x, mask)
    alone = model.encode(x[1:, :13])
    # Its positions do not depend on its neighbour either, whose 40 frames stretch the table of 24.
    torch.testing.assert_close(
        model.saliency_logits(frames)[1, :13], model.saliency_logits(alone)[0], atol=1e-5, rtol=1e-5
    )
    short = model.encode(torch.cat([x[1:, :13], torch.zeros(1, 7, 32)], 1), mask[1:, :20])
    torch.testing.assert_close(model.saliency_logits(short)[:, :13], model.saliency_logits(alone), atol=1e-5, rtol=1e-5)
    text = model.text_decoder.batch(["a man runs fast."], 16, x.device)
    padded = torch.full((1, 20, 32), 50.0)
    padded[:, :13] = alone
    loss, _ = model.text_decoder(padded, mask[1:, :20], text)
    expected, _ = model.text_decoder(alone, torch.ones(1, 13), text)
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(model.saliency_logits(frames)[mask]).all()


def test_every_part_learns(tmp_path):
    model = small_model(tmp_path).train()
    mask = torch.ones(2, 9, dtype=torch.bool)
    out = model(torch.randn(2, 9, 32), mask, torch.rand(2, 3, 9), ["a man runs.", "a dog runs fast."])
    torch.testing.assert_close(out.loss, 15.0 * out.loss_vsum + out.loss_tsum)
    out.loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A head's output does not depend on its keys' biases: a constant in all scores. Nothing else may stay silent.
    assert silent == [] or all(n.endswith("key.bias") for n in silent), silent


def test_local_attention_reaches_two_frames(tmp_path):
    model = small_model(tmp_path)
    assert model.local_attention is not None
    x = torch.randn(1, 15, 32, requires_grad=True)
    model.local_attention(x, None)[0, 7].sum().backward()
    assert x.grad[0].abs().sum(1).nonzero().flatten().tolist() == [5, 6, 7, 8, 9]


def test_positions_stretch_beyond_the_table():
    table = PositionEmbedding(16, 4)
    with torch.no_grad():
        table.weight.copy_(torch.linspace(0, 1, 16)[:, None].expand(16, 4))
    assert torch.equal(table(9), table.weight[:9])
    long = table(64)
    assert long.shape == (64, 4)
    torch.testing.assert_close(long[10:54, 0], (torch.arange(10, 54) + 0.5) / 60 - 1 / 30, atol=0.01, rtol=0)


def test_positions_stretch_over_each_video_or_over_the_longest_of_the_batch(tmp_path):
    lengths = [40, 30, 9]
    x, mask, _ = training_inputs(lengths)
    cu = torch.tensor([0, *lengths]).cumsum(0)
    for over, longest in (("video", lengths), ("batch", [40, 40, 40])):
        model = small_model(tmp_path, positions_over=over, depth=0, kernel_size=None, memory_slots=0)
        table = model.position_embeddings
        padded, packed = model.encode(x, mask), model.encode(x[mask], cu_seqlens=cu)
        for frames in (padded[mask], packed):
            for row, (n, stretched) in enumerate(zip(lengths, longest, strict=True)):
                position = table(stretched)[:n]
                expected = model.temporal(x[row, :n] + position) + position
                torch.testing.assert_close(frames[cu[row] : cu[row + 1]], expected)
    holes = torch.ones(1, 40, dtype=torch.bool)
    holes[0, 3] = holes[0, 35:] = False
    assert table.over == "batch"
    table.over = "video"
    assert torch.equal(table(40, holes)[0, :35], table(35))  # up to the last real frame


def test_gather_spans():
    frames = torch.arange(100.0)[:, None]
    x, mask = gather_spans(frames, [(3, 6), (0, 100), (99, 100)], limit=10)
    assert x.shape == (3, 10, 1)
    assert mask.sum(1).tolist() == [3, 10, 1]
    assert x[0, :3, 0].tolist() == [3, 4, 5]
    assert x[1, :, 0].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    for bad in ((3, 3), (-1, 2), (90, 101)):
        with pytest.raises(VTSumError, match="spans must lie within"):
            gather_spans(frames, [bad])


def test_bad_input_is_named(tmp_path):
    model = small_model(tmp_path)
    with pytest.raises(VTSumError, match=r"video_embeddings must be \[B, T, 32\], got \[2, 5, 31\]"):
        model.encode(torch.zeros(2, 5, 31))
    with pytest.raises(VTSumError, match=r"video_mask must be \[B, T\] = \[2, 5\], got \[2, 4\]"):
        model.encode(torch.zeros(2, 5, 32), torch.ones(2, 4))
    with pytest.raises(VTSumError, match=r"video_embeddings must be \[total, 32\] with cu_seqlens, got \[1, 5, 32\]"):
        model.encode(torch.zeros(1, 5, 32), cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(VTSumError, match="video_mask must be None with cu_seqlens"):
        model.encode(torch.zeros(5, 32), torch.ones(5), torch.tensor([0, 5]))
    for bounds in ([0, 4], [1, 5], [0, 3, 3, 5], [0], [0, 2, 1, 5]):
        with pytest.raises(VTSumError, match=r"cu_seqlens must be integers that rise from 0 to 5, got \["):
            model.encode(torch.zeros(5, 32), cu_seqlens=torch.tensor(bounds))
    for labels in (torch.zeros(2, 5), torch.zeros(2, 3, 4), torch.zeros(1, 3, 5)):
        with pytest.raises(VTSumError, match=r"vsum_labels must be \[B, A, T\] for logits \[2, 5\]"):
            model(torch.zeros(2, 5, 32), None, labels)
    with pytest.raises(VTSumError, match=r"vsum_labels must be \[A, total\] for logits \[5\]"):
        model(torch.zeros(5, 32), None, torch.zeros(5), cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(VTSumError, match="temporal_window must be odd"):
        VTSumConfig(temporal_window=6)
    with pytest.raises(VTSumError, match="memory_position must be one of before, inside, after, got 'beside'"):
        VTSumConfig(memory_position="beside")
    with pytest.raises(VTSumError, match="loss_type must be one of cross_entropy, l2, got 'l1'"):
        VTSumConfig(loss_type="l1")
    with pytest.raises(VTSumError, match=r"max_text_length must be 2 to text.max_positions \(512\), got 600"):
        VTSumConfig(max_text_length=600)
    with pytest.raises(VTSumError, match="kernel_size must be odd"):
        VTSumConfig(kernel_size=4)
    with pytest.raises(VTSumError, match="width must be a multiple"):
        VTSumConfig(width=10, num_heads=4)
    with pytest.raises(VTSumError, match=r"keys must be among .* got \['kernelsize'\]"):
        from_dict(VTSumConfig, {"kernelsize": 5})


def test_config_goes_through_plain_data():
    config = VTSumConfig(width=64, num_heads=4, kernel_size=None, text=TextConfig(vocab_size=99))
    assert from_dict(VTSumConfig, to_dict(config)) == config


def training_inputs(lengths: Sequence[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Videos of the given lengths, padded: embeddings, mask, labels of three annotators."""
    generator = torch.Generator().manual_seed(2)
    b, t = len(lengths), max(lengths)
    x = torch.randn(b, t, 32, generator=generator, dtype=dtype)
    labels = (torch.rand(b, 3, t, generator=generator) < 0.3).to(dtype)
    mask = torch.arange(t) < torch.tensor(lengths)[:, None]
    return x, mask, labels * mask[:, None]


@pytest.mark.parametrize("loss_type", ["cross_entropy", "l2"])
@pytest.mark.parametrize("changes", [{}, {"temporal_window": 7}, {"memory_position": "before"}, {"kernel_size": None}])
def test_packed_videos_give_what_padded_ones_give(tmp_path, changes, loss_type):
    lengths = [9, 31, 1, 4]  # 31: more frames than positions
    sentences = ["a man runs.", "a dog.", "a dog runs fast.", "a man."]
    model = small_model(tmp_path, loss_type=loss_type, depth=2, **changes).double()
    x, mask, labels = training_inputs(lengths, torch.float64)
    rows = [model(x[i : i + 1, :n], None, labels[i : i + 1, :, :n]) for i, n in enumerate(lengths)]
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    packed_labels = labels.transpose(1, 2)[mask].T
    packed = model(x[mask], None, packed_labels, sentences, cu_seqlens=cu)
    expected = torch.cat([row.saliency_logits[0] for row in rows])
    torch.testing.assert_close(packed.saliency_logits, expected)
    assert packed.frames.shape == (sum(lengths), 32)

    gradients = []
    for out in (model(x, mask, labels, sentences), packed):
        model.zero_grad()
        out.loss.backward()
        gradients.append({"loss": out.loss.detach()} | {n: p.grad for n, p in model.named_parameters()})
        gradients[-1]["logits"] = out.text_logits.detach()
    padded_out, packed_out = gradients
    for name, value in padded_out.items():
        torch.testing.assert_close(packed_out[name], value, msg=name)


def test_the_released_mean_counts_the_padding_in_cross_entropys_number(tmp_path):
    x, mask, labels = training_inputs([9, 20, 1])
    losses = {}
    for mean in ("valid", "released"):
        for kind in ("cross_entropy", "l2"):
            model = small_model(tmp_path, loss_type=kind, loss_mean=mean)
            losses[mean, kind] = model(x, mask, labels).loss_vsum
    torch.testing.assert_close(losses["released", "l2"], losses["valid", "l2"])
    padded = losses["released", "cross_entropy"] * mask.numel()
    torch.testing.assert_close(padded, losses["valid", "cross_entropy"] * mask.sum())
    assert model.loss_counts(mask, labels, ["a man.", "a dog runs."]) == (30, 9)


def test_packed_calls_every_module_equally_often(tmp_path):
    """Sharded training hangs where two ranks, with batches of different videos, call a module a different number of
    times."""
    model = small_model(tmp_path, depth=2)
    counts: list[Counter[str]] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: counts[-1].update([name]))
    for lengths in ([30], [3, 4, 5, 6]):
        counts.append(Counter())
        cu = torch.tensor([0, *lengths]).cumsum(0)
        model(torch.randn(sum(lengths), 32), tsum_labels=["a man."] * len(lengths), cu_seqlens=cu)
    assert counts[0] == counts[1]
    assert counts[0]["position_embeddings"] == 1
    assert counts[0]["temporal.blocks.1.attn.qkv"] == 1


def test_a_window_keeps_the_weights_and_sees_its_frames(tmp_path):
    full = small_model(tmp_path).double()
    x, mask, _ = training_inputs([17, 11], torch.float64)
    for window, near in ((33, 33), (5, 2)):
        windowed = small_model(tmp_path, temporal_window=window).double()
        windowed.load_state_dict(full.state_dict(), strict=True)
        attention = full.temporal.blocks[0].attn
        q, k, v = attention.qkv(x).view(2, 17, 3, 4, 8).permute(2, 0, 3, 1, 4)
        t = torch.arange(17)
        seen = ((t[:, None] - t).abs() <= near) & mask[:, None, None]
        scores = (q @ k.transpose(-1, -2) * 8**-0.5).masked_fill(~seen, -torch.inf)
        expected = (scores.softmax(-1).nan_to_num() @ v).transpose(1, 2).flatten(2)
        expected = attention.proj(expected)
        found = windowed.temporal.blocks[0].attn(x, mask)
        torch.testing.assert_close(found[mask], expected[mask])
        if window == 33:
            torch.testing.assert_close(windowed(x, mask).saliency_logits[mask], full(x, mask).saliency_logits[mask])


class BiggestTensor(TorchDispatchMode):
    """Watches every operation, forward and backward, for the biggest tensor that it gives."""

    biggest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                # What memory it takes: an expanded view of a small tensor is small.
                self.biggest = max(self.biggest, value.untyped_storage().nbytes() // value.element_size())
        return out


@pytest.mark.parametrize("window", [65, None])
@pytest.mark.parametrize("packed", [False, True])
def test_no_tensor_grows_with_the_square_of_the_frames(tmp_path, window, packed):
    t = 4096
    model = small_model(tmp_path, temporal_window=window, mlp_ratio=2)
    x, labels = torch.randn(1, t, 32), torch.rand(1, 2, t)
    with BiggestTensor() as watch:
        if packed:
            cu = torch.tensor([0, t - 100, t])
            out = model(x[0], None, labels[0], ["a man runs.", "a dog."], cu_seqlens=cu)
        else:
            mask = torch.arange(t)[None] < t - 100
            out = model(x, mask, labels, ["a man runs."])
        out.loss.backward()
    assert t * 96 <= watch.biggest <= t * 200, (
        watch.biggest / t
    )  # the queries, keys and values; T x T would be T * 4096
    with BiggestTensor() as watch:
        torch.ones(t, 1) * torch.ones(t)
    assert watch.biggest == t * t


def test_in_inference_frames_pass_the_mlp_in_parts():
    """All frames of ten hours at once took 300 MB for what lies between its two layers."""
    mlp, x = Mlp(8, 32), torch.randn(2, 2 * ROWS + 5, 8)
    with torch.inference_mode(), BiggestTensor() as watch:
        found = mlp(x)
    assert watch.biggest == 2 * ROWS * 32
    torch.testing.assert_close(found, mlp(x))
    with torch.no_grad(), BiggestTensor() as watch:  # a validation, maybe of sharded weights
        mlp(x)
    assert watch.biggest == 2 * (2 * ROWS + 5) * 32


def test_checkpointing_computes_again_and_changes_nothing(tmp_path):
    x, mask, labels = training_inputs([9, 5])
    text = TextConfig(len(WORDS), 16, 2, 2, 32, 32, 0.2, "")
    gradients, counts = [], []
    for enabled in (False, True):
        model = small_model(tmp_path, depth=2, dropout=0.2, text=text).train()
        if enabled:
            model.gradient_checkpointing_enable()
        calls: Counter[str] = Counter()
        watched = ["temporal.blocks.0.mlp", "temporal.blocks.1.mlp", "local_attention.attn"]
        watched += [f"text_decoder.lm.bert.encoder.layer.{i}.crossattention.self" for i in range(2)]
        for name in watched:
            module = model.get_submodule(name)  # counted as it starts: the second time, its end may not be needed
            module.register_forward_pre_hook(lambda *_, name=name, calls=calls: calls.update([name]))
        torch.manual_seed(8)  # the same dropout, in the forward pass and when it is computed again
        model(x, mask, labels, ["a man runs.", "a dog."]).loss.backward()
        counts.append(calls)
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert set(counts[0].values()) == {1}
    assert set(counts[1].values()) == {2}
    assert len(counts[1]) == 5
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, msg=name)
    with torch.no_grad():
        model.eval()(x, mask)  # nothing is computed twice where no gradient is wanted
    assert counts[1]["temporal.blocks.0.mlp"] == 3


def test_the_text_decoder_reads_no_padding_frame(tmp_path):
    """transformers hands the cross attention its mask under a name that is not read: without the hooks that put this
    right, frames of padding move the logits."""
    model = small_model(tmp_path)
    decoder = model.text_decoder
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            weight.mul_(10 if "crossattention" in name and "self" in name else 1)  # so that the frames have a say
    frames = torch.randn(1, 12, 32)
    mask = torch.arange(12)[None] < 7
    other = frames.clone()
    other[:, 7:] = torch.randn(1, 5, 32) * 3
    text = decoder.batch(["a man runs fast."], 16, frames.device)
    logits = [decoder(x, mask, text)[1] for x in (frames, other)]
    torch.testing.assert_close(logits[0], logits[1], atol=0, rtol=0)
    torch.testing.assert_close(logits[0], decoder(frames[:, :7], mask[:, :7], text)[1])
    assert decoder.generate(frames, mask, max_length=9)[0] == decoder.generate(other, mask, max_length=9)[0]
    for module in decoder.lm.modules():
        module._forward_pre_hooks.clear()
    logits = [decoder(x, mask, text)[1] for x in (frames, other)]
    assert (logits[0] - logits[1]).abs().max() > 0.01, "transformers reads the mask by itself now; drop the hooks"


def test_sentences_or_their_ids(tmp_path):
    model = small_model(tmp_path)
    x, mask, _ = training_inputs([6, 9])
    sentences = ["a man runs.", "a dog runs fast."]
    ids = model.text_decoder.tokenizer(sentences, padding="longest", return_tensors="pt").input_ids
    by_words, by_ids = (model(x, mask, tsum_labels=labels) for labels in (sentences, ids))
    assert torch.equal(by_words.decoder_targets, by_ids.decoder_targets)
    torch.testing.assert_close(by_words.loss, by_ids.loss)
    assert ids[0, 0] == model.text_decoder.tokenizer.cls_token_id  # the caller's ids are left alone
    cut = model(x, mask, tsum_labels=sentences, max_text_length=4)
    assert cut.text_logits.shape[1] == 4
    assert model(x, mask, tsum_labels=["a man runs fast ." * 20] * 2).text_logits.shape[1] == 32
    for bad, message in (
        (ids.float(), r"tsum_labels must be sentences or integers \[B, L\] with L of 1 to 32, got torch.float32"),
        (torch.zeros(2, 33, dtype=torch.long), r"L of 1 to 32, got torch.int64 \[2, 33\]"),
        (ids + 90, "tsum_labels must be ids of 0 to 11, got 9[0-9]"),
        (sentences[:1], "tsum_labels must hold 2 sentences, got 1"),
    ):
        with pytest.raises(VTSumError, match=message):
            model(x, mask, tsum_labels=bad)


def test_generate_gives_sentences_and_saliency(tmp_path):
    model = small_model(tmp_path)
    x, mask, _ = training_inputs([6, 9])
    texts, ids, saliency = model.generate(x, mask, max_length=14, min_length=8)
    assert [len(texts), *ids.shape[:1]] == [2, 2]
    assert 8 <= ids.shape[1] <= 14
    torch.testing.assert_close(saliency, model(x, mask).saliency_logits)
    alone, _, _ = model.generate(x[:1, :6], max_length=14, min_length=8)
    assert alone == texts[:1]
    torch.manual_seed(0)
    sampled = {model.generate(x, mask, num_beams=1, do_sample=True, top_p=0.95)[0][0] for _ in range(4)}
    assert len(sampled) > 1
    assert model.generate(x, mask, min_length=32)[1].shape[1] == 32  # the configuration's max_text_length
    with pytest.raises(VTSumError, match="max_length must be more than the prompt's 1 tokens and at most 32, got 33"):
        model.generate(x, mask, max_length=33)
    with pytest.raises(VTSumError, match="must have a text decoder"):
        VTSum(model.config).generate(x, mask)


def test_where_and_how_the_bank_is_read(tmp_path):
    x, mask, _ = training_inputs([6, 9])
    after = small_model(tmp_path)
    before = small_model(tmp_path, memory_position="before")
    before.load_state_dict(after.state_dict(), strict=True)
    assert (before(x, mask).saliency_logits - after(x, mask).saliency_logits)[mask].abs().max() > 1e-3
    assert before.memory is not None
    remembered = before.memory(x, mask=mask)
    after.memory = None
    torch.testing.assert_close(after(remembered, mask).saliency_logits, before(x, mask).saliency_logits)
    student = small_model(tmp_path, memory_form="student")
    assert {n for n, _ in student.memory.named_parameters()} == {"memory", "join_weight", "join_bias"}
    assert small_model(tmp_path, memory_slots=0).memory is None


def test_half_precision_keeps_its_losses_in_full(tmp_path):
    model = small_model(tmp_path)
    x, mask, labels = training_inputs([20, 13])
    full = model(x, mask, labels, ["a man runs.", "a dog."])
    half = model.bfloat16()(x.bfloat16(), mask, labels, ["a man runs.", "a dog."])
    assert half.saliency_logits.dtype == torch.bfloat16
    for name in ("loss", "loss_vsum", "loss_tsum"):
        assert getattr(half, name).dtype == torch.float32
        torch.testing.assert_close(getattr(half, name), getattr(full, name), atol=0.02, rtol=0.02)
