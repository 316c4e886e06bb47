"""What all ranks of a call must say alike, compared in one small message."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import torch

from .group import OPTIONS, Group, everyones

#: What a rank may say: compared as 64 bits.
Value = int | float | bool | str | torch.dtype | None


def agree(
    group: Group, own: Mapping[str, int], alike: Mapping[str, Value], choices: Mapping[str, tuple[Value, ...]],
    device: torch.device,
) -> list[dict[str, int]]:  # fmt: skip
    """Each rank's `own` numbers, where all ranks say the same of what must be `alike`.

    choices: the values that an entry of `alike` may have, where it is no number.

    Raises:
        ValueError: two ranks differ; on all ranks.
        RuntimeError: a rank does not answer.
    """
    values = [_bits(value) for value in own.values()]
    values += [choices[name].index(value) if name in choices else _bits(value) for name, value in alike.items()]
    mine = torch.tensor(values, dtype=torch.int64, device=device)
    everyone = torch.stack(everyones(group, mine, OPTIONS)).tolist()
    for n, (name, value) in enumerate(alike.items(), len(own)):
        for rank, said in enumerate(everyone):
            if said[n] != everyone[0][n]:
                first, other = (
                    choices[name][bits] if name in choices else _read(bits, value) for bits in (everyone[0][n], said[n])
                )
                raise ValueError(
                    f"{group.op}: {name} must be the same on all ranks of the group, "
                    f"got {first} on its rank 0 and {other} on its rank {rank}"
                )
    return [dict(zip(own, said, strict=False)) for said in everyone]


def _bits(value: Value) -> int:
    if isinstance(value, float):
        return int(struct.unpack("<q", struct.pack("<d", value))[0])
    return min(int(value), 2**63 - 1)  # type: ignore[arg-type]


def _read(bits: int, like: Value) -> Value:
    return float(struct.unpack("<d", struct.pack("<q", bits))[0]) if isinstance(like, float) else bits
