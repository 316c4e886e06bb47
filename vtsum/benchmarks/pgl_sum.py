"""PGL-SUM, written anew after its paper.

Source: Apostolidis et al., "Combining Global and Local Attention with Positional Encoding for Video Summarization",
IEEE ISM 2021: one attention of 8 heads over all frames, one of 4 heads over each of 4 parts of the video, sinusoids of
the frames' places added to the products of queries and keys, both readings scaled to length 1 and added up, then a
residual and two layers of a regressor. Adam's rate and decay, the norm to which gradients are cut and the first weights
are those of its released settings. These train 200 epochs, each of one step on all videos together; here EPOCHS epochs
have a step for BATCH videos, which makes about as many steps of a fraction of the work. The epoch is selected by F, not
by the curve of the training loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtsum.benchmarks.selected import seeded, train_selected
from vtsum.data.tvsum import TVSumVideo

EPOCHS = 12
BATCH = 2
"""Videos a step: the 32 to learn from on TVSum make 16 steps an epoch, 192 in all."""
PARTS = 4
_HEADS, _PART_HEADS = 8, 4
_GAIN = 2**0.5


class Attention(nn.Module):
    """Frames [P, C] -> what each reads of them, [P, C]; the heads together are `width` wide, or a little less."""

    def __init__(self, dim: int, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        width = max(1, width // heads) * heads
        self.query, self.key, self.value = (nn.Linear(dim, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, dim, bias=False)
        self.drop = nn.Dropout(0.5)
        nn.init.xavier_uniform_(self.out.weight, gain=_GAIN)
        for layer in (self.query, self.key, self.value):
            for head in layer.weight.chunk(heads):
                nn.init.xavier_uniform_(head, gain=_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self._heads, -1)).transpose(0, 1) for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.mT + places(len(x), x)).softmax(-1)
        return self.out((self.drop(weights) @ v).transpose(0, 1).flatten(1))


def places(count: int, like: Tensor) -> Tensor:
    """[P, P]: in row p, columns 2i and 2i + 1, sine and cosine of p / 10000^(2i / C); C as in `like` [P, C]."""
    columns = torch.arange(count, device=like.device)
    rates = 10000.0 ** (-(columns // 2 * 2) / like.shape[1])
    angles = columns[:, None] * rates
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).to(like.dtype)


class Network(nn.Module):
    """Features [1, P, C] -> scores 0..1 [1, P]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.whole = Attention(dim, dim, _HEADS)
        self.parts = nn.ModuleList(Attention(dim, dim // PARTS, _PART_HEADS) for _ in range(PARTS))
        self.hidden, self.score = nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.norm_attention, self.norm_hidden = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.drop = nn.Dropout(0.5)
        for layer in (self.hidden, self.score):
            nn.init.xavier_uniform_(layer.weight, gain=_GAIN)
        for name, values in self.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(values, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x[0]
        pieces = frames.split(math.ceil(len(frames) / PARTS))  # of a very short video fewer than PARTS
        near = torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=False)])
        read = F.normalize(self.whole(frames)) + F.normalize(near)
        y = self.norm_attention(self.drop(read + frames))
        y = self.norm_hidden(self.drop(F.relu(self.hidden(y))))
        return self.score(y)[None, :, 0].sigmoid()


class PGLSum:
    """After `vtsum.protocols.Method`."""

    def __init__(self, device: str = "cpu", epochs: int = EPOCHS, learning_rate: float = 5e-5) -> None:
        self._device, self._epochs, self._learning_rate = device, epochs, learning_rate

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        examples = [(self._tensor(v.features), self._tensor(v.gtscore)) for v in videos]
        with seeded(seed):
            self._model = model = Network(examples[0][0].shape[1]).to(self._device)
            train_selected(
                model,
                examples,
                validation,
                predict=self.predict,
                loss=lambda x, wanted: F.mse_loss(model(x)[0], wanted),
                optimizer=torch.optim.Adam(model.parameters(), lr=self._learning_rate, weight_decay=1e-5),
                epochs=self._epochs,
                select="f",
                batch=BATCH,
                clip=5.0,
            )

    @torch.no_grad()
    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._model(self._tensor(features)[None])[0].cpu().numpy()

    def _tensor(self, values: np.ndarray | None) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self._device)
