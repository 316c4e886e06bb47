"""DSNet in its anchor-free form, written anew after its paper.

Source: Zhu et al., "DSNet: A Flexible Detect-to-Summarize Network for Video Summarization", IEEE TIP 2021: an attention
of 8 heads over all frames, a residual and a layer of 128; from these for each frame whether it belongs to the summary,
how far that piece reaches to either side, and how near its middle the frame is. Wanted are the keyshots by the raters'
mean. Focal loss, IoU loss and cross entropy count alike. A piece is worth the first times the last of these; of pieces
that overlap by half or more the best stays, and a frame's score is the best of the pieces over it. Learning rate,
decay and one video a step as in its released settings, the epoch selected by F. Of their 300 epochs EPOCHS are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtsum.benchmarks.selected import seeded, train_selected
from vtsum.data.tvsum import TVSumVideo
from vtsum.evaluation.fscore import machine_summary

EPOCHS = 14
HIDDEN = 128
OVERLAP = 0.5
"""Of two pieces, as their common frames' share of all of theirs: from here on the worse one goes."""
_HEADS = 8
_GAMMA = 2.0


class Network(nn.Module):
    """Features [1, P, C] -> three logits or logarithms: in the summary [P], reaches to the left and right in picks
    [P, 2], in the middle [P]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        width = max(1, dim // _HEADS) * _HEADS
        self.query, self.key, self.value = (nn.Linear(dim, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, dim, bias=False)
        self.norm, self.norm_hidden = nn.LayerNorm(dim), nn.LayerNorm(HIDDEN)
        self.hidden = nn.Linear(dim, HIDDEN)
        self.chosen, self.reach, self.middle = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            layer(x[0]).unflatten(-1, (_HEADS, -1)).transpose(0, 1) for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        read = self.drop(self.out((self.drop(weights) @ v).transpose(0, 1).flatten(1)))
        y = self.norm_hidden(self.drop(F.relu(self.hidden(self.norm(read + x[0])))))
        return self.chosen(y)[:, 0], self.reach(y), self.middle(y)[:, 0]


class DSNet:
    """After `vtsum.protocols.Method`."""

    def __init__(self, device: str = "cpu", epochs: int = EPOCHS, learning_rate: float = 5e-5) -> None:
        self._device, self._epochs, self._learning_rate = device, epochs, learning_rate

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        wanted = [(v.features, wanted_pieces(machine_summary(v.gtscore, v)[v.picks])) for v in videos]
        width = self._tensor(videos[0].features).shape[1]
        # A video without keyshots, of one long shot or of scores 0 throughout, says nothing of pieces.
        examples = [(self._tensor(features), self._tensor(pieces)) for features, pieces in wanted if pieces[:, 0].any()]
        with seeded(seed):
            self._model = model = Network(width).to(self._device)
            train_selected(
                model,
                examples,
                validation,
                predict=self.predict,
                loss=lambda x, pieces: loss(model(x), pieces),
                optimizer=torch.optim.Adam(model.parameters(), lr=self._learning_rate, weight_decay=1e-5),
                epochs=self._epochs,
                select="f",
            )

    @torch.no_grad()
    def predict(self, features: np.ndarray) -> np.ndarray:
        chosen, reach, middle = self._model(self._tensor(features)[None])
        worth = (chosen.sigmoid() * middle.sigmoid()).cpu().numpy()
        at = np.arange(len(worth))
        left, right = reach.exp().cpu().numpy().T
        pieces = np.stack([at - left, at + right + 1], axis=1).clip(0, len(worth)).round().astype(np.int64)
        return best_over(worth, pieces)

    def _tensor(self, values: np.ndarray | None) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self._device)


def wanted_pieces(kept: np.ndarray) -> np.ndarray:
    """Of the picks that a summary keeps, bool [P]: 1 where it does, and the kept picks without a gap to the left and
    to the right of it: float32 [P, 3], 0 where it does not."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]))).reshape(-1, 2)
    wanted = np.zeros((len(kept), 3), np.float32)
    for first, end in edges:
        places = np.arange(first, end)
        wanted[first:end] = np.stack([np.ones(end - first), places - first, end - 1 - places], axis=1)
    return wanted


def loss(said: tuple[Tensor, Tensor, Tensor], wanted: Tensor) -> Tensor:
    """What `Network` says of each pick against `wanted_pieces` [P, 3]."""
    chosen, reach, middle = said
    kept = wanted[:, 0] > 0
    missed = F.binary_cross_entropy_with_logits(chosen, wanted[:, 0], reduction="none")
    # No weights of the classes: the released form adds up alpha and 1 - alpha for each pick.
    focal = missed * (1 - (-missed).exp()) ** _GAMMA
    found, sides = reach[kept].exp(), wanted[kept, 1:]
    common = torch.minimum(found, sides).sum(1)
    overlap = common / (found.sum(1) + sides.sum(1) - common)
    centred = sides.amin(1) / (sides.amax(1) + 1e-8)
    return (
        focal.sum() / kept.sum()
        - (overlap + 1e-8).log().mean()
        + F.binary_cross_entropy_with_logits(middle[kept], centred)
    )


def best_over(worth: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """The greatest worth, [P], of the pieces (first pick and end, int [P, 2]) over each pick that no better one
    overlaps by OVERLAP; 0 where none is: [P]."""
    scores = np.zeros(len(worth), worth.dtype)
    order = np.argsort(-worth, kind="stable")
    while len(order):
        first, end = pieces[order[0]]
        scores[first:end] = np.maximum(scores[first:end], worth[order[0]])
        firsts, ends = pieces[order].T
        common = np.maximum(np.minimum(ends, end) - np.maximum(firsts, first), 0)
        order = order[common < OVERLAP * (np.maximum(ends, end) - np.minimum(firsts, first))]
    return scores
