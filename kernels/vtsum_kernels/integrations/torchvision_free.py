"""Importing transformers' model classes beside a CPU build of torch.

timm brings a torchvision whose binary wants CUDA. Beside a CPU build of torch that binary is not loaded, its operators
are then missing, and `import torchvision` fails on registering their fake versions, and transformers with it. Declaring
the two operators first lets all three load; nothing here ever calls them.
"""

from __future__ import annotations

import importlib.util

import torch

_libraries: list[torch.library.Library] = []


def prepare() -> None:
    """Declare torchvision's operators where its binary cannot; call before importing a model class of transformers."""
    if _libraries or torch.version.cuda is not None or importlib.util.find_spec("torchvision") is None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in (
        ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _libraries.append(library)
