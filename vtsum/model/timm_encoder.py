"""Any backbone of timm as a frame encoder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vtsum_kernels.integrations import torchvision_free

from vtsum.errors import VTSumError, first_line
from vtsum.model.files import check_floats, read_pt, read_safetensors
from vtsum.model.frame_encoder import NetworkFrameEncoder, check_deviation
from vtsum.model.pretrained import at_work, check_config, told_if_well
from vtsum.reading import named, read_json

PREFIX = "timm:"
LARGEST = 4096
"""Side of a picture that a configuration may ask for."""
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
        if ":" in model:  # of a folder or a repository, whose configuration and weights timm would read unchecked
            raise VTSumError(
                f"load_frame_encoder: {name!r:.200} must be timm:NAME, of a model that timm knows, or "
                "timm:NAME@FOLDER, got another source"
            )
        network = _from_path(model, Path(path)) if path else _pretrained(model)
        data = timm.data.resolve_model_data_config(network)
        height, width = data["input_size"][1:]
        if height != width:
            raise VTSumError(
                f"load_frame_encoder: {name!r} must read square pictures, got {height} x {width} by its configuration"
            )
        network.eval()
        with at_work(name, "load_frame_encoder"), torch.inference_mode():
            dim = network(torch.zeros(1, 3, height, width)).shape[1]
        super().__init__(name, network, height, dim, data["mean"], data["std"], device)

    def features(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


def _create(model: str, **options: Any) -> Any:
    import timm

    return timm.create_model(model, num_classes=0, **options)


def _pretrained(model: str) -> Any:
    try:
        with told_if_well():
            return _create(model, pretrained=True)
    except Exception as error:  # timm, the hub's client and its transport raise a dozen kinds
        raise VTSumError(
            f"load_frame_encoder: {PREFIX}{model} must be a timm model whose pretrained weights lie in the local cache "
            f"or can be fetched, got: {first_line(error)}; or give weights of your own as {PREFIX}{model}@PATH"
        ) from None


def _from_path(model: str, path: Path) -> Any:
    """The model with the weights of a file or of a folder in the hub's layout, whose config.json then says the rest."""
    overlay: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    file = path
    if path.is_dir():
        if (path / "config.json").is_file():
            overlay, arguments = _read_config(path / "config.json")
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
        raise VTSumError(f"load_frame_encoder: {file} must hold weights by name, got {named(state)}")
    try:
        with told_if_well():
            network = _create(model, pretrained_cfg_overlay=overlay, **arguments)
        check_floats(network, state, f"load_frame_encoder: {file}")
        problems = network.load_state_dict(state, strict=False)
    except VTSumError:
        raise
    except Exception as error:  # whatever timm's models make of arguments that are not theirs
        raise VTSumError(
            f"load_frame_encoder: {file} must hold weights of {model!r}, got: {first_line(error)}"
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


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How pictures are prepared, and the model's own arguments; nothing that says where weights come from."""
    import timm

    config = read_json(path, dict, "load_frame_encoder")
    parts = [config.get(name, {}) for name in ("pretrained_cfg", "model_args")]
    for name, part in zip(("pretrained_cfg", "model_args"), parts, strict=True):
        if not isinstance(part, dict):
            raise VTSumError(f"load_frame_encoder: {name} of {path} must be an object, got {part!r:.80}")
    overlay = {k: v for k, v in parts[0].items() if k in ("mean", "std", "input_size")}
    for name, values in overlay.items():
        numbers = isinstance(values, list) and len(values) == 3 and all(type(v) in (int, float) for v in values)
        if not numbers or (name == "input_size" and not all(type(v) is int and 0 < v <= LARGEST for v in values)):
            raise VTSumError(f"load_frame_encoder: {name} of {path} must be three sensible numbers, got {values!r:.80}")
    if "std" in overlay:
        check_deviation(overlay["std"], f"load_frame_encoder: std of {path}")
    check_config(parts[1], f"load_frame_encoder: {path}")
    arguments = {k: v for k, v in parts[1].items() if k != "num_classes"}
    if loading := set(arguments) & set(inspect.signature(timm.create_model).parameters):
        raise VTSumError(f"load_frame_encoder: model_args of {path} must be the model's, got {min(loading)}")
    return overlay, arguments
