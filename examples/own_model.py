"""A model of one's own in few lines: VTSum with a saliency head of two layers, and a loss.

cd examples
vtsum train --architecture own_model:TwoLayers --loss own_model:TopFrames --data CORPUS --output_dir runs/two_layers
vtsum evaluate --architecture own_model:TwoLayers --checkpoint runs/two_layers --data CORPUS
"""

from torch import nn

from vtsum.model import VTSum


class TwoLayers(VTSum):
    def __init__(self, config, tokenizer=None):
        super().__init__(config, tokenizer)
        dim = config.width
        self.saliency_head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))


class TopFrames:
    """A loss of one's own: how far the softmax over a video's frames is from the annotators' votes."""

    def saliency_loss(self, logits, labels, mask):
        votes = labels.float().mean(-2)
        logits = logits if mask is None else logits.masked_fill(~mask, -1e4)
        return -(votes / votes.sum(-1, keepdim=True).clamp_min(1) * logits.log_softmax(-1)).sum(-1).mean()
