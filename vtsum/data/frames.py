"""Stored frames and teacher features: zip files of JPEGs, and npz files of quantised embeddings."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np

from vtsum.data.feature_files import read_array
from vtsum.errors import VTSumError
from vtsum.zips import opened

_FRAME_NAME = re.compile(r"([0-9]{1,12})\.jpe?g")
FRAME_LIMIT = 2**26
"""Bytes that a stored frame may have, and its picture."""
FRAMES_LIMIT = 2**32
"""Bytes that the pictures of one video may have."""
FRAME_LIST = 2**23
"""Bytes that the list of a video's frames may have: a day of them, one a second."""

FRAME_INDEX_RATE = 3.0
"""Indices a second of video in the stored TVSum frames: a frame with index i was shown at i / 3 seconds."""


def read_frames(zip_path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Every JPEG of a zip file, in order of index; the file name is the index ("00042.jpg").

    Returns:
        indices: int64 [N], rising.
        images: uint8 [N, H, W, 3], RGB.
    Raises:
        VTSumError: the zip or a JPEG in it is missing, broken (named) or states more than the limits, or the frames
            differ in size.
    """
    from PIL import Image

    path = Path(zip_path)
    if not path.is_file():
        raise VTSumError(f"read_frames: zip_path must be a file, got {path}")
    try:
        with opened(path, FRAME_LIST) as archive:
            names = {name: _FRAME_NAME.fullmatch(name) for name in archive.namelist()}
            odd = [name for name, match in names.items() if match is None]
            if odd or not names:
                raise VTSumError(
                    f"read_frames: {path} must hold frames named like 00042.jpg, got {odd[:3] or 'nothing'}"
                )
            order = sorted((int(match[1]), name) for name, match in names.items() if match is not None)
            images: np.ndarray | None = None
            for row, (_, name) in enumerate(order):
                if (size := archive.getinfo(name).file_size) > FRAME_LIMIT:
                    raise VTSumError(f"read_frames: {path}: {name} must have at most {FRAME_LIMIT} bytes, got {size}")
                try:
                    with warnings.catch_warnings():  # Pillow's own, on the terminal, that a picture is large
                        warnings.simplefilter("ignore")
                        picture = Image.open(io.BytesIO(archive.read(name)), formats=("JPEG",))
                    if 3 * picture.width * picture.height > FRAME_LIMIT:
                        raise ValueError(f"{picture.width} x {picture.height} pixels, more than {FRAME_LIMIT} bytes")
                    image = np.asarray(picture.convert("RGB"))
                except Exception as error:  # zipfile, its decompressors and Pillow, each with kinds of its own
                    raise VTSumError(f"read_frames: {path}: {name} must be a whole JPEG, got: {error}") from None
                if images is None:
                    if (size := len(order) * image.nbytes) > FRAMES_LIMIT:
                        raise VTSumError(
                            f"read_frames: {path} must hold at most {FRAMES_LIMIT} bytes of pictures, states {size}"
                        )
                    images = np.empty((len(order), *image.shape), dtype=np.uint8)
                if image.shape != images.shape[1:]:
                    expected = "x".join(map(str, images.shape[1:3]))
                    raise VTSumError(
                        f"read_frames: {path}: {name} must be {expected}, got {'x'.join(map(str, image.shape[:2]))}"
                    )
                images[row] = image
    except VTSumError:
        raise
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:  # as zipfile's kinds are
        raise VTSumError(f"read_frames: {path} must be a zip file, got: {error}") from None
    indices = np.array([index for index, _ in order], dtype=np.int64)
    if np.any(np.diff(indices) == 0):
        raise VTSumError(
            f"read_frames: {path} must hold each index once, got {indices[:-1][np.diff(indices) == 0][:3]}"
        )
    assert images is not None  # names is not empty
    return indices, images


def read_teacher(npz_path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the teacher network for the stored frames of one video.

    Returns:
        index: int64 [N], the frames' indices, as in read_frames.
        features: float32 [N, C], the stored uint8 values times their scale.
    Raises:
        VTSumError: the file is missing or broken, or lacks `features`, `scale` or `index`, or their lengths differ.
    """
    path = Path(npz_path)
    index, features, scale = (read_array(path, name) for name in ("index", "features", "scale"))
    if index.dtype.kind not in "iu" or scale.size != 1:
        raise VTSumError(
            f"read_teacher: {path}: index must hold whole numbers and scale one, got {index.dtype} and {scale.size}"
        )
    index = index.astype(np.int64)
    features = features.astype(np.float32) * np.float32(scale.item())
    if features.ndim != 2 or index.shape != features.shape[:1]:
        raise VTSumError(
            f"read_teacher: {path}: features must be [N, C] and index [N], got {features.shape} and {index.shape}"
        )
    return index, features
