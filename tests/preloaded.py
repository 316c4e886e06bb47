"""What commands import of others, for the process of `tests.forked` that is copied: no module of VTSum's."""

import importlib
import importlib.util

import torch

# As `vtsum_kernels.integrations.torchvision_free` does, whose package reads variables of ours.
if torch.version.cuda is None and importlib.util.find_spec("torchvision") is not None:
    declared = torch.library.Library("torchvision", "FRAGMENT")
    declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

for name in ("numpy", "av", "jinja2", "typer", "pydantic", "PIL.Image", "pytest", "scipy.optimize"):
    importlib.import_module(name)
for name in ("models.auto.tokenization_auto", "models.bert.tokenization_bert", "models.blip.modeling_blip_text"):
    importlib.import_module(f"transformers.{name}")
