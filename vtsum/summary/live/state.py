"""The state of a stream as a file: arrays in an npz archive, read without anything that would run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from vtsum.data.feature_files import array_header, read_array, write_npz
from vtsum.errors import VTSumError
from vtsum.files import plain
from vtsum.reading import parse_json, said_of, whole_numbers
from vtsum.summary.live.shots import Shot, Store, Totals
from vtsum.summary.live.window import pieces
from vtsum.summary.typed import check_type
from vtsum.zips import opened

FILE = "live.npz"
FORMAT = "vtsum-live-state/1"
_EXACT = ".f64"  # ends the names of arrays of 64-bit numbers, which are kept as integers of the same bits
_LIMIT = 1 << 20  # bytes of facts
_ARRAYS = 64  # in the file, more than there are; each is opened by itself
_MOST = 1 << 29  # bytes of all that is kept; a window's pictures and those of a store are some 30 MB


class Facts(TypedDict):
    """What must be the same for a run to go on, and what it knew."""

    format: str
    asked: dict[str, str]  # source, budget, model and its weights' hash, ... as text
    rate: float
    restarts: int
    warnings: list[str]


def shots_state(store: Store) -> dict[str, np.ndarray]:
    """What `store_of` makes an equal store of."""
    shots, totals = store.shots, store.totals
    pictures = [np.frombuffer(shot.picture, np.uint8) for shot in shots]
    means = np.array([shot.mean for shot in shots], np.float64)
    return {
        "edges": np.concatenate([np.zeros(0, np.int64), *(shot.edges for shot in shots)]),
        "saliency": np.concatenate([np.zeros(0, np.float32), *(shot.saliency for shot in shots)]),
        "frames": np.array([len(shot.saliency) for shot in shots], np.int64),
        "means": means.reshape(len(shots), -1) if shots else np.zeros((0, 1)),
        "levels": np.array([shot.change for shot in shots], np.float64),
        "peaks": np.array([shot.peak for shot in shots], np.int64),
        "pictures": np.concatenate([np.zeros(0, np.uint8), *pictures]),
        "sizes": np.array([len(picture) for picture in pictures], np.int64),
        "rows": np.zeros(0) if totals.rows is None else totals.rows,
        "numbers": np.array([*totals.saliency, *totals.level, *totals.offered, totals.squares, store.lost], np.float64),
        "counts": np.array([totals.shots, totals.frames, store.left_out], np.int64),
    }


def store_of(state: Mapping[str, np.ndarray], budget: int, rate: float) -> Store:
    """The store that `shots_state` was given.

    Raises:
        ValueError, KeyError: it is something else.
    """
    sizes, frames = state["sizes"], state["frames"]
    if (frames < 1).any() or len(state["saliency"]) != frames.sum() or len(state["edges"]) != (frames + 1).sum():
        raise ValueError("shots must have as many frames as they say")
    means, numbers = state["means"], [float(n) for n in state["numbers"]]
    if not len(frames) == len(means) == len(state["levels"]) == len(state["peaks"]):
        raise ValueError("shots must be as many everywhere")
    for name in ("saliency", "means", "levels", "rows"):
        if not np.isfinite(state[name]).all():
            raise ValueError(f"{name} must be finite")
    pictures = pieces(state["pictures"], sizes, len(frames))
    shots: list[Any] = []
    at = 0
    for i, count in enumerate(frames.tolist()):
        edges = state["edges"][at + i : at + i + count + 1]
        saliency = state["saliency"][at : at + count]
        if (np.diff(edges) < 0).any() or edges[0] >= edges[-1] or (shots and edges[0] < shots[-1].span[1]):
            raise ValueError("shots must be in order of time")
        if saliency.min() < 0 or saliency.max() > 1 or state["levels"][i] < 0:
            raise ValueError("saliency must lie in 0..1, and changes be 0 or more")
        at += count
        shots.append(
            Shot(
                edges.copy(),
                saliency.astype(np.float32),
                means[i].copy(),
                float(state["levels"][i]),
                int(state["peaks"][i]),
                pictures[i],
            )
        )
    seen, taken, left_out = whole_numbers(state, "counts", 3)
    if len(numbers) != 9 or min(seen - len(shots), taken, left_out) < 0 or np.isnan(numbers).any():
        raise ValueError("numbers must be nine, and counts be of shots that came")
    totals = Totals(
        seen,
        taken,
        (numbers[0], numbers[1]),
        (numbers[2], numbers[3]),
        (numbers[4], numbers[5], numbers[6]),
        state["rows"] if len(state["rows"]) else None,
        numbers[7],
    )
    return Store(budget, rate, shots, totals, left_out, numbers[8])


def save(path: Path, facts: Facts, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(facts, allow_nan=False).encode()
    kept = {
        name + (_EXACT if value.dtype == np.float64 else ""): value.view(np.int64)
        if value.dtype == np.float64
        else value
        for name, value in ((name, np.ascontiguousarray(value)) for name, value in arrays.items())
    }
    write_npz(path, facts=np.frombuffer(text, np.uint8), **kept)


def load(path: Path) -> tuple[Facts, dict[str, np.ndarray]]:
    """Read the file.

    Raises:
        VTSumError: it is missing, damaged, or not what `save` writes.
    """
    where = plain(path)
    if max(array_header(path, "facts")[0], default=0) > _LIMIT:
        raise VTSumError(f"{where}: facts must have at most {_LIMIT:,} bytes, got more")
    facts: Any = parse_json(read_array(path, "facts").tobytes(), dict, f"{where}: facts")
    if facts.get("format") != FORMAT:
        raise VTSumError(f"{where}: format must be {FORMAT!r}, got {said_of(facts, 'format')}")
    check_type(facts, Facts, f"{where}: facts")
    with opened(path) as archive:
        found = archive.infolist()
        if len(found) > _ARRAYS or sum(info.file_size for info in found) > _MOST:
            raise VTSumError(
                f"{where} must have at most {_ARRAYS} arrays, of {_MOST:,} bytes together, got {len(found)}, of "
                f"{sum(info.file_size for info in found):,}"
            )
        names = {name.removesuffix(".npy") for name in archive.namelist()} - {"facts"}
    arrays = {}
    for name in sorted(names):
        value = read_array(path, name)
        if name.endswith(_EXACT):
            if value.dtype != np.int64:
                raise VTSumError(f"{where}: {name} must be of 64-bit numbers, got {value.dtype}")
            value = value.view(np.float64)
        arrays[name.removesuffix(_EXACT)] = value
    return facts, arrays
