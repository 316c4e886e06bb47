"""Features of videos, in the files that VideoXum's layout wants: one npz a video, `features` [T, C], float32.

    FEATS/VIDEO.npz         one row for each sampled frame
    FEATS/manifest.json     {"format", "encoder", "weights_sha256", "fps", "image_size", "dim",
                             "videos": {VIDEO: {"source", "bytes", "frames", "duration"}}}

VIDEO is the file's name without its ending. A folder holds the features of one encoder at one rate.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtsum.data.feature_files import array_header, check_id, cut_off, feature_file, write_npz
from vtsum.errors import VTSumError
from vtsum.files import check_no_links, make_folder, spot, unfinished, write_text
from vtsum.reading import field, of_kind, quoted, read_json, said_of
from vtsum.shown import reason

if TYPE_CHECKING:
    from vtsum.protocols import FrameEncoder

FORMAT = "vtsum-features/1"
MANIFEST, LOCK = "manifest.json", ".manifest.json.lock"

ExtractProgress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, name): stage "videos" counts videos, stage "frames" those of the video `name`."""


def encode_video(
    source: Path, network: FrameEncoder, fps: float, batch_size: int, tell: ExtractProgress
) -> tuple[np.ndarray, float, list[str]]:
    """Features float32 [T, C], seconds that could be decoded, and what was passed over."""
    from vtsum.model.frame_encoder import Encoding
    from vtsum.threads import torch_threads
    from vtsum.video import probe
    from vtsum.video.ahead import FramesAhead
    from vtsum.video.damage import damage_warning

    total = max(1, math.ceil(probe(source).duration * fps))
    tell("frames", 0, total, source.name)
    frames = FramesAhead(source, fps, network.image_size)
    encoding = Encoding(network, "extract")
    parts: list[np.ndarray] = []
    count = 0
    try:
        for batch in frames.batches(batch_size):
            # One core is left to the decoder as long as it works.
            with torch_threads(spare=int(not frames.finished)):
                parts.append(encoding(batch))
            count += len(batch)
            tell("frames", count, max(count, total), source.name)
    finally:
        frames.close()
    tell("frames", count, count, source.name)
    read = frames.sampler
    damage = [damage_warning(read.damaged)] if read.damaged else []
    return np.concatenate(parts), read.duration, [*damage, *read.warnings]


@dataclass(frozen=True)
class Extracted:
    """What a manifest says: `fps`, frames a second, and of each video its `frames` and its `duration` in seconds."""

    fps: float
    frames: dict[str, int]
    duration: dict[str, float]


