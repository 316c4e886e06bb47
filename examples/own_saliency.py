"""A saliency model of one's own among the others on TVSum: two layers on each frame and its surroundings.

cd examples
vtsum benchmark tvsum --h5 tvsum.h5 --splits splits.json --method own_saliency:TwoLayers
"""

import copy

import numpy as np
import torch
from torch import nn

from vtsum.evaluation.baselines import score_video
from vtsum.model.neighbourhood import neighbourhood_features


def columns(features):
    return torch.from_numpy(neighbourhood_features(features, reach=(4, 15)))


class TwoLayers:
    def fit(self, videos, validation, seed):
        torch.manual_seed(seed)
        pairs = [(columns(video.features), torch.from_numpy(video.gtscore)) for video in videos]
        self.model = nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 1))
        self.model(pairs[0][0])  # the first layer learns its size
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.1)
        best, kept = -np.inf, None
        for _ in range(10):
            self.model.train()
            for i in torch.randperm(len(pairs)).tolist():
                inputs, wanted = pairs[i]
                wanted = (wanted - wanted.mean()) / wanted.std().clamp_min(1e-6)
                optimizer.zero_grad()
                nn.functional.mse_loss(self.model(inputs)[:, 0], wanted).backward()
                optimizer.step()
            self.model.eval()
            found = np.mean([score_video(self.predict(video.features), video).f for video in validation])
            if found > best:  # the epoch is selected on the validation videos
                best, kept = found, copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(kept)

    @torch.no_grad()
    def predict(self, features):
        return self.model(columns(features))[:, 0].numpy()
