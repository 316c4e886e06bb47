"""Files of weights: safetensors written and read, torch.save's too, these without running what is in it."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vtsum.errors import VTSumError, first_line
from vtsum.files import written
from vtsum.model.pickled import LONGEST_NAME, OddBytes, check_pickle
from vtsum.model.pickled_keys import EndlessKeys
from vtsum.reading import misfit
from vtsum.shown import reason
from vtsum.zips import opened

COUNTS = ("num_batches_tracked", "position_ids")
"""How the names of tensors end that are whole numbers in every network."""
_LITTLE = 1 << 16  # bytes that may be asked for without a look at how many there are
_LIST = 1 << 24  # bytes of the list of an archive's tensors: a hundred thousand of them


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `state` to `path` through `written`, which also makes it readable for whom the umask says: safetensors' own
    files are their owner's alone, and a model's folder is shared."""
    with written(path) as part:
        write_safetensors(state, part, metadata)


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `state` to a file of `written` or `replacing`."""
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path, metadata)


def write_pt(content: Any, path: Path) -> None:
    """torch.save through a file of Python's, whose error says why it could not be written; torch's own says not.

    Raises:
        OSError, RuntimeError: it cannot be written; `vtsum.shown.reason` says why.
    """
    with open(path, "wb") as file:
        torch.save(content, file)


def read_pt(path: str | os.PathLike[str], op: str, *, mmap: bool = False) -> Any:
    """What torch.save wrote, on the CPU. Nothing but tensors and plain data is unpickled, so no code is ever run.

    mmap: leave the numbers in the file until they are asked for, if it is an archive, as torch writes since 1.6.

    Raises:
        VTSumError: the file is broken or no such file, or holds something else, or a tensor of more numbers than the
            file has.
    """
    _check_regular(path, op)
    try:
        _check_size(path)
        archived = _is_archive(path)
        with warnings.catch_warnings():  # of odd pickles, torch has more to say than is of use to anybody here
            warnings.simplefilter("ignore")
            _check_pickles(path, archived)
            if archived:
                content = torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
            else:  # as torch.save wrote before 1.6
                with _Bounded(io.FileIO(path)) as file:
                    content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"WeightsUnpickler error: (.+)", str(error))
        raise VTSumError(
            f"{op}: {path} must hold tensors and plain data alone, got {found[1] if found else 'something else'}"
        ) from None
    except Exception as error:  # pickle, zip and the file system, each with kinds of its own
        raise VTSumError(f"{op}: {path} must be whole and written by torch.save, got: {first_line(error)}") from None
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        # A pickle gives tensors and ordered dictionaries attributes of its own, and one called "keys" or "values",
        # which may be a class, would hide from every look what others then find by "items".
        if attributes := getattr(value, "__dict__", None):
            if isinstance(value, Tensor | Mapping) and (shadowed := sorted(attributes.keys() & set(dir(type(value))))):
                kind = "tensors" if isinstance(value, Tensor) else "dictionaries"
                raise VTSumError(f"{op}: {path} must hold {kind} with their own methods, got another {shadowed[0]}")
            if isinstance(value, Mapping):
                waiting += attributes.values()
        if isinstance(value, Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu"
            if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
                raise VTSumError(f"{op}: {path} must hold whole tensors, got one of {list(value.shape)} without them")
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value
    return content


def weights_misfit(error: Exception) -> str:
    """Why weights, or what an optimizer keeps of them, were not taken: torch's word on the first that does not fit, or
    what `misfit` says."""
    lines = [line.strip() for line in str(error).splitlines()]
    if isinstance(error, RuntimeError) and lines and not lines[0].startswith("Error(s) in loading"):
        return lines[0]
    return lines[1] if isinstance(error, RuntimeError) and len(lines) > 1 else misfit(error)


_PICKLES = 5
"""With which torch.save's files began before 1.6: a sign, its version, the machine, the content, what it lies in."""


class _Bounded(io.BufferedReader):
    """A file that is never asked for more than it has: the memory for it would be taken first. Its lines, names of
    classes in a pickle, are as short as such names are."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= _LITTLE:  # a sign of a pickle, and another, and another
            return super().read(size)
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(LONGEST_NAME)
        if len(line) == LONGEST_NAME:
            raise ValueError(f"a name of more than {LONGEST_NAME} characters")
        return line


def _check_pickles(path: str | os.PathLike[str], archived: bool) -> None:
    """Raise ValueError for a file of which `check_pickle` refuses a pickle."""
    if not archived:
        with _Bounded(io.FileIO(path)) as file:
            try:
                for _ in range(_PICKLES):
                    check_pickle(file)
            except (OddBytes, EndlessKeys):
                raise
            except Exception:  # it is broken there, of which torch, which comes no further either, says more
                return
        return
    reader = torch._C.PyTorchFileReader(os.fspath(path))
    if reader.has_record("data.pkl"):  # type: ignore[attr-defined]  # torch's stubs leave it out
        check_pickle(reader.get_record("data.pkl"))


def _is_archive(path: str | os.PathLike[str]) -> bool:
    """By torch's own rule, which is not zipfile's: that one looks at the end."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_size(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for an archive that would unpack to more than it is: torch.save compresses nothing."""
    if zipfile.is_zipfile(path):
        with opened(path, _LIST) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > (size := os.path.getsize(path)):
            raise ValueError(f"{size} bytes that unpack to {unpacked}")


def _check_regular(path: str | os.PathLike[str], op: str) -> None:
    """Raise VTSumError where something else than a file lies: a pipe would be waited for."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise VTSumError(f"{op}: {path} must be a regular file, got something else")


def check_readable(path: str | os.PathLike[str], op: str) -> None:
    """Raise VTSumError for a file that may not be read: safetensors says of one that there is none."""
    try:
        with contextlib.suppress(FileNotFoundError), open(path, "rb"):
            pass
    except PermissionError as error:
        raise VTSumError(f"{op}: {path} must be a file that may be read: {reason(error)}") from None


def read_safetensors(path: str | os.PathLike[str], op: str) -> dict[str, Tensor]:
    """The weights of a safetensors file.

    Raises:
        VTSumError: the file is missing or broken.
    """
    _check_regular(path, op)
    check_readable(path, op)
    try:
        return load_file(path)
    except Exception as error:  # safetensors and the file system, each with kinds of its own
        raise VTSumError(f"{op}: {path} must be a safetensors file, got: {first_line(error)}") from None


def as_floats(name: str, value: Tensor, where: str) -> Tensor:
    """A weight as float32. Whole numbers and complex ones are none: of quantised weights, what they were divided by
    would be left out in silence, and of complex ones a half.

    Raises:
        VTSumError: it is one of those, and `name` is no count; `where` begins the message.
    """
    if not value.is_floating_point() and not name.endswith(COUNTS):
        raise VTSumError(
            f"{where}: {name} must be floating point numbers, got {str(value.dtype).removeprefix('torch.')}"
        )
    return value.float()


def check_floats(network: torch.nn.Module, state: Mapping[str, Any], where: str) -> None:
    """As `as_floats`, of all of `state` that becomes floating point numbers of `network`: its other tensors may be of
    other kinds.

    Raises:
        VTSumError: naming the first that is not to be one.
    """
    own = network.state_dict()
    for name, value in state.items():
        if name in own and own[name].is_floating_point() and isinstance(value, Tensor):
            as_floats(name, value, where)
