"""Give the embedded model its boundary head: trained on TVSum's shots, with everything else frozen.

    python -m vtsum.recipes.boundaries --shared ../shared --out runs/boundaries --install

The truth is TVSum's change points, which its raters' summaries keep to: every selection begins and ends at one. With
the other weights frozen, saliency and sentences are to the bit what they were. The number of epochs is chosen on a
fifth of the forty training videos, then the head is trained on all forty; the figures are those of the ten held-out
videos. `--model` starts from another folder than the one that ships; `vtsum.recipes.embedded` calls this as its last
stage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtsum.data.tvsum import TVSumVideo
from vtsum.evaluation.baselines import every_fifth
from vtsum.evaluation.boundaries import average_precision
from vtsum.files import check_inputs, replacing
from vtsum.model.boundary import BoundaryHead, boundary_loss, boundary_targets
from vtsum.model.checkpoint import CONFIG, VOCABULARY, WEIGHTS, config_text, pack
from vtsum.model.encoders import frame_encoder_of
from vtsum.model.files import write_safetensors
from vtsum.model.ridge_saliency import RidgeSaliency
from vtsum.model.summarizer import EMBEDDED
from vtsum.model.tokenizer import vocabulary_text
from vtsum.model.vtsum import VTSum
from vtsum.recipes.command import FEATURES, check_model, status, tvsum, watched_of, whole
from vtsum.recipes.embeddings import embeddings, fingerprint
from vtsum.recipes.joint import Example, grid


@dataclass(frozen=True)
class BoundarySettings:
    epochs: int = 25
    """At most."""
    batch: int = 8
    lr: float = 2e-3
    weight_decay: float = 0.05
    noise: float = 0.3
    """Of the embeddings, in standard deviations."""
    dropout: float = 0.2
    """Of whole columns of a video's embeddings."""
    seed: int = 0


def with_boundary_head(model: VTSum, seed: int) -> VTSum:
    """The same weights in a model that has a fresh boundary head, in evaluation mode."""
    torch.manual_seed(seed)
    tokenizer = model.text_decoder.tokenizer if model.text_decoder is not None else None
    made = VTSum(dataclasses.replace(model.config, boundary_head=True), tokenizer)
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("boundary_head.")}
    made.load_state_dict(own, strict=False)
    made.encoder_state = model.encoder_state
    return made.eval()


def change_frames(video: TVSumVideo, times: np.ndarray) -> np.ndarray:
    """1 where a shot of the data set begins after the frame before and not after this one: float32 [T]."""
    begins = video.change_points[1:, 0] / video.fps
    number = np.searchsorted(begins, times, side="right")
    return (np.diff(number, prepend=number[:1]) > 0).astype(np.float32)


def _labels(video: TVSumVideo, times: np.ndarray) -> Tensor:
    """An annotator who takes every other shot, [1, T]: the spans that `boundary_targets` wants."""
    return torch.from_numpy(np.cumsum(change_frames(video, times)) % 2).float()[None]


def train_head(
    model: VTSum, examples: list[Example], settings: BoundarySettings, watched: list[Example] | None = None
) -> list[dict[str, float]]:
    """Train `model.boundary_head` alone.

    Returns:
        For each epoch the loss and, on the `watched` videos, loss and average precision.
    """
    head = model.boundary_head
    assert isinstance(head, BoundaryHead)
    model.requires_grad_(False).eval()
    head.requires_grad_(True).train()
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    spread = torch.from_numpy(np.concatenate([e.features for e in examples]).std(0))
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    history = []
    for epoch in range(settings.epochs):
        order, losses = rng.permutation(len(examples)), []
        for at in range(0, len(order), settings.batch):
            rows = [examples[i] for i in order[at : at + settings.batch]]
            x, mask, targets = _batch(rows, [grid(e, rng) for e in rows])
            x = x + torch.randn(x.shape) * spread * settings.noise
            keep = torch.rand(len(rows), 1, x.shape[2]) >= settings.dropout
            x = x * keep / (1 - settings.dropout)
            with torch.no_grad():
                frames = model.encode(x, mask)
            loss = boundary_loss(head(x, frames, mask), targets, mask)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        record = {"epoch": float(epoch + 1), "loss": float(np.mean(losses))}
        if watched:
            head.eval()
            record |= {f"watched_{k}": v for k, v in evaluate_head(model, watched).items()}
            head.train()
        history.append(record)
        print("boundaries: " + " ".join(f"{k} {v:.4g}" for k, v in record.items()), flush=True)
    model.requires_grad_(True).eval()
    return history


