"""Distil the embedded frame encoder from MobileNetV1 embeddings of the TVSum frames.

    python -m vtsum.recipes.distill --shared ../shared --out runs/embedded/encoder.safetensors

The target is the teacher's 1,024 numbers in their principal components (256), each divided by the fourth root of its
variance: between plain components, where a few directions are everything, and whitened ones, where noise is. The
components are fitted on the training videos alone. Every fifth video (`video_5`, `video_10`, ...) is held out and is
never trained on; all reported figures come from those ten.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vtsum.data.frames import read_frames, read_teacher
from vtsum.data.tvsum import TVSumVideo
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import every_fifth
from vtsum.files import check_inputs, check_new, plain, replacing
from vtsum.model.embedded_encoder import EMBEDDING_DIM, IMAGE_SIZE, EmbeddedEncoder
from vtsum.model.files import write_safetensors
from vtsum.recipes.command import status, tvsum, whole


@dataclass
class FrameSet:
    """Frames of several videos end to end: images uint8 [N, 128, 128, 3], teacher float32 [N, 1024]."""

    images: np.ndarray
    teacher: np.ndarray

    def __post_init__(self) -> None:
        if self.images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3) or len(self.images) != len(self.teacher):
            raise VTSumError(
                f"FrameSet: images must be [N, {IMAGE_SIZE}, {IMAGE_SIZE}, 3] with N rows of teacher, "
                f"got {list(self.images.shape)} and {len(self.teacher)} rows"
            )


def load_frames(shared: Path, videos: list[TVSumVideo]) -> FrameSet:
    images, teacher = [], []
    for video in videos:
        index, pictures = read_frames(shared / "tvsum" / "frames" / f"{video.name}.zip")
        teacher_index, features = read_teacher(shared / "tvsum" / "teacher" / f"{video.name}.npz")
        if not np.array_equal(index, teacher_index):
            raise VTSumError(f"load_frames: frames and teacher of {video.name} must cover the same frame indices")
        images.append(pictures)
        teacher.append(features)
    return FrameSet(np.concatenate(images), np.concatenate(teacher))


@dataclass
class Components:
    """The teacher's principal components: `code` to the student's target and `decode` back."""

    mean: Tensor  # [1024]
    basis: Tensor  # [1024, 256], columns divided by the fourth root of their variance
    inverse: Tensor  # [256, 1024]

    @staticmethod
    def fit(features: Tensor, dim: int) -> Components:
        mean = features.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((features - mean).T.double()))
        values, vectors = values[-dim:].flip(0), vectors[:, -dim:].flip(1)
        scale = values.clamp_min(1e-6).pow(0.25)
        return Components(mean, (vectors / scale).float(), (vectors * scale).T.float())

    def code(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis

    def decode(self, codes: Tensor) -> Tensor:
        return codes @ self.inverse + self.mean


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 [N, H, W, 3] -> float [N, 3, H, W] in 0..1: mirrored, shifted and scaled crops, light and colour."""
    size = images.shape[1]
    parts = []
    # One crop for each 16 pictures: slicing and resizing cost a tenth of a warp for each picture.
    for group in images.split(16):
        side = int(torch.randint(size * 3 // 4, size + 1, (1,), generator=generator))
        top, left = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
        x = group[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        parts.append(x.flip(3) if torch.rand(1, generator=generator) < 0.5 else x)
    x = torch.cat(parts).div_(255)
    n = x.shape[0]

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    gain = rand(0.75, 1.25, n, 1, 1, 1) * rand(0.9, 1.1, n, 3, 1, 1)
    grey = x.mean(1, keepdim=True)
    x = x.sub_(grey).mul_(rand(0.6, 1.4, n, 1, 1, 1)).add_(grey).mul_(gain).add_(rand(-0.08, 0.08, n, 1, 1, 1))
    return x.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def loss_of(codes: Tensor, teacher: Tensor, components: Components) -> Tensor:
    """Squared error of the codes (relative to their variance) + angle to the teacher, plain and about the mean."""
    target = components.code(teacher)
    squared = F.mse_loss(codes, target) / target.var()
    decoded = components.decode(codes)
    angle = 1 - F.cosine_similarity(decoded, teacher).mean()
    centred = 1 - F.cosine_similarity(decoded - components.mean, teacher - components.mean).mean()
    return squared + 2 * angle + centred


@torch.inference_mode()
def encode_all(encode: Callable[[Tensor], Tensor], images: np.ndarray, batch: int = 128) -> np.ndarray:
    """Images uint8 [N, H, W, 3] through `encode` (float [n, 3, H, W] to [n, C]), batch by batch."""
    out = []
    for i in range(0, len(images), batch):
        x = torch.from_numpy(images[i : i + batch]).permute(0, 3, 1, 2).float().div_(255)
        out.append(encode(x.contiguous(memory_format=torch.channels_last)).numpy())
    return np.concatenate(out)


def cosine_report(encoder: EmbeddedEncoder, test: FrameSet, components: Components) -> dict[str, float]:
    """On held-out frames: mean cosine to the teacher, and that of always predicting the training mean."""
    codes = torch.from_numpy(encode_all(encoder.eval(), test.images))
    teacher = torch.from_numpy(test.teacher)
    mean = components.mean
    return {
        "cosine": F.cosine_similarity(components.decode(codes), teacher).mean().item(),
        "cosine_of_mean": F.cosine_similarity(mean.expand_as(teacher), teacher).mean().item(),
        "centred_cosine": F.cosine_similarity(components.decode(codes) - mean, teacher - mean).mean().item(),
    }


def distill(shared: Path, out: Path, *, epochs: int = 14, seed: int = 0, overwrite: bool = True) -> dict[str, Any]:
    """Train on the frames of 40 TVSum videos, report on the other ten; see `train_encoder`."""
    videos = tvsum("distill", shared)
    split = every_fifth(videos)
    train = load_frames(shared, [v for v in videos if v.key in split.train])
    test = load_frames(shared, [v for v in videos if v.key in split.test])
    return train_encoder(train, test, out, epochs=epochs, seed=seed, overwrite=overwrite)


def train_encoder(
    train: FrameSet,
    test: FrameSet,
    out: Path,
    *,
    epochs: int,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    overwrite: bool = True,
) -> dict[str, Any]:
    """Train the encoder and write its weights (an average over steps) to `out`, the figures beside it as JSON; without
    `overwrite` not over files that are there in the end.

    Returns:
        The last epoch's loss and held-out cosines, and the `history` of all epochs.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if len(train.images) < batch or train.teacher.shape[1] < EMBEDDING_DIM:
        raise VTSumError(
            f"distill: training videos must have {batch} frames or more and a teacher of {EMBEDDING_DIM} numbers or "
            f"more, got {len(train.images)} frames and {train.teacher.shape[1]} numbers"
        )
    components = Components.fit(torch.from_numpy(train.teacher), EMBEDDING_DIM)
    encoder = EmbeddedEncoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = torch.optim.swa_utils.AveragedModel(
        encoder, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    average = cast(EmbeddedEncoder, averaged.module)
    decay = [p for p in encoder.parameters() if p.ndim > 1]
    rest = [p for p in encoder.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr)
    steps_per_epoch = len(train.images) // batch
    total = epochs * steps_per_epoch
    warmup = min(200, total // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warmup, 0.5 * (1 + math.cos(math.pi * s / total)) + 1e-3)
    )
    images = torch.from_numpy(train.images)
    teacher = torch.from_numpy(train.teacher)
    # Without instructions for them PyTorch convolves 16-bit numbers many times as slowly as those of 32 bits.
    quick = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    start = time.time()
    history = []
    for epoch in range(epochs):
        encoder.train()
        order = torch.randperm(len(images), generator=generator)
        losses = []
        for step in range(steps_per_epoch):
            chosen = order[step * batch : (step + 1) * batch]
            x = augment(images[chosen], generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=quick):
                codes = encoder(x)
            loss = loss_of(codes.float(), teacher[chosen], components)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(encoder)
            losses.append(loss.item())
            if step % 20 == 0:
                left = (
                    (time.time() - start)
                    / (epoch * steps_per_epoch + step + 1)
                    * (total - epoch * steps_per_epoch - step)
                )
                print(f"\repoch {epoch + 1}/{epochs} step {step}/{steps_per_epoch} loss {loss.item():.4f} "
                      f"left {left / 60:.1f} min ", end="", flush=True)  # fmt: skip
        record = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "minutes": (time.time() - start) / 60}
        record |= cosine_report(average, test, components)
        history.append(record)
        print("\r" + json.dumps({k: round(v, 4) for k, v in record.items()}), flush=True)
    report = {**history[-1], "history": history, "epochs": epochs, "batch": batch, "lr": lr, "seed": seed}
    _check_new(out, overwrite)  # somebody may have put it there meanwhile
    with replacing(out.parent) as part:  # those of one training lie beside each other, killed or not
        write_safetensors(average.state_dict(), part(out.name))
        part(out.with_suffix(".json").name).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _check_new(out: Path, overwrite: bool) -> None:
    for path in (out, out.with_suffix(".json")):
        check_new("distill", path, overwrite)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds tvsum/ (h5, frames, teacher)")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded/encoder.safetensors"))
    parser.add_argument("--epochs", type=whole(1), default=14)
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace older weights and figures")
    a = parser.parse_args(arguments)

    def work() -> None:
        if a.out.suffix == ".json":
            raise VTSumError(f"distill: out must not end in .json, as its figures do, got {plain(a.out)}")
        for path in (a.out, a.out.with_suffix(".json")):
            check_inputs("distill", path, [a.shared])
        _check_new(a.out, a.overwrite)
        distill(a.shared, a.out, epochs=a.epochs, seed=a.seed, overwrite=a.overwrite)

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
