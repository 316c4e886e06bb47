"""Train VTSum on frame embeddings: saliency from TVSum's raters and sentences from its captions, jointly.

The loss is VideoXum's: lambda_vsum * binary cross entropy against each rater + lambda_tsum * cross entropy of words. A
caption is read off the frames of its own stretch of the video, so that a sentence can later be asked for any stretch.
Sentences of ActivityNet Captions, with nothing to see, stay in every batch: otherwise a few hundred captions of forty
videos soon overwrite the English learned before.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vtsum.data.frames import FRAME_INDEX_RATE
from vtsum.data.tvsum import Caption, TVSumVideo
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import Evaluation, evaluate_scores
from vtsum.model.spans import gather_spans
from vtsum.model.vtsum import VTSum
from vtsum.recipes.words import clean

RATERS = 20
"""Of each of TVSum's videos."""


@dataclass
class Example:
    """One video: embeddings [N, C] of its stored frames, their times in seconds [N], ratings, captions."""

    video: TVSumVideo
    features: np.ndarray
    times: np.ndarray
    captions: list[Caption]

    @staticmethod
    def make(video: TVSumVideo, features: np.ndarray, index: np.ndarray, captions: Sequence[Caption]) -> Example:
        if features.ndim != 2 or index.shape != features.shape[:1] or not len(index):
            raise VTSumError(
                f"recipe: features of {video.key} must be [N, C] and their index [N], got {list(features.shape)} and "
                f"{list(index.shape)}; remove the file that keeps them"
            )
        usable = [Caption(c.start, c.end, text) for c in captions if (text := clean(c.text)) is not None]
        return Example(video, features, index / FRAME_INDEX_RATE, usable)

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings [T, C] of the stored frames nearest to `times`, and the raters' scores there, [A, T] in 0..1."""
        assert self.video.user_scores is not None  # load_tvsum refuses a file without them
        nearest = np.abs(self.times[None, :] - times[:, None]).argmin(1)
        frame = np.minimum((times * self.video.fps).astype(np.int64), self.video.n_frames - 1)
        return self.features[nearest], (self.video.user_scores[:, frame].astype(np.float32) - 1) / 4


@dataclass(frozen=True)
class JointSettings:
    epochs: int = 24
    """At most, of the joint training."""
    text_epochs: int = 8
    """Of the text decoder alone after that: words take longer to learn than saliency to be overlearned."""
    batch: int = 8
    lr: float = 1e-4
    text_lr: float = 5e-4
    """Of the text decoder: forty videos spoil the saliency sooner than the sentences."""
    weight_decay: float = 0.05
    noise: float = 0.2
    feature_dropout: float = 0.1
    captions_a_video: int = 2
    plain_sentences: int = 16
    seed: int = 0


def grid(example: Example, generator: np.random.Generator | None) -> np.ndarray:
    """Times one second apart; in training (a generator given) with a random phase and often a part of the video."""
    duration = example.video.n_frames / example.video.fps
    if generator is None:
        return np.arange(0.0, duration, 1.0)
    start, end = 0.0, duration
    if generator.random() < 0.5:
        length = duration * generator.uniform(0.4, 1.0)
        start = generator.uniform(0, duration - length)
        end = start + length
    return np.arange(start + generator.random(), end, 1.0)


def caption_spans(example: Example, times: np.ndarray) -> list[tuple[tuple[int, int], str]]:
    """The captions of which `times` holds at least three seconds, as spans of indices into `times`."""
    out = []
    for caption in example.captions:
        low, high = np.searchsorted(times, [caption.start, caption.end])
        if high - low >= 3:
            out.append(((int(low), int(high)), caption.text))
    return out


