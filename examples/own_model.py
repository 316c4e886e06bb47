"""A model of one's own in 30 lines: VTSum with a saliency head that also looks at how a frame differs from its video.

cd examples
vtsum train --architecture own_model:Contrast --loss own_model:TopFrames --data CORPUS --output_dir runs/contrast
vtsum evaluate --architecture own_model:Contrast --checkpoint runs/contrast --data CORPUS
"""

import torch
from torch import nn

from vtsum.model import VTSum


class Contrast(VTSum):
    def __init__(self, config, tokenizer=None):
        super().__init__(config, tokenizer)
        dim = config.width
        self.saliency_head = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def saliency_logits(self, frames):
        """[B, T, C] -> [B, T]; padded frames, few and like each other, move the mean a little."""
        return self.saliency_head(torch.cat([frames, frames - frames.mean(-2, keepdim=True)], -1))[..., 0]


class TopFrames:
    """A loss of one's own: how far the softmax over a video's frames is from the annotators' votes."""

    def saliency_loss(self, logits, labels, mask):
        votes = labels.float().mean(-2)
        logits = logits if mask is None else logits.masked_fill(~mask, -1e4)
        return -(votes / votes.sum(-1, keepdim=True).clamp_min(1) * logits.log_softmax(-1)).sum(-1).mean()
