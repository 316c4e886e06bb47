"""How many pictures libav decodes for the edits of an MP4's or MOV's track (ISO/IEC 14496-12, 8.6.6): for each edit
those from the key picture before it on, to the next one behind it; or the one after, where pictures are stored in
another order than they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def pictures_of_edits(boxes: Sequence[tuple[bytes, memoryview]], movie_scale: int) -> int:
    """Pictures that are decoded for all edits of a track together; 0 where the boxes do not say.

    Args:
        boxes: kind and content of all that lie in the track. movie_scale: units a second of the edits' durations.
    """
    # Of two of a kind libav takes now the first and now the last.
    return max(_decoded(dict(boxes), movie_scale), _decoded(dict(reversed(boxes)), movie_scale))


def _decoded(found: Mapping[bytes, memoryview], movie_scale: int) -> int:
    media_scale = scale_of(found.get(b"mdhd", memoryview(b"")))
    starts, durations = _edits(found.get(b"elst", memoryview(b"")))
    counts, steps = _table(found.get(b"stts", memoryview(b"")), 2, 8).T
    if not media_scale or not movie_scale or not len(counts):
        return 0
    shown = starts >= 0  # -1: nothing is shown
    starts, durations = starts[shown], durations[shown]
    first = np.concatenate([[0.0], np.cumsum(counts)])
    times = np.concatenate([[0.0], np.cumsum(counts * steps)])
    begin = _sample_at(starts, first, times)
    end = _sample_at(starts + durations * (media_scale / movie_scale), first, times)
    if b"stss" in found:  # else every picture is a key
        keys = np.concatenate([[0.0], np.sort(_table(found[b"stss"], 1, 8)[:, 0]) - 1, [first[-1]]])
        begin = keys[np.maximum(np.searchsorted(keys, begin, side="right") - 1, 0)]
        end = keys[np.minimum(np.searchsorted(keys, end) + (b"ctts" in found), len(keys) - 1)]
    return int(np.maximum(end + 1 - begin, 0).sum())


def scale_of(header: memoryview) -> int:
    """Units a second that the header of a movie (mvhd) or a track (mdhd) states."""
    at = 20 if header[:1] == b"\1" else 12
    return int.from_bytes(header[at : at + 4], "big")


def _edits(content: memoryview) -> tuple[np.ndarray, np.ndarray]:
    """Where in the track each edit begins, in its units, and how long it is, in the movie's. libav takes as many as the
    box has room for, whatever number it states."""
    kind = [("duration", ">u8"), ("start", ">i8"), ("rate", ">u4")]
    if content[:1] != b"\1":
        kind = [("duration", ">u4"), ("start", ">i4"), ("rate", ">u4")]
    dtype = np.dtype(kind)
    edits = np.frombuffer(content, dtype, max(len(content) - 8, 0) // dtype.itemsize, 8 if len(content) >= 8 else 0)
    return edits["start"].astype(np.float64), edits["duration"].astype(np.float64)


def _table(content: memoryview, columns: int, at: int) -> np.ndarray:
    rows = max(len(content) - at, 0) // (4 * columns)
    return np.frombuffer(content, ">u4", rows * columns, at if rows else 0).reshape(-1, columns).astype(np.float64)


def _sample_at(times: np.ndarray, first: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The picture that is shown at each time, between those at which runs of pictures begin."""
    return np.floor(np.interp(times, starts, first))
