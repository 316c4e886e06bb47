"""The small frame encoder that ships with VTSum.

A residual network for 128 x 128 pictures, about 2.9 million weights and 0.3 billion multiply-adds a frame. Dense 3 x 3
convolutions throughout: on CPUs they run near the machine's peak, where depthwise ones run at a fraction of it. It is
distilled from an ImageNet MobileNetV1 by `vtsum.recipes.distill`.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGE_SIZE = 128
EMBEDDING_DIM = 256
STAGES = ((48, 2), (96, 2), (176, 2), (208, 1))  # (channels, residual blocks), each stage at half the last one's size


class ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm; `fuse` folds the second into the first for inference."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
        )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)
        # Starting the block as the identity lets the first epochs train a shallow network.
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class EmbeddedEncoder(nn.Module):
    """Frames to embeddings.

    forward(images): [N, 3, 128, 128], RGB in 0..1 (float) -> [N, 256], the teacher's principal components, scaled so
    that each has a variance near the square root of its share.
    """

    def __init__(self, dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 24, stride=2)
        layers: list[nn.Module] = []
        c_in = 24
        for channels, blocks in STAGES:
            layers += [ConvNorm(c_in, channels, stride=2), nn.ReLU()]
            layers += [Residual(channels) for _ in range(blocks)]
            c_in = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(c_in, dim)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem(images * 4.0 - 2.0))
        x = self.body(x)
        return self.head(x.mean(dim=(2, 3)))

    def embed(self, images: Tensor) -> Tensor:
        """`forward` with each row scaled to length sqrt(256): what the summarizer reads.

        The direction says what is seen; the length mostly how much contrast the picture has.
        """
        return F.normalize(self(images), dim=1) * math.sqrt(self.head.out_features)

    @torch.no_grad()
    def fuse(self) -> EmbeddedEncoder:
        """Fold every batch norm into its convolution, in place, for inference; the module cannot be trained after."""
        self.eval()
        for m in self.modules():
            if isinstance(m, ConvNorm) and isinstance(m[1], nn.BatchNorm2d):
                m[0] = fuse_conv_bn_eval(cast(nn.Conv2d, m[0]), m[1])
                m[1] = nn.Identity()
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
