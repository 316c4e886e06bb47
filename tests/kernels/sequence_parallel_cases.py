"""What the tests of vtsum_kernels.distributed have their ranks try."""

from __future__ import annotations

from typing import Any

import torch

FRAMES = 40
#: How 40 frames lie on ranks: uneven, shorter than a window, none at all; and as they would without thought.
SHARES: dict[int, list[list[int]]] = {
    2: [[9, 31], [20, 20]],
    3: [[17, 2, 21], [40, 0, 0]],
    4: [[13, 0, 5, 22], [1, 1, 1, 37]],
}
#: Which processes are in the group of so many.
MEMBERS = {2: [1, 3], 3: [0, 2, 3], 4: [0, 1, 2, 3]}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "float32": {"dtype": torch.float32},
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "one key": {"window_size": 1},
    "all keys before": {"window_size": (-1, 2)},
    "all keys": {"window_size": (-1, -1)},
    "far beyond": {"window_size": (2**62, 3), "dilation": 2},
    "before alone": {"window_size": (6, 0)},
    "after alone": {"window_size": (0, 6)},
    "causal": {"window_size": 7, "causal": True},
    "dilated": {"window_size": (2, 3), "dilation": 4},
    "mask": {"mask": True},
    "lengths": {"lengths_mask": True},
    "bias": {"bias": True, "window_size": (4, 2)},
    "bias, float32": {"bias": True, "dtype": torch.float32},
    "dilated bias": {"bias": True, "dilation": 3, "window_size": (3, 5)},
    "sinks": {"sinks": True},
    "softcap": {"softcap": 0.7},
    "grouped heads": {"key_heads": 2},
    "scale": {"scale": 0.9},
    "shift": {"border": "shift"},
    "shift, uneven": {"border": "shift", "window_size": (5, 1), "bias": True},
    "shift, dilated": {"border": "shift", "window_size": (1, 3), "dilation": 3, "mask": True},
    "shift, all": {"border": "shift", "window_size": (30, 30)},
    "dropout": {"dropout_p": 0.4},
    "dropout, all": {"dropout_p": 0.4, "window_size": (-1, -1)},
    "dropout, float32": {"dropout_p": 0.3, "dtype": torch.float32, "window_size": (9, 4)},
    "everything": {
        "dropout_p": 0.2, "mask": True, "bias": True, "sinks": True, "softcap": 3.0, "key_heads": 1, "dilation": 2,
        "window_size": (4, 3), "dtype": torch.float64,
    },
    "everything, summed": {
        "dropout_p": 0.2, "lengths_mask": True, "bias": True, "sinks": True, "sum_gradients": True, "border": "shift",
        "dtype": torch.float32,
    },
    "reference": {"backend": "reference", "bias": True},
}  # fmt: skip

#: What the first rank of a group says otherwise than the others.
DISAGREEMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dilation": ({"dilation": 2}, {}),
    "window": ({"window_size": (3, 0)}, {"window_size": (3, 1)}),
    "border": ({"border": "shift"}, {}),
    "softcap": ({"softcap": 2.5}, {}),
    "mask": ({"key_mask": torch.tensor([20])}, {}),
    "bias": ({"bias": torch.zeros(2, 5)}, {}),
    "dtype": ({"dtype": torch.float64}, {}),
    "batch": ({"batch": 3}, {}),
    "gradient": ({"gradient": True}, {}),
    "seed": tuple({"dropout_seed": torch.tensor([n]), "dropout_p": 0.5} for n in (1, 2)),
    "lengths": ({"lengths": [10, 11], "dropout_p": 0.5}, {"lengths": [10, 10], "dropout_p": 0.5}),
    "some lengths": ({"lengths": [10, 10], "dropout_p": 0.5}, {"dropout_p": 0.5}),
}  # fmt: skip

#: Refused before anything is sent.
WRONG: dict[str, dict[str, Any]] = {
    "too few lengths": {"lengths": [4, 4]},
    "other lengths": {"lengths": [5, 5, 5]},
    "no group": {"group": "data"},
}

#: The same of attention to all frames.
WRONG_FULL: dict[str, dict[str, Any]] = {
    "full, too few lengths": {"lengths": [4, 4]},
    "full, other lengths": {"lengths": [5, 5, 5]},
    "full, other shapes": {"k": torch.ones(1, 1, 5, 4)},
    "full, mask of a stretch": {"key_mask": torch.ones(1, 4, dtype=torch.bool)},
}
