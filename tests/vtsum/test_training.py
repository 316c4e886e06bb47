"""Training learns what was planted: colours from a teacher, saliency from ratings, words from captions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.vtsum.annotated import make_video
from vtsum.config import TextConfig, VTSumConfig
from vtsum.data.tvsum import Caption
from vtsum.errors import VTSumError
from vtsum.model.checkpoint import load_tokenizer
from vtsum.model.text_decoder import TextDecoder
from vtsum.model.vtsum import VTSum
from vtsum.recipes.distill import Components, FrameSet, augment, train_encoder
from vtsum.recipes.joint import Example, JointSettings, caption_nll, evaluate, grid, train_joint
from vtsum.recipes.words import clean, learn_words, perplexity, vocabulary


def colour_frames(n: int, seed: int) -> FrameSet:
    """Pictures of one noisy colour; the teacher's features are a fixed mixture of the colour, and noise."""
    rng = np.random.default_rng(seed)
    colour = rng.uniform(40, 215, (n, 1, 1, 3))
    images = np.clip(colour + rng.normal(0, 12, (n, 128, 128, 3)), 0, 255).astype(np.uint8)
    mixture = np.random.default_rng(0).uniform(0, 1, (3, 1024))
    teacher = (colour[:, 0, 0] / 255) @ mixture + rng.normal(0, 0.01, (n, 1024))
    return FrameSet(images, teacher.astype(np.float32))


def test_the_encoder_learns_from_its_teacher(tmp_path):
    report = train_encoder(
        colour_frames(320, 1), colour_frames(32, 2), tmp_path / "e.safetensors", epochs=4, batch=32, lr=2e-3
    )
    first, last = report["history"][0], report["history"][-1]
    assert last["loss"] < 0.8 * first["loss"]
    assert last["cosine"] > last["cosine_of_mean"]
    assert last["centred_cosine"] > 0.5
    assert json.loads((tmp_path / "e.json").read_text())["cosine"] == report["cosine"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []  # no temporary file stays


def test_components_keep_what_they_can():
    torch.manual_seed(0)
    features = torch.randn(400, 20) * torch.linspace(3, 0.01, 20) + 5
    components = Components.fit(features, 12)
    codes = components.code(features)
    torch.testing.assert_close(codes.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes.std(0).square(), features.std(0)[:12].sort(descending=True)[0], atol=0.5, rtol=0.2)
    error = (components.decode(codes) - features).square().sum(1).mean()
    assert error < 1.1 * features.var(0)[12:].sum()


def test_augmentation_keeps_the_picture():
    images = torch.randint(0, 255, (1, 8, 8, 3), dtype=torch.uint8).repeat_interleave(16, 1).repeat_interleave(16, 2)
    out = augment(images.expand(40, -1, -1, -1), torch.Generator().manual_seed(0))
    assert out.shape == (40, 3, 128, 128)
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.std(0).mean() > 0.02  # the copies differ
    original = images.float().div(255).mean((1, 2))
    assert (out.mean((2, 3)) - original).abs().max() < 0.35


def test_frames_of_another_size_are_refused():
    with pytest.raises(VTSumError, match=r"images must be \[N, 128, 128, 3\]"):
        FrameSet(np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 1024), np.float32))


