"""Who describes pictures: image-text-to-text checkpoints of transformers, BLIP, or a part of the user's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vtsum import plugins
from vtsum.devices import device_of
from vtsum.errors import VTSumError
from vtsum.model.downloads import cached
from vtsum.model.frame_encoder import KNOWN
from vtsum.model.image_text import OP, ImageTextCaptioner
from vtsum.model.pretrained import from_pretrained, told_if_well
from vtsum.protocols import Captioner
from vtsum.reuse import reused

#: Those looked for in the hub's cache, the best first; the first line only where there is a GPU.
GPU_CHECKPOINTS = (
    *("Qwen/Qwen2.5-VL-7B-Instruct", "llava-hf/llava-onevision-qwen2-7b-ov-hf", "Qwen/Qwen2.5-VL-3B-Instruct"),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
)
CPU_CHECKPOINTS = (
    *("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"),
    *("HuggingFaceTB/SmolVLM-500M-Instruct", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"),
    "HuggingFaceTB/SmolVLM-256M-Instruct",
)
#: For who has none: small, and it asks for no package that is not ours.
SUGGESTED = "HuggingFaceTB/SmolVLM-500M-Instruct"


@reused
def make_captioner(name: str, device: str = "auto") -> Captioner:
    """The captioner of that name.

    Args:
        name: "blip", "blip-large"; the folder or hub name of a BLIP captioning or an image-text-to-text checkpoint; or
            one of the user's own (`vtsum.plugins`).
        device: as for `vtsum.model.chat.Chat`; the user's own knows by itself.
    Raises:
        VTSumError: there is none of that name.
    """
    if not Path(name).is_dir() and name not in KNOWN:
        own: Captioner | None = plugins.find("captioner", name)
        if own is not None:
            return own
        if "/" not in name:
            raise VTSumError(
                "captioner must be one of auto, embedded, none, blip, blip-large, a folder, a hub name or "
                f"module:Class, got {name!r}"
            )
    source = KNOWN.get(name, name)
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import AutoConfig

    with told_if_well():
        kind = from_pretrained(AutoConfig, source, "a checkpoint", OP).model_type
        if kind == "clip":
            raise VTSumError(f"captioner: {name!r} must be a checkpoint that writes sentences, got one of {kind!r}")
        if kind == "blip":
            from vtsum.model.blip_captions import BlipCaptioner

            return BlipCaptioner(source, device)
        return ImageTextCaptioner(source, device=device)


@reused
def best_at_hand(device: str = "auto") -> Captioner | None:
    """The best image-text-to-text checkpoint in the hub's cache; None where there is none. Nothing is fetched."""
    where = device_of(device, OP)
    for name in _cached(gpu=where.startswith("cuda")):
        with contextlib.suppress(VTSumError):  # half a download, or a GPU too small for it
            return ImageTextCaptioner(name, local=True, device=where)
    return None


def _cached(*, gpu: bool) -> Iterator[str]:
    for name in (*(GPU_CHECKPOINTS if gpu else ()), *CPU_CHECKPOINTS):
        if cached(name) is not None:
            yield name
