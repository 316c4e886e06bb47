"""VASNet, written anew after its paper.

Source: Fajtl et al., "Summarizing Videos with Attention", ACCV 2018 workshops (arXiv 1812.01969): one self-attention
over all frames, scaled by 0.06, a residual, and two layers of a regressor. Learning rate, decay and one video a step as
in its released settings, the epoch selected by F. Of their 100 epochs EPOCHS are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtsum.benchmarks.selected import seeded, train_selected
from vtsum.data.tvsum import TVSumVideo

EPOCHS = 20
_SCALE = 0.06


class Network(nn.Module):
    """Features [B, P, C] -> scores 0..1 [B, P]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key, self.query, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.hidden, self.score = nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.norm_attention, self.norm_hidden = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(0.5)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gain=2**0.5)
                if layer.bias is not None:
                    nn.init.constant_(layer.bias, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        weights = (_SCALE * self.query(x) @ self.key(x).mT).softmax(-1)
        read = self.out(self.drop(weights) @ self.value(x))
        x = self.norm_attention(self.drop(read + x))
        x = self.norm_hidden(self.drop(F.relu(self.hidden(x))))
        return self.score(x)[..., 0].sigmoid()


class VASNet:
    """After `vtsum.protocols.Method`."""

    def __init__(self, device: str = "cpu", epochs: int = EPOCHS, learning_rate: float = 5e-5) -> None:
        self._device, self._epochs, self._learning_rate = device, epochs, learning_rate

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        examples = [(self._tensor(v.features), self._tensor(_stretched(v.gtscore))) for v in videos]
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
            )

    @torch.no_grad()
    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._model(self._tensor(features)[None])[0].cpu().numpy()

    def _tensor(self, values: np.ndarray | None) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self._device)


def _stretched(scores: np.ndarray) -> np.ndarray:
    """From 0, the least of a video, to 1, its greatest."""
    return (scores - scores.min()) / max(float(np.ptp(scores)), 1e-12)
