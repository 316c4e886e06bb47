"""The numbers that lie in a transformers checkpoint's files, looked at before it is a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from vtsum.errors import VTSumError
from vtsum.model.files import check_readable, read_pt
from vtsum.reading import read_json

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"


def pickles(folder: Path, op: str) -> list[Path]:
    """The files of torch.save's that transformers would read of a checkpoint."""
    names = set[str]()
    if not any((folder / name).is_file() for name in (_WHOLE, _INDEX)):
        names.add(_PICKLE)
    if (config := folder / "config.json").is_file():
        names.add(str(read_json(config, dict, op, bits=128).get("transformers_weights")))
    for index in folder.glob("*.index.json"):
        shards = read_json(index, dict, op, bits=128).get("weight_map")
        names |= {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    return [
        path
        for name in sorted(names)
        if not name.endswith((".safetensors", ".json")) and (path := folder / name).is_file()
    ]


def check_stored(folder: Path, what: str, op: str) -> None:
    """Refuse weights that are no floating point numbers where nothing says how they were quantised: transformers takes
    the one for the other in silence. And files of torch.save's that `read_pt` refuses.

    Raises:
        VTSumError: naming the first.
    """
    config = folder / "config.json"
    quantised = config.is_file() and read_json(config, dict, op, bits=128).get("quantization_config") is not None
    for name, kind in _kinds(folder, op):
        if not quantised and name.endswith((".weight", ".bias")) and not kind.startswith(("F", "BF")):
            raise VTSumError(
                f"{op}: {what} must have floating point numbers for weights, got {str(folder)!r} with {name} of {kind}"
            )


def _kinds(folder: Path, op: str) -> Iterator[tuple[str, str]]:
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        check_readable(path, op)
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                kinds = [(name, file.get_slice(name).get_dtype()) for name in names]
        except (SafetensorError, OSError):
            continue  # the attempt to load it tells, if it is one of the model's at all
        yield from kinds
    for path in pickles(folder, op):
        content = read_pt(path, op, mmap=True)
        for name, value in content.items() if isinstance(content, dict) else ():
            if isinstance(value, Tensor):
                kind = str(value.dtype).removeprefix("torch.")
                yield str(name), f"F {kind}" if value.is_floating_point() else kind
