"""VTSum's visual path on the field's features: position embeddings, temporal transformer, memory bank, local attention.

The features, of length 1, are turned to the principal components of the training frames first: 40 videos are few for
the network's full width, and a ridge on 256 components ranks as well as one on all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vtsum.benchmarks.ridge import rank_target
from vtsum.benchmarks.selected import seeded, train_selected
from vtsum.config import VTSumConfig
from vtsum.data.tvsum import TVSumVideo
from vtsum.model import VTSum

WIDTH = 256
HEADS = 4
EPOCHS = 30


class VisualPath:
    """After `vtsum.protocols.Method`: binary cross entropy against where each frame stands among its video's
    (`rank_target`), AdamW, the epoch selected by rho.

    Args:
        kernel_size: window of the local attention in picks, odd; None: there is none. memory_slots: 0: no memory.
    """

    def __init__(
        self, device: str = "cpu", kernel_size: int | None = 5, memory_slots: int = 64, epochs: int = EPOCHS
    ) -> None:
        self._device, self._kernel_size, self._slots, self._epochs = device, kernel_size, memory_slots, epochs

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        self._learn_components([video.features for video in videos])
        examples = [(self._inputs(v.features), torch.as_tensor(rank_target(v), device=self._device)) for v in videos]
        config = VTSumConfig(
            width=self._basis.shape[1],
            num_heads=HEADS,
            kernel_size=self._kernel_size,
            memory_slots=self._slots,
            dropout=0.3,
            lambda_vsum=1.0,
        )
        with seeded(seed):
            self._model = model = VTSum(config).to(self._device)
            train_selected(
                model,
                examples,
                validation,
                predict=self.predict,
                loss=lambda x, wanted: model(x, vsum_labels=wanted[None, None]).loss,
                optimizer=torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.05),
                epochs=self._epochs,
                select="rho",
            )

    @torch.no_grad()
    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._model(self._inputs(features)[None]).saliency_logits[0].cpu().numpy()

    def _learn_components(self, features: Sequence[np.ndarray | None]) -> None:
        rows = np.concatenate([_unit(part) for part in features])
        self._mean = rows.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(rows - self._mean, rowvar=False))
        width = min(WIDTH, len(values) // HEADS * HEADS)
        self._basis = vectors[:, ::-1][:, :width] / np.sqrt(max(float(values[-width:].mean()), 1e-12))

    def _inputs(self, features: np.ndarray | None) -> Tensor:
        rows = (_unit(features) - self._mean) @ self._basis
        return torch.as_tensor(rows, dtype=torch.float32, device=self._device)


def _unit(features: np.ndarray | None) -> np.ndarray:
    assert features is not None  # no method is run without
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
