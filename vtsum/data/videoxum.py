"""VideoXum: ten human summaries and a text for each video, in the layout in which it is published.

    ROOT/anno/{train,val,test}_videoxum.json    annotations
    ROOT/feat/blip/VIDEO_ID.npz                 `features` [T, C], one row a second
    ROOT/feat/vt_clipscore/VIDEO_ID.npz         `vision` [T, D] and `text` [1, D], for VT-CLIPScore

Source: Lin et al., "VideoXum: Cross-modal Visual and Textural Summarization of Videos", IEEE TMM 2023, and the README
of its repository.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vtsum.data.feature_files import array_header, check_id, feature_file
from vtsum.data.rules import LONGEST, SLACK, is_duration, misshapen, most, odd_width, read_matrix, spans_in, widths
from vtsum.errors import VTSumError
from vtsum.reading import named, read_json

SPLITS = ("train", "val", "test")
MAX_WORDS = 512
_LIMIT = 1 << 30  # bytes of an annotation file; the published ones have up to 60 MB
FEATURES, CLIP_FEATURES = Path("feat", "blip"), Path("feat", "vt_clipscore")

_SIGNS = re.compile(r"[.!\"()*#:;~]")
_RUN = re.compile(r"\s{2,}")


@dataclass(frozen=True)
class Annotation:
    """One entry of an annotation file.

    Attributes:
        duration (float): seconds. frames (int): sampled at one a second. tsum: a sentence for each of `timestamps`
        (start and end in seconds). labels (np.ndarray): uint8 [A, T], 1 where annotator a wants frame t; A is 10 in
        VideoXum and 0 where nobody annotated.
    """

    video_id: str
    duration: float
    frames: int
    timestamps: tuple[tuple[float, float], ...]
    tsum: tuple[str, ...]
    labels: np.ndarray

    @property
    def length(self) -> int:
        """T of the labels, or the number of sampled frames where there are none."""
        return self.labels.shape[1] if len(self.labels) else self.frames


@dataclass(frozen=True)
class VideoXumItem:
    """One video: features float32 [T, C], vsum_labels float32 [A, T], tsum as the text decoder is to write it.

    `clip_vision` [T, D] and `clip_text` [1, D] are there only where they were asked for.
    """

    video_id: str
    duration: float
    features: Tensor
    vsum_labels: Tensor
    tsum: str
    clip_vision: Tensor | None = None
    clip_text: Tensor | None = None


def join_sentences(sentences: Sequence[str], max_words: int = MAX_WORDS) -> str:
    """The sentences of a video as one text, as VideoXum's models are trained and measured on.

    They are joined without a space (the full stops become the spaces), lowercased, each of . ! " ( ) * # : ; ~ becomes
    a space, two or more spaces become one, and at most `max_words` words stay.
    """
    text = _RUN.sub(" ", _SIGNS.sub(" ", "".join(sentences).lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def parse_annotation(entry: Any, *, unannotated: bool = False) -> Annotation:
    """An entry of an annotation file, checked.

    Args:
        entry: the parsed JSON. unannotated (bool): accept an entry without vsum_onehot (labels [0, T]).
    Raises:
        VTSumError: a field is missing or of the wrong kind; the message begins with the video's id where it has one.
    """
    if not isinstance(entry, Mapping):
        raise VTSumError(f"entry must be an object, got {named(entry)}")
    video = check_id(entry.get("video_id"), "entry: video_id")
    needed = ["duration", "tsum", *([] if unannotated else ["vsum_onehot"])]
    missing = [name for name in needed if name not in entry]
    if missing:
        raise VTSumError(f"{video}: {' and '.join(missing)} must be there, got {', '.join(sorted(map(str, entry)))}")
    duration = entry["duration"]
    if not is_duration(duration):
        raise VTSumError(
            f"{video}: duration must be a number of seconds above 0, up to {LONGEST:,}, got {_short(duration)}"
        )
    tsum = [entry["tsum"]] if isinstance(entry["tsum"], str) else entry["tsum"]
    if not isinstance(tsum, list) or not all(isinstance(sentence, str) for sentence in tsum):
        raise VTSumError(f"{video}: tsum must be a list of sentences, got {_short(tsum)}")
    if not join_sentences(tsum):
        raise VTSumError(f"{video}: tsum must hold at least one word, got {_short(tsum)}")
    frames = entry.get("sampled_frames")
    if frames is not None and not (type(frames) is int and 1 <= frames <= LONGEST):
        raise VTSumError(f"{video}: sampled_frames must be a whole number from 1 to {LONGEST:,}, got {_short(frames)}")
    labels = _labels(video, entry["vsum_onehot"]) if "vsum_onehot" in entry else None
    if labels is None:
        frames = frames or max(1, round(duration))
        labels = np.zeros((0, frames), np.uint8)
    spans = spans_in(entry.get("timestamps", []))
    if spans is None:
        raise VTSumError(
            f"{video}: timestamps must be pairs of seconds, none beyond {LONGEST:,}, got {_short(entry['timestamps'])}"
        )
    return Annotation(video, float(duration), frames or labels.shape[1], spans, tuple(tsum), labels)


def _labels(video: str, value: Any) -> np.ndarray:
    try:
        labels = np.asarray(value)
    except ValueError:
        labels = np.asarray(None)
    if labels.ndim != 2 or labels.dtype.kind not in "biuf":
        lengths = sorted({len(row) for row in value if isinstance(row, list)}) if isinstance(value, list) else []
        found = f"rows of {lengths} numbers" if len(lengths) > 1 else _short(value)
        raise VTSumError(f"{video}: vsum_onehot must be [annotators x frames] numbers, got {found}")
    if 0 in labels.shape:
        raise VTSumError(f"{video}: vsum_onehot must have annotators and frames, got {list(labels.shape)}")
    odd = ~np.isin(labels, (0, 1))
    if odd.any():
        row, frame = np.argwhere(odd)[0].tolist()
        raise VTSumError(
            f"{video}: vsum_onehot must be 0 or 1, got {labels[row, frame]:g} for annotator {row}, frame {frame}"
        )
    return labels.astype(np.uint8)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_entries(path: str | os.PathLike[str]) -> list[Any]:
    """The entries of an annotation file as they stand.

    Raises:
        VTSumError: the file is missing, is no JSON (see `vtsum.reading`), or holds no list.
    """
    content = read_json(path, list, "", _LIMIT)
    if not content:
        raise VTSumError(f"{os.fspath(path)} must hold videos, got an empty list")
    return content


def read_annotations(path: str | os.PathLike[str], *, unannotated: bool = False) -> list[Annotation]:
    """Every video of an annotation file, in the file's order.

    Raises:
        VTSumError: what `read_entries` raises, or the first problem of `good_annotations`.
    """
    good, problems = good_annotations(read_entries(path), unannotated=unannotated)
    if problems:
        more = f" (and {len(problems) - 1} more: vtsum data check)" if len(problems) > 1 else ""
        raise VTSumError(f"{path}: {problems[0]}{more}")
    return good


def good_annotations(entries: Sequence[Any], *, unannotated: bool = False) -> tuple[list[Annotation], list[str]]:
    """The entries of an annotation file that can be used, and a line on each that cannot: a field is missing or of the
    wrong kind, the video is there twice, its labels have another length than its frames, or it has not as many
    annotators as most have, in which case it is among the good ones all the same."""
    seen: dict[str, int] = {}
    good, problems = [], []
    for number, entry in enumerate(entries):
        try:
            annotation = parse_annotation(entry, unannotated=unannotated)
        except VTSumError as error:
            problems.append(f"entry {number}: {error}")
            continue
        video = annotation.video_id
        if video in seen:
            problems.append(f"entry {number}: {video}: must be there once, got it in entry {seen[video]}")
            continue
        seen[video] = number
        if abs(annotation.frames - annotation.length) > SLACK:
            problems.append(
                f"entry {number}: {video}: vsum_onehot must have sampled_frames ({annotation.frames}) frames, "
                f"give or take {SLACK}, got {annotation.length}"
            )
            continue
        good.append(annotation)
    usual = most([len(annotation.labels) for annotation in good]) if good else 0
    problems += [
        f"entry {seen[a.video_id]}: {a.video_id}: must have {usual} annotators, as most, got {len(a.labels)}"
        for a in good
        if len(a.labels) != usual
    ]
    return good, problems


class VideoXumDataset(Dataset[VideoXumItem]):
    """The videos of one split, by rising duration; equal durations in the file's order.

    Args:
        root: folder in the published layout; may be left out where the others are given.
        split (str): "train", "val" or "test".
        ann_root: folder of the annotation files. [default: root/anno]
        video_embeddings_root: folder of the features. [default: root/feat/blip]
        clip_root: folder of the features for VT-CLIPScore; they are read only where it is given or with_clip is set.
        max_frames (int | None): what lies beyond is cut off (512 in VideoXum's training); None: nothing is.
        with_clip (bool): read root/feat/vt_clipscore. unannotated (bool): accept videos without vsum_onehot, for
            training on text alone; their labels are [0, T]. features (bool): False: they need not be there; there are
            annotations, but no items.
    Raises:
        VTSumError: at once for an annotation file or folder that is missing or broken; at the item for a feature file
            that `vtsum data check` would name: one that is broken, whose numbers are not all finite, whose frames are
            not as many as the labels' (give or take 2), or whose width is not what most have.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        *,
        ann_root: str | os.PathLike[str] | None = None,
        video_embeddings_root: str | os.PathLike[str] | None = None,
        clip_root: str | os.PathLike[str] | None = None,
        max_frames: int | None = None,
        with_clip: bool = False,
        unannotated: bool = False,
        features: bool = True,
    ) -> None:
        if split not in SPLITS:
            raise VTSumError(f"VideoXumDataset: split must be one of {', '.join(SPLITS)}, got {split!r}")
        if max_frames is not None and max_frames < 1:
            raise VTSumError(f"VideoXumDataset: max_frames must be at least 1, got {max_frames}")
        self.split = split
        self.max_frames = max_frames
        self.ann_file = _place(ann_root, root, Path("anno"), "ann_root") / f"{split}_videoxum.json"
        self.video_embeddings_root = (
            _place(video_embeddings_root, root, FEATURES, "video_embeddings_root") if features else None
        )
        self.clip_root: Path | None = None
        if clip_root is not None or with_clip:
            self.clip_root = _place(clip_root, root, CLIP_FEATURES, "clip_root")
        found = read_annotations(self.ann_file, unannotated=unannotated)
        self.annotations = sorted(found, key=lambda annotation: annotation.duration)

    @property
    def video_ids(self) -> list[str]:
        """In the order of the items."""
        return [annotation.video_id for annotation in self.annotations]

    @property
    def lengths(self) -> list[int]:
        """Frames of each video by its annotation, after the cut at max_frames; no feature file is read."""
        return [min(a.length, self.max_frames or a.length) for a in self.annotations]

    @functools.cached_property
    def width(self) -> int:
        """C of the features, from the head of the first video's file; see `check_width`."""
        path = self._features(self.annotations[0])
        shape, dtype = array_header(path, "features")
        if (problem := misshapen(path, "features", shape, dtype, None)) is not None:
            raise VTSumError(problem)
        return shape[1]

    def check_width(self, video: int = 0) -> None:
        """Refuse features of several widths, by the heads of all files.

        Args:
            video: index of the one to name if it is odd, else the first that is.
        Raises:
            VTSumError: naming a file whose width is not what most have.
        """
        paths = [self._features(annotation) for annotation in self.annotations]
        found = widths(paths, "features")
        usual = most(list(found.values()))
        for path in (paths[video], *found):
            if problem := odd_width(path, "features", found[path], usual):
                raise VTSumError(problem)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> VideoXumItem:
        annotation = self.annotations[index]
        path = self._features(annotation)
        frames = annotation.length if len(annotation.labels) else None
        features = read_matrix(path, "features", frames)
        if features.shape[1] != self.width:
            self.check_width(index)
        parts = {"features": len(features)}
        vision = text = None
        if self.clip_root is not None:
            clip = feature_file(self.clip_root, annotation.video_id)
            vision, text = read_matrix(clip, "vision", frames), read_matrix(clip, "text", None)
            if (problem := odd_width(clip, "text", text.shape[1], vision.shape[1])) is not None:
                raise VTSumError(problem)
            parts["vision"] = len(vision)
        # Nobody annotated: the file's own length is the only one there is.
        if len(annotation.labels):
            parts["labels"] = annotation.length
        length = min(parts.values())
        if max(parts.values()) - length > SLACK:
            told = ", ".join(f"{count} {name}" for name, count in parts.items())
            raise VTSumError(f"VideoXumDataset: {path}: frames must agree within {SLACK}, got {told}")
        length = min(length, self.max_frames or length)
        labels = annotation.labels if len(annotation.labels) else np.zeros((0, length), np.uint8)
        return VideoXumItem(
            video_id=annotation.video_id,
            duration=annotation.duration,
            features=torch.from_numpy(features[:length]),
            vsum_labels=torch.from_numpy(labels[:, :length].astype(np.float32)),
            tsum=join_sentences(annotation.tsum),
            clip_vision=None if vision is None else torch.from_numpy(vision[:length]),
            clip_text=None if text is None else torch.from_numpy(text),
        )

    def files(self, count: int) -> Iterator[Path]:
        """The files that the first `count` items are read from, beside the annotations."""
        for annotation in self.annotations[:count]:
            yield self._features(annotation)
            if self.clip_root is not None:
                yield feature_file(self.clip_root, annotation.video_id)

    def _features(self, annotation: Annotation) -> Path:
        if self.video_embeddings_root is None:
            raise VTSumError("VideoXumDataset: features must be True where items are read, got False")
        return feature_file(self.video_embeddings_root, annotation.video_id)


def _place(given: str | os.PathLike[str] | None, root: str | os.PathLike[str] | None, below: Path, name: str) -> Path:
    if given is None and root is None:
        raise VTSumError(f"VideoXumDataset: root or {name} must be given, got neither")
    folder = Path(given) if given is not None else Path(root or "") / below
    if not folder.is_dir():
        raise VTSumError(f"VideoXumDataset: {name} must be a folder, got {folder}")
    return folder