class _Batches:
    def __init__(self, examples: list[Example], settings: JointSettings) -> None:
        self.examples = examples
        self.settings = settings
        self.rng = np.random.default_rng(settings.seed)
        self.std = torch.from_numpy(np.concatenate([e.features for e in examples]).std(0))

    def epoch(self) -> list[tuple[Tensor, Tensor, Tensor, list[tuple[int, tuple[int, int], str]]]]:
        """Batches of (embeddings [B, T, C], mask [B, T], labels [B, A, T], captions as (row, span, sentence))."""
        s, order, out = self.settings, self.rng.permutation(len(self.examples)), []
        for at in range(0, len(order), s.batch):
            rows = [self.examples[i] for i in order[at : at + s.batch]]
            grids = [grid(e, self.rng) for e in rows]
            length = max(map(len, grids))
            x = torch.zeros(len(rows), length, rows[0].features.shape[1])
            labels = torch.zeros(len(rows), RATERS, length)
            mask = torch.zeros(len(rows), length, dtype=torch.bool)
            captions = []
            for i, (example, times) in enumerate(zip(rows, grids, strict=True)):
                features, ratings = example.at(times)
                x[i, : len(times)] = torch.from_numpy(features)
                labels[i, :, : len(times)] = torch.from_numpy(ratings)
                mask[i, : len(times)] = True
                spans = caption_spans(example, times)
                for j in self.rng.permutation(len(spans))[: s.captions_a_video]:
                    captions.append((i, *spans[j]))
            x = x + torch.randn(x.shape) * self.std * s.noise
            # Whole columns of a video at a time: the summarizer must not lean on single components.
            keep = torch.rand(len(rows), 1, x.shape[2]) >= s.feature_dropout
            out.append((x * keep / (1 - s.feature_dropout), mask, labels, captions))
        return out


def text_loss(model: VTSum, frames: Tensor, captions: list[tuple[int, tuple[int, int], str]]) -> Tensor:
    assert model.text_decoder is not None
    parts = [gather_spans(frames[row], [span]) for row, span, _ in captions]
    length = max(p[0].shape[1] for p in parts)
    x = torch.cat([torch.nn.functional.pad(p[0], (0, 0, 0, length - p[0].shape[1])) for p in parts])
    mask = torch.cat([torch.nn.functional.pad(p[1], (0, length - p[1].shape[1])) for p in parts])
    text = model.text_decoder.batch([c[2] for c in captions], 32, frames.device)
    return model.text_decoder(x, mask, text)[0]


