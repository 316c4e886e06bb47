"""Do a memory bank's slots stay alive? The published form of the bank against VTSum's, trained on TVSum's features.

    python -m bench.summary.memory_liveness --shared DIR [--epochs 20] [--slots 512]

DIR holds tvsum/tvsum.h5. VTSum with each form of the bank learns saliency on 40 of TVSum's 50 videos; after each epoch
the ten others (every fifth) are read. One JSON line an epoch goes to results/memory_liveness.jsonl, the plot to
docs/memory_liveness.png. What is measured, over all frames of the ten videos:

    slots a frame reads     exp of the mean entropy of a frame's weights: S where every slot gets the same
    slots in use            perplexity of the mean weights
    dead slots              those with less than a hundredth of an even share
    follows the frame       RMS of what is read less its mean over the frames, over the RMS of what is read
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, machine, read
from bench.summary.tables.memory_liveness import draw
from vtsum.config import VTSumConfig
from vtsum.data.tvsum import TVSumVideo, load_tvsum
from vtsum.evaluation.baselines import evaluate_scores, every_fifth
from vtsum.model import VTSum

FORMS = {"published": ("student", "before"), "vtsum": ("default", "after")}
BATCH, RATE = 8, 1e-4


def features_of(video: TVSumVideo) -> Tensor:
    """[P, C], each row of length sqrt(C)."""
    assert video.features is not None  # tvsum.h5 has them
    x = torch.from_numpy(video.features)
    return F.normalize(x, dim=1) * math.sqrt(x.shape[1])


def ratings_of(video: TVSumVideo) -> Tensor:
    """The raters' scores at the picks, [U, P] in 0..1."""
    assert video.user_scores is not None  # TVSum has them
    return torch.from_numpy((video.user_scores[:, video.picks].astype(np.float32) - 1) / 4)


def weights_and_read(bank: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The weights [T, S] that frames [T, C] give to the slots, and what they read [T, C]: the bank's own definition."""
    hidden = x if bank.norm is None else bank.norm(x)
    scale = bank.scale if bank.log_scale is None else bank.log_scale.exp().clamp(max=100.0)
    weights = torch.softmax(scale * F.normalize(hidden, dim=-1) @ F.normalize(bank.memory, dim=-1).t(), -1)
    return weights, weights @ bank.memory


@torch.no_grad()
def examine(model: VTSum, videos: Sequence[TVSumVideo]) -> dict[str, float]:
    """The figures of one epoch."""
    model.eval()
    bank, seen, scores = model.memory, [], {}
    assert bank is not None
    hook = bank.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    for video in videos:
        scores[video.key] = model.saliency_logits(model.encode(features_of(video)[None]))[0].sigmoid().numpy()
    hook.remove()
    weights, found = weights_and_read(bank, torch.cat(seen))
    slots = weights.shape[1]
    mean = weights.mean(0)

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.clamp_min(1e-30).log()).sum(-1)

    agreement = evaluate_scores(scores, list(videos))
    return {
        "slots_a_frame": float(entropy(weights).mean().exp()),
        "slots_in_use": float(entropy(mean).exp()),
        "dead_slots": int((mean < 0.01 / slots).sum()),
        "follows_frame": float((found - found.mean(0)).square().mean().sqrt() / found.square().mean().sqrt()),
        "tau": agreement.tau,
        "rho": agreement.rho,
    }


def train(form: str, options: argparse.Namespace, videos: Sequence[TVSumVideo]) -> Iterator[dict[str, Any]]:
    """A line for the start and each epoch."""
    split = every_fifth(videos)
    by_key = {video.key: video for video in videos}
    learned, held = [by_key[key] for key in split.train], [by_key[key] for key in split.test]
    kind, position = FORMS[form]
    torch.manual_seed(options.seed)
    width = features_of(learned[0]).shape[1]
    sizes = {"width": width, "num_heads": width // 64, "mlp_ratio": 2, "memory_slots": options.slots, "dropout": 0.1}
    config: dict[str, Any] = {**sizes, "memory_form": kind, "memory_position": position}
    model = VTSum(VTSumConfig(**config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    order = np.random.default_rng(options.seed)
    for epoch in range(options.epochs + 1):
        model.train()
        chosen: list[int] = order.permutation(len(learned)).tolist() if epoch else []
        for at in range(0, len(chosen), BATCH):
            batch = [learned[i] for i in chosen[at : at + BATCH]]
            x = torch.cat([features_of(video) for video in batch])
            labels = torch.cat([ratings_of(video) for video in batch], 1)
            lengths = torch.tensor([0, *(len(video.picks) for video in batch)])
            loss = model(x, vsum_labels=labels, cu_seqlens=lengths.cumsum(0).to(torch.int32)).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        yield {"epoch": epoch, **examine(model, held)}


def main() -> None:
    given = parser(__doc__, "memory_liveness", shared=True)
    given.add_argument("--epochs", type=int, default=20)
    given.add_argument("--slots", type=int, default=512)
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    given.add_argument("--plot", type=Path, default=DOCS / "memory_liveness.png")
    options = given.parse_args()
    videos = load_tvsum(options.shared / "tvsum" / "tvsum.h5")
    facts = {"op": "memory_liveness", "slots": options.slots, "seed": options.seed, **machine(("torch",))}
    for form in options.forms:
        keep(options.results, {**facts, "form": form}, train(form, options, videos))
    draw(options.plot, read(options.results))


if __name__ == "__main__":
    main()
