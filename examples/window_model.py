"""The window op in a plain model: frames are told apart by their neighbours, which a linear layer alone cannot do.

python examples/window_model.py [STEPS]
"""

import sys

import torch
from torch import nn
from vtsum_kernels import sliding_window_attention


class LocalModel(nn.Module):
    def __init__(self, width=32, heads=4, window_size=5):
        super().__init__()
        self.heads, self.window_size = heads, window_size
        self.qkv, self.out, self.head = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x, mask=None):  # [B, T, C] -> [B, T]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        attended = sliding_window_attention(q, k, v, self.window_size, key_mask=mask)  # [B, H, T, D]
        return self.head(x + self.out(attended.transpose(1, 2).flatten(2)))[..., 0]


def main(steps):
    torch.manual_seed(0)
    model = LocalModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        x = torch.randn(8, 64, 32)
        wanted = nn.functional.avg_pool1d(x[..., 0], 5, stride=1, padding=2, count_include_pad=False)
        loss = nn.functional.mse_loss(model(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: {loss.item():.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