def train_joint(
    model: VTSum,
    examples: list[Example],
    sentences: list[str],
    settings: JointSettings,
    watched: list[Example] | None = None,
) -> tuple[VTSum, list[dict[str, float]]]:
    """Train `model`: everything for `epochs`, the text decoder alone for `text_epochs`.

    Returns:
        The moving average of the weights, and for each epoch the losses and, on the `watched` videos, tau, rho and the
        captions' negative log-likelihood a token.
    """
    torch.manual_seed(settings.seed)
    batches = _Batches(examples, settings)
    average = copy.deepcopy(model).eval()
    text = [p for n, p in model.named_parameters() if n.startswith("text_decoder.")]
    rest = [p for n, p in model.named_parameters() if not n.startswith("text_decoder.")]
    groups = [{"params": rest, "lr": settings.lr}, {"params": text, "lr": settings.text_lr}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=settings.weight_decay)
    steps = math.ceil(len(examples) / settings.batch)
    epochs = settings.epochs + (settings.text_epochs if model.text_decoder is not None else 0)
    # Constant at first: stopping after fewer epochs is then the same training, shorter. The average does the cooling.
    constant, total = settings.epochs * steps, epochs * steps

    def rate(step: int) -> float:
        if step < constant or total == constant:
            return min((step + 1) / 20, 1.0)
        return 0.5 * (1 + math.cos(math.pi * (step - constant) / (total - constant)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    config = model.config
    history: list[dict[str, float]] = []
    start = time.time()
    step = 0
    for epoch in range(epochs):
        model.train()
        alone = epoch >= settings.epochs
        if alone and epoch == settings.epochs:
            # The decoder goes on from the averaged rest, which from here on is the rest.
            model.load_state_dict(average.state_dict())
            for p in rest:
                p.requires_grad_(False)
        sums = np.zeros(2)
        for x, mask, labels, captions in batches.epoch():
            with torch.set_grad_enabled(not alone):
                frames = model.encode(x, mask)
                loss_vsum = model.video_loss(model.saliency_logits(frames), mask, labels)
            loss = config.lambda_vsum * loss_vsum
            loss_tsum = torch.zeros(())
            if model.text_decoder is not None and captions:
                loss_tsum = text_loss(model, frames, captions)
                loss = loss + config.lambda_tsum * loss_tsum
            if model.text_decoder is not None and settings.plain_sentences:
                chosen = batches.rng.integers(len(sentences), size=settings.plain_sentences)
                plain = model.text_decoder.batch([sentences[i] for i in chosen], 32, x.device)
                n = len(chosen)
                loss = loss + 0.5 * model.text_decoder(torch.zeros(n, 1, config.width), torch.ones(n, 1), plain)[0]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            # The average forgets slowly later and quickly at first, so that it never drags the start along.
            decay = min(0.98, step / (step + 10))
            with torch.no_grad():
                for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                    if a.is_floating_point():
                        a.lerp_(b, 1 - decay)
                    else:
                        a.copy_(b)
            sums += loss_vsum.item(), loss_tsum.item()
        record = {"epoch": epoch + 1, "loss_vsum": sums[0] / steps, "loss_tsum": sums[1] / steps}
        if watched:
            result = evaluate(average, watched)
            record |= {"tau": result.tau, "rho": result.rho, "nll": caption_nll(average, watched)}
        history.append(record)
        left = (time.time() - start) / (epoch + 1) * (epochs - epoch - 1) / 60
        print("joint: " + " ".join(f"{k} {v:.4g}" for k, v in record.items()) + f" left {left:.1f} min", flush=True)
    return average, history


@torch.inference_mode()
def evaluate(model: VTSum, examples: list[Example]) -> Evaluation:
    """Otani's tau and rho (and F) of the saliency, computed at one frame a second and carried to each 15th frame."""
    model.eval()
    scores = {}
    for example in examples:
        times = grid(example, None)
        x = torch.from_numpy(example.at(times)[0])[None]
        saliency = model.saliency_logits(model.encode(x))[0].sigmoid().numpy()
        scores[example.video.key] = np.interp(example.video.picks / example.video.fps, times, saliency)
    return evaluate_scores(scores, [e.video for e in examples])


@torch.inference_mode()
def caption_nll(model: VTSum, examples: list[Example], *, blind: bool = False) -> float:
    """Mean negative log-likelihood a token of the videos' captions; `blind` shows the decoder another video's frames.

    The difference between the two says how much the sentences owe to what is seen.
    """
    if model.text_decoder is None:
        return math.nan
    model.eval()
    total, count = 0.0, 0
    encoded = [(grid(e, None), model.encode(torch.from_numpy(e.at(grid(e, None))[0])[None])[0]) for e in examples]
    for i, example in enumerate(examples):
        times, frames = encoded[i]
        spans = caption_spans(example, times)
        if not spans:
            continue
        text = model.text_decoder.batch([s for _, s in spans], 32, frames.device)
        if blind:
            other = encoded[(i + 1) % len(encoded)][1]
            where = [
                (int(a / len(times) * len(other)), max(int(b / len(times) * len(other)), 1)) for (a, b), _ in spans
            ]
            x, mask = gather_spans(other, [(min(a, b - 1), b) for a, b in where])
        else:
            x, mask = gather_spans(frames, [s for s, _ in spans])
        _, logits = model.text_decoder(x, mask, text)
        targets = text.targets[:, 1:]
        total += torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        ).item()
        count += int((targets != -100).sum())
    return total / max(count, 1)
