"""The embeddings of TVSum's stored frames by one encoder, kept in a file for the next time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from vtsum.data.feature_files import read_array, write_npz
from vtsum.data.frames import read_frames
from vtsum.data.tvsum import TVSumVideo
from vtsum.errors import VTSumError
from vtsum.files import plain

ENCODER = "encoder"
"""Of the file's arrays the one that tells whose embeddings these are."""


def fingerprint(kind: str, state: Mapping[str, Tensor]) -> np.ndarray:
    """uint8 [32], of an encoder's kind and weights."""
    found = hashlib.sha256(kind.encode())
    for name in sorted(state):
        found.update(name.encode() + state[name].detach().cpu().contiguous().numpy().tobytes())
    return np.frombuffer(found.digest(), np.uint8)


def embeddings(
    path: Path,
    whose: np.ndarray,
    shared: Path,
    videos: Sequence[TVSumVideo],
    encode: Callable[[np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """`KEY/features` and `KEY/index` of every video, from `path` or, where it is not there, made and kept in it.

    Args:
        whose: the encoder's `fingerprint`.
        encode: the embeddings of a video's pictures.
    Raises:
        VTSumError: the file is broken, or of another encoder.
    """
    if not path.is_file():
        made: dict[str, np.ndarray] = {}
        for video in videos:
            index, images = read_frames(shared / "tvsum" / "frames" / f"{video.name}.zip")
            made |= {f"{video.key}/features": encode(images), f"{video.key}/index": index}
            print(f"\rembedded {video.key} ", end="", flush=True)
        print()
        write_npz(path, **{ENCODER: whose}, **made)
    elif not np.array_equal(read_array(path, ENCODER), whose):
        raise VTSumError(
            f"recipe: {plain(path)} must be of this encoder, is of another; remove it, or name another --out"
        )
    return {
        name: read_array(path, name) for video in videos for name in (f"{video.key}/features", f"{video.key}/index")
    }