def planted(seed: int, directions: np.ndarray) -> Example:
    """A video of 100 s in stretches of 10 s: "dog" ones, which 20 raters like, and "road" ones; features tell which."""
    rng = np.random.default_rng(seed)
    video = make_video([300] * 10, raters=20, seed=seed, key=f"video_{seed}")
    liked = rng.permutation(np.arange(10) % 2)
    ratings = 1 + 3 * liked[None].repeat(20, 0) + rng.integers(0, 2, (20, 10))
    video.user_scores[:] = ratings.repeat(300, 1)
    index = np.arange(0, 300, 2)
    kind = liked[np.minimum(index // 30, 9)]
    features = directions[kind] * 3 + rng.normal(0, 1, (len(index), directions.shape[1]))
    texts = ("a dog plays in the garden.", "the empty road is long and grey.")
    captions = [Caption(10.0 * i, 10.0 * (i + 1), texts[1 - liked[i]]) for i in range(10)]
    return Example.make(video, features.astype(np.float32), index, captions)


SENTENCES = [
    f"{who} {does} {where}."
    for who in ("a dog", "the man", "a woman", "the empty road")
    for does in ("plays", "is long and grey", "runs", "sits down")
    for where in ("in the garden", "on the road", "near a house", "with a ball")
]


def test_saliency_and_sentences_are_learned_together(tmp_path):
    (tmp_path / "vocab.txt").write_text(vocabulary(SENTENCES, 80))
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    directions = np.random.default_rng(7).normal(0, 1, (2, 32))
    train = [planted(i, directions) for i in range(1, 9)]
    unseen = [planted(i, directions) for i in (11, 12)]
    text = TextConfig(len(tokenizer), 32, 1, 2, 64, 32, 0.0, "")
    config = VTSumConfig(width=32, num_heads=4, mlp_ratio=2, memory_slots=8, max_positions=64, dropout=0.1, text=text)
    torch.manual_seed(0)
    model = VTSum(config, tokenizer)
    before = evaluate(model, unseen)
    settings = JointSettings(epochs=5, text_epochs=30, batch=2, lr=3e-3, text_lr=1e-2, plain_sentences=4, noise=0.1)
    average, history = train_joint(model, train, SENTENCES, settings, unseen)
    after = evaluate(average, unseen)
    # Two kinds of stretches and raters who also disagree among themselves: half of all pairs are ties for each rater.
    assert after.tau > 0.5
    assert after.tau > before.tau + 0.3
    assert history[4]["loss_vsum"] < history[0]["loss_vsum"]
    # The decoder alone learns after the fifth epoch: the saliency stays what it was.
    assert history[4]["tau"] == history[-1]["tau"] == pytest.approx(after.tau)
    assert history[-1]["nll"] < history[4]["nll"]
    # The sentences are read off the frames: shown another stretch's frames, the right ones become unlikely.
    seen = caption_nll(average, unseen)
    shifted = [Example(e.video, np.roll(e.features, 15, 0), e.times, e.captions) for e in unseen]
    assert seen < 1.0
    assert caption_nll(average, shifted) > seen + 0.2
    assert math.isfinite(caption_nll(average, unseen, blind=True))


def test_training_repeats_itself(tmp_path):
    directions = np.random.default_rng(7).normal(0, 1, (2, 32))
    train = [planted(i, directions) for i in range(1, 4)]
    config = VTSumConfig(width=32, num_heads=4, mlp_ratio=2, memory_slots=8, max_positions=64, dropout=0.1)
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        average, _ = train_joint(VTSum(config), train, [], JointSettings(epochs=2, batch=2))
        states.append(average.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_the_decoder_learns_words(tmp_path):
    (tmp_path / "vocab.txt").write_text(vocabulary(SENTENCES, 80))
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    torch.manual_seed(0)
    decoder = TextDecoder(TextConfig(len(tokenizer), 32, 1, 2, 64, 32, 0.0, ""), 16, tokenizer)
    before = perplexity(decoder, SENTENCES[::9], 16)
    after = learn_words(decoder, SENTENCES, SENTENCES[::9], epochs=30, width=16, batch=16, lr=3e-3)
    assert before > 40
    assert after < 4
    frames, mask = torch.zeros(1, 1, 16), torch.ones(1, 1)
    texts, ids = decoder.generate(frames, mask)
    log_probability = decoder.log_probability(frames, mask, ids)
    start, *_, end = texts[0].split()
    assert start in ("a", "the")
    assert end.endswith(".")
    assert set(texts[0].replace(".", "").split()) <= {word for s in SENTENCES for word in s.rstrip(".").split()}
    assert -2 < log_probability[0] < 0


def test_training_grids_stay_inside_the_video():
    example = planted(1, np.ones((2, 4)))
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = grid(example, rng)
        assert times[0] >= 0
        assert times[-1] < 100
        assert np.allclose(np.diff(times), 1)
        assert len(times) >= 39
    assert len(grid(example, None)) == 100


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("  A man's dog  runs,\nfast. ", "a man's dog runs, fast."),
        ("The end!!", None),
        ("Un café est là pour toi.", None),
        ("word " * 30, None),
    ],
)
def test_clean(sentence, expected):
    assert clean(sentence) == expected