def _batch(rows: list[Example], grids: list[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings [B, T, C], mask [B, T] and targets [B, T]."""
    length = max(map(len, grids))
    x = torch.zeros(len(rows), length, rows[0].features.shape[1])
    labels = torch.zeros(len(rows), 1, length)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, (example, times) in enumerate(zip(rows, grids, strict=True)):
        x[i, : len(times)] = torch.from_numpy(example.at(times)[0])
        labels[i, :, : len(times)] = _labels(example.video, times)
        mask[i, : len(times)] = True
    return x, mask, boundary_targets(labels, mask)


@torch.inference_mode()
def evaluate_head(model: VTSum, examples: list[Example]) -> dict[str, float]:
    """On frames one second apart: the mean over videos of the loss and of the average precision, and what chance gives
    (the share of frames at which a shot begins)."""
    losses, precisions, chances = [], [], []
    for example in examples:
        x, mask, targets = _batch([example], [grid(example, None)])
        logits = model.boundary_logits(x, model.encode(x, mask), mask)
        losses.append(boundary_loss(logits, targets, mask).item())
        true = change_frames(example.video, grid(example, None)) > 0
        precisions.append(average_precision(logits[0].numpy(), true))
        chances.append(float(true.mean()))
    return {
        "loss": float(np.mean(losses)),
        "average_precision": float(np.nanmean(precisions)),
        "chance": float(np.mean(chances)),
    }


def add_boundaries(
    model: VTSum, examples: dict[str, Example], settings: BoundarySettings
) -> tuple[VTSum, dict[str, Any]]:
    """The model with a trained head, and the facts about it for config.json."""
    split = every_fifth([e.video for e in examples.values()])
    watched = watched_of(split)
    rest = [k for k in split.train if k not in watched]
    trial = with_boundary_head(model, settings.seed)
    history = train_head(trial, [examples[k] for k in rest], settings, [examples[k] for k in watched])
    smooth = [
        float(np.mean([h["watched_average_precision"] for h in history[max(i - 2, 0) : i + 3]]))
        for i in range(len(history))
    ]
    epochs = 1 + int(np.argmax(smooth))
    made = with_boundary_head(model, settings.seed)
    train_head(made, [examples[k] for k in split.train], dataclasses.replace(settings, epochs=epochs))
    return made, {
        "epochs": epochs,
        "watched": history[epochs - 1],
        "held_out": evaluate_head(made, [examples[k] for k in split.test]),
    }


def embed(folder: Path, shared: Path, videos: list[TVSumVideo], cache: Path) -> dict[str, Example]:
    """Embeddings of all stored frames by the folder's own encoder, kept in `cache`."""
    checkpoint = VTSum.load_checkpoint(folder)
    encoder = frame_encoder_of(checkpoint.model.config.frame_encoder, checkpoint.encoder_state)

    def encode(images: np.ndarray) -> np.ndarray:
        return np.concatenate([encoder.encode(images[i : i + 64]) for i in range(0, len(images), 64)])

    whose = fingerprint(str(checkpoint.model.config.frame_encoder), checkpoint.encoder_state)
    kept = embeddings(cache, whose, shared, videos, encode)
    return {v.key: Example.make(v, kept[f"{v.key}/features"], kept[f"{v.key}/index"], []) for v in videos}


def write(model: VTSum, facts: dict[str, Any], folder: Path, ridge: RidgeSaliency | None = None) -> None:
    """A model folder as the embedded one lies in the package: half precision, its encoder's weights with it."""
    assert model.text_decoder is not None
    with replacing(folder) as part:
        write_safetensors(pack(model, model.encoder_state, ridge=ridge), part(WEIGHTS))
        part(VOCABULARY).write_text(vocabulary_text(model.text_decoder.tokenizer), encoding="utf-8")
        part(CONFIG).write_text(config_text(model.config, facts), encoding="utf-8")
    VTSum.load_checkpoint(folder)


def install(folder: Path, target: Path = EMBEDDED) -> None:
    """Copy a model folder into the package."""
    with replacing(target) as part:
        for name in (CONFIG, VOCABULARY, WEIGHTS):
            shutil.copyfile(folder / name, part(name))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds tvsum/")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="model folder to start from")
    parser.add_argument("--out", type=Path, default=Path("runs/boundaries"))
    parser.add_argument("--epochs", type=whole(1), default=BoundarySettings.epochs)
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--install", action="store_true", help="copy the model into vtsum/assets/embedded")
    parser.add_argument("--overwrite", action="store_true", help="replace an older model")
    a = parser.parse_args(arguments)

    def work() -> None:
        check_inputs("boundaries", a.out / "model", [a.model, a.shared])
        check_model("boundaries", a.out, a.overwrite)
        videos = tvsum("boundaries", a.shared)
        examples = embed(a.model, a.shared, videos, a.out / FEATURES)
        checkpoint = VTSum.load_checkpoint(a.model)
        made, facts = add_boundaries(checkpoint.model, examples, BoundarySettings(epochs=a.epochs, seed=a.seed))
        check_model("boundaries", a.out, a.overwrite)  # somebody may have put it there meanwhile
        write(made, {**checkpoint.facts, "boundaries": facts}, a.out / "model", checkpoint.ridge)
        print(json.dumps(facts, indent=1))
        if a.install:
            install(a.out / "model")

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
