"""Any backbone of timm as a frame encoder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtsum.errors import VTSumError
from vtsum.model import torchvision_free
from vtsum.model.files import read_pt, read_safetensors
from vtsum.model.frame_encoder import NetworkFrameEncoder
from vtsum.model.pretrained import first_line
from vtsum.reading import read_json

PREFIX = "timm:"
FILES = ("model.safetensors", "pytorch_model.bin")


class TimmFrameEncoder(NetworkFrameEncoder):
    """The pooled features of a timm model, at the picture size and with the normalisation that timm gives for it.

    Args:
        name: "timm:NAME", with timm's pretrained weights from the local cache or the hub; or "timm:NAME@PATH", with the
            weights of a .safetensors or .pth file in timm's names, or of a folder as timm saves one for the hub.
    Raises:
        VTSumError: timm is not installed, has no such model, or the weights cannot be had or do not fit.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu") -> None:
        torchvision_free.prepare()
        try:
            import timm
        except ImportError:
            raise VTSumError(
                f"load_frame_encoder: {name!r} needs timm, which is not installed: pip install 'vtsum[models]'"
            ) from None
        model, _, path = name.removeprefix(PREFIX).partition("@")
        network = _from_path(model, Path(path)) if path else _pretrained(model)
        data = timm.data.resolve_model_data_config(network)
        height, width = data["input_size"][1:]
        if height != width:
            raise VTSumError(
                f"load_frame_encoder: {name!r} must read square pictures, got {height} x {width} by its configuration"
            )
        network.eval()
        with torch.inference_mode():
            dim = network(torch.zeros(1, 3, height, width)).shape[1]
        super().__init__(name, network, height, dim, data["mean"], data["std"], device)

    def features(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


def _create(model: str, **options: Any) -> Any:
    import timm

    return timm.create_model(model, num_classes=0, **options)


def _pretrained(model: str) -> Any:
    try:
        return _create(model, pretrained=True)
    except Exception as error:  # timm, the hub's client and its transport raise a dozen kinds
        raise VTSumError(
            f"load_frame_encoder: {PREFIX}{model} must be a timm model whose pretrained weights lie in the local cache "
            f"or can be fetched, got: {first_line(error)}; or give weights of your own as {PREFIX}{model}@PATH"
        ) from None


def _from_path(model: str, path: Path) -> Any:
    """The model with the weights of a file or of a folder in the hub's layout, whose config.json then says the rest."""
    config: dict[str, Any] = {}
    file = path
    if path.is_dir():
        if (path / "config.json").is_file():
            config = read_json(path / "config.json", dict, "load_frame_encoder")
        file = next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])
    if not file.is_file():
        raise VTSumError(f"load_frame_encoder: weights of {PREFIX}{model} must be a file or folder, got no {file}")
    if file.suffix == ".safetensors":
        state: Any = read_safetensors(file, "load_frame_encoder")
    else:
        state = read_pt(file, "load_frame_encoder")
        if isinstance(state, dict):
            state = state.get("state_dict", state.get("model", state))
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise VTSumError(f"load_frame_encoder: {file} must hold weights by name, got {type(state).__name__}")
    try:
        import timm

        overlay = {k: v for k, v in config.get("pretrained_cfg", {}).items() if k in ("mean", "std", "input_size")}
        arguments = {k: v for k, v in config.get("model_args", {}).items() if k != "num_classes"}
        if own := set(arguments) & set(inspect.signature(timm.create_model).parameters):
            raise VTSumError(
                f"load_frame_encoder: model_args of {path / 'config.json'} must be the model's, got {min(own)}"
            )
        network = _create(model, pretrained_cfg_overlay=overlay, **arguments)
        problems = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise VTSumError(
            f"load_frame_encoder: {file} must hold weights of {model!r}, got: {error}".split("\n")[0]
        ) from None
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    unexpected = [k for k in problems.unexpected_keys if not k.startswith(tuple(f"{head}." for head in heads))]
    if problems.missing_keys or unexpected:
        raise VTSumError(
            f"load_frame_encoder: {file} must hold weights of {model!r}, missing {problems.missing_keys[:3]}, "
            f"unexpected {unexpected[:3]}"
        )
    return network
