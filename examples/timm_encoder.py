"""A backbone of timm as a frame encoder of one's own: two of its stages side by side, where "timm:NAME" gives the last.

cd examples
vtsum extract my_videos/ -o feats --encoder timm_encoder:TwoStages
"""

import hashlib

import numpy as np
import torch
from vtsum_kernels.integrations import torchvision_free

torchvision_free.prepare()  # timm wants torchvision, whose build need not fit the CPU's torch
import timm  # noqa: E402


class TwoStages:
    backbone = "resnet18.a1_in1k"

    def __init__(self):
        self.name = f"two stages of {self.backbone}"
        self.network = timm.create_model(self.backbone, pretrained=True, features_only=True, out_indices=(-2, -1))
        self.network.eval()
        self.image_size = self.network.pretrained_cfg["input_size"][-1]
        self.dim = sum(self.network.feature_info.channels())
        weights = hashlib.sha256()
        for value in self.network.state_dict().values():
            weights.update(value.contiguous().numpy().tobytes())
        self.weights_sha256 = weights.hexdigest()

    @torch.inference_mode()
    def encode(self, images):  # uint8 [N, S, S, 3] -> float32 [N, C]
        found = self.network.pretrained_cfg
        mean, std = (torch.tensor(found[name]).view(3, 1, 1) for name in ("mean", "std"))
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        stages = self.network((pixels - mean) / std)
        return torch.cat([stage.mean(dim=(2, 3)) for stage in stages], dim=1).numpy()