def read_extracted(folder: Path, op: str) -> Extracted:
    """The manifest of a folder that `vtsum extract` made; a video of no frames is one whose features are not done.

    Raises:
        VTSumError: there is none, or it is none; `op` begins the message.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise VTSumError(f"{op}: features must be a folder that vtsum extract made, got {folder} without {MANIFEST}")
    found = read_json(path, dict, op)
    try:
        if found.get("format") != FORMAT:
            raise ValueError(f"format {quoted(found.get('format'))}")
        fps = float(field(found, "fps", float))
        if not 1e-4 <= fps <= 1000:
            raise ValueError(f"fps {fps}")
        videos = {check_id(name, "a video"): entry for name, entry in _entries(found)}
        frames = {name: field(entry, "frames", int) for name, entry in videos.items()}
        made = Extracted(
            fps,
            frames,
            {
                name: float(field({"duration": frames[name] / fps} | entry, "duration", float))
                for name, entry in videos.items()
            },
        )
        for name in videos:
            if frames[name] < 0 or made.duration[name] < 0:
                raise ValueError(f"{frames[name]} frames in {made.duration[name]} s of {quoted(name)}")
    except ValueError as error:
        raise VTSumError(f"{op}: {path} must be a manifest of features, got: {error}") from None
    return made


def _entries(manifest: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, of_kind(entry, name, dict)) for name, entry in field(manifest, "videos", dict).items()]


class FeatureFolder:
    """The folder of one encoder's features at one rate, and its manifest.

    Raises:
        VTSumError: it holds other features, or is no folder.
    """

    def __init__(self, path: str | os.PathLike[str], encoder: FrameEncoder, fps: float) -> None:
        self.path = Path(path)
        self._dim = encoder.dim
        self._head: dict[str, Any] = {
            "format": FORMAT,
            "encoder": encoder.name,
            "weights_sha256": encoder.weights_sha256,
            "fps": fps,
            "image_size": encoder.image_size,
            "dim": encoder.dim,
        }
        if self.path.exists() and not self.path.is_dir():
            raise VTSumError(f"extract: output must be a folder, got the file {self.path}")
        if not (self.path / MANIFEST).exists() and any(self.path.glob("*.npz")):
            raise VTSumError(
                f"extract: output must be new or a folder that extract made, got {self.path} with feature files and "
                f"no {MANIFEST}; give another folder"
            )
        self._videos = self._read()

    def has(self, video: str, source: Path) -> bool:
        """The features of this very file are there and whole.

        Raises:
            VTSumError: the folder holds those of another file under the same id, or a file that extract did not write.
        """
        entry = self._videos.get(video)
        if entry is None:
            return False
        if entry["source"] != source.name:
            raise VTSumError(
                f"extract: videos must have names of their own, got {source}, and {entry['source']} is in {self.path}"
            )
        path, frames = feature_file(self.path, video), entry["frames"]
        if not path.exists() or not frames or entry["bytes"] != source.stat().st_size or cut_off(path):
            return False
        try:
            found = str(list(array_header(path, "features")[0]))
        except VTSumError as error:
            found = str(error)
        if found != str([frames, self._dim]):
            raise VTSumError(
                f"extract: {path} must hold {frames} x {self._dim} features, as {MANIFEST} says, got {found}; move it "
                "away or give another folder"
            )
        return True

    def check(self, videos: Collection[str]) -> None:
        """Refuse to write over what is not ours: a file that no manifest names, or a link.

        Raises:
            VTSumError: naming it.
        """
        check_no_links("extract", self.path / MANIFEST, self.path / LOCK, *(feature_file(self.path, v) for v in videos))
        for video in videos:
            path = feature_file(self.path, video)
            if os.path.lexists(path) and video not in self._videos:
                raise VTSumError(
                    f"extract: output {self.path} must hold no other files of the videos' names, got {path}, of which "
                    f"{MANIFEST} says nothing; move it away or give another folder"
                )

    def add(self, video: str, source: Path, features: np.ndarray, duration: float) -> None:
        """Write the features, and the manifest with what other runs have added to it meanwhile."""
        entry = {"source": source.name, "bytes": source.stat().st_size, "frames": 0, "duration": round(duration, 3)}
        try:
            make_folder(self.path)
            with self._locked():
                # Named before it is there, with no frames yet: a file that the manifest does not name is the user's.
                self._enter(video, entry)
                write_npz(feature_file(self.path, video), features=features)
                self._enter(video, {**entry, "frames": len(features)})
        except OSError as error:
            raise VTSumError(
                f"extract: output {spot(error, self.path)} must be writable and have room: {reason(error)}"
            ) from None

    def sweep(self) -> None:
        """Remove what processes that were killed have left half-written; who holds the lock writes alone.

        Raises:
            VTSumError: the lock cannot be had.
        """
        if not self._unfinished():
            return
        try:
            with self._locked():
                for path in self._unfinished():
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise VTSumError(
                f"extract: output {spot(error, self.path)} must be writable and have room: {reason(error)}"
            ) from None

    def _unfinished(self) -> list[Path]:
        return unfinished(self.path, [MANIFEST, *(f"{video}.npz" for video in self._videos)])

    def _enter(self, video: str, entry: Mapping[str, Any]) -> None:
        """Have the manifest name a video; for who holds the lock."""
        self._videos = self._read()
        self.check([video])
        self._videos[video] = entry
        text = json.dumps({**self._head, "videos": self._videos}, indent=1, ensure_ascii=True) + "\n"
        write_text(self.path / MANIFEST, text)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self) -> dict[str, Any]:
        """The videos of the manifest, once it was found to be of the same kind."""
        path = self.path / MANIFEST
        if not path.exists():
            return {}
        found = read_json(path, dict, "extract")
        try:
            if found.get("format") != FORMAT:
                raise VTSumError(f"extract: format of {path} must be {FORMAT!r}, got {said_of(found, 'format')}")
            digest, fps = field(found, "weights_sha256", str), field(found, "fps", float)
            if digest != self._head["weights_sha256"]:
                raise VTSumError(
                    f"extract: encoder must be that of {self.path}, {field(found, 'encoder', str)!r:.200} "
                    f"({digest[:12]}), got {self._head['encoder']!r} ({self._head['weights_sha256'][:12]}); give "
                    "another folder"
                )
            if fps != self._head["fps"]:
                raise VTSumError(
                    f"extract: fps must be that of {self.path}, {fps:g}, got {self._head['fps']:g}; give another folder"
                )
            videos = dict(_entries(found))
            for entry in videos.values():
                for name, kind in (("source", str), ("bytes", int), ("frames", int)):
                    field(entry, name, kind)
        except VTSumError:
            raise
        except ValueError as error:
            raise VTSumError(f"extract: {path} must be a manifest of features, got: {error}") from None
        return videos

    def frames_of(self, videos: Collection[str]) -> int:
        """How many frames the features of these videos are of, as the manifest is by now."""
        found = self._read()
        return sum(found[video]["frames"] for video in videos)
