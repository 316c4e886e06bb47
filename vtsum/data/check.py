"""Every missing, broken or misshapen file of a data set in VideoXum's layout, by name, before training starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vtsum.data.feature_files import array_header, feature_file, read_array
from vtsum.data.rules import misshapen, most, not_finite, odd_width
from vtsum.data.videoxum import (
    CLIP_FEATURES,
    FEATURES,
    SPLITS,
    Annotation,
    good_annotations,
    read_entries,
)
from vtsum.errors import VTSumError

CheckProgress = Callable[[str, int, int], None]
"""progress(stage, done, total): stages "heads" and "numbers", counted in files."""


@dataclass
class SplitFacts:
    """What a split holds: videos, their length in seconds, frames, and the most and fewest frames of one video."""

    videos: int
    seconds: float
    frames: int
    shortest: int
    longest: int
    annotators: int


@dataclass
class CheckReport:
    """What was found.

    Attributes:
        problems (list[str]): one line each, beginning with the file's name. splits: facts of each split that could be
        read. width (int | None): C of the features. clip_width (int | None): D of the features for VT-CLIPScore, None
        where there are none. files (int): feature files read. spare (int): feature files that no entry names.
    """

    problems: list[str] = field(default_factory=list)
    splits: dict[str, SplitFacts] = field(default_factory=dict)
    width: int | None = None
    clip_width: int | None = None
    files: int = 0
    spare: int = 0


@dataclass(frozen=True)
class _File:
    """A feature file: the arrays wanted of it, and the frames they should have (None: any)."""

    path: Path
    keys: tuple[str, ...]
    frames: int | None


def check_dataset(
    root: str | os.PathLike[str],
    *,
    splits: Sequence[str] = SPLITS,
    clip: bool | None = None,
    unannotated: bool = False,
    quick: bool = False,
    progress: CheckProgress | None = None,
) -> CheckReport:
    """Check a data set.

    The heads of all feature files are read first (they tell of missing files, files cut off, shapes and dtypes), then,
    of those that are good so far, every number (checksums, NaN and infinity).

    Args:
        root: folder in VideoXum's layout. splits: those that must be there. clip (bool | None): the features for
        VT-CLIPScore must be there too; None: if their folder is. unannotated (bool): accept entries without
        vsum_onehot. quick (bool): read no numbers. progress: see CheckProgress.
    Raises:
        VTSumError: root is no folder, or a split is unknown. What is wrong with the data is in the report.
    """
    root = Path(root)
    if not root.is_dir():
        raise VTSumError(f"check: root must be a folder, got {root}")
    for split in splits:
        if split not in SPLITS:
            raise VTSumError(f"check: split must be one of {', '.join(SPLITS)}, got {split!r}")
    tell = progress or (lambda stage, done, total: None)
    report = CheckReport()
    found = {split: _annotations(root / "anno" / f"{split}_videoxum.json", unannotated, report) for split in splits}
    _in_two_splits(found, report)
    for split, videos in found.items():
        if videos:
            report.splits[split] = _facts(videos)
    with_clip = (root / CLIP_FEATURES).is_dir() if clip is None else clip
    unique = {a.video_id: a for videos in found.values() for a in videos}
    folders = [(FEATURES, ("features",)), *([(CLIP_FEATURES, ("vision", "text"))] if with_clip else [])]
    files: list[_File] = []
    for below, keys in folders:
        if not (root / below).is_dir():
            report.problems.append(f"{root / below} must be a folder of feature files, got nothing of that name")
            continue
        present = {path.stem for path in (root / below).glob("*.npz") if not path.name.startswith(".")}
        report.spare += len(present - set(unique))
        files += [
            _File(feature_file(root / below, a.video_id), keys, a.length if len(a.labels) else None)
            for a in unique.values()
        ]
    good = _heads(files, report, tell)
    if not quick:
        for number, file in enumerate(good):
            tell("numbers", number, len(good))
            report.problems += [problem for key in file.keys if (problem := _numbers(file.path, key))]
            tell("numbers", number + 1, len(good))
    report.files = len(files)
    return report


def _annotations(path: Path, unannotated: bool, report: CheckReport) -> list[Annotation]:
    try:
        entries = read_entries(path)
    except VTSumError as error:
        report.problems.append(str(error))
        return []
    good, problems = good_annotations(entries, unannotated=unannotated)
    report.problems += [f"{path}: {problem}" for problem in problems]
    return good


def _in_two_splits(found: dict[str, list[Annotation]], report: CheckReport) -> None:
    where: dict[str, str] = {}
    for split, videos in found.items():
        for annotation in videos:
            first = where.setdefault(annotation.video_id, split)
            if first != split:
                report.problems.append(f"{annotation.video_id}: must be in one split, got {first} and {split}")


def _facts(videos: list[Annotation]) -> SplitFacts:
    lengths = [annotation.length for annotation in videos]
    return SplitFacts(
        videos=len(videos),
        seconds=sum(annotation.duration for annotation in videos),
        frames=sum(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        annotators=most([len(annotation.labels) for annotation in videos]),
    )


def _heads(files: list[_File], report: CheckReport, tell: CheckProgress) -> list[_File]:
    """The files whose heads are good."""
    shapes: dict[tuple[Path, str], tuple[int, ...]] = {}
    good: list[_File] = []
    for number, file in enumerate(files):
        tell("heads", number, len(files))
        problem = None
        for key in file.keys:
            try:
                shape, dtype = array_header(file.path, key)
                shapes[file.path, key] = shape
                problem = problem or misshapen(file.path, key, shape, dtype, file.frames)
            except VTSumError as error:
                problem = problem or str(error)
        if problem is None:
            good.append(file)
        else:
            report.problems.append(problem)
        tell("heads", number + 1, len(files))
    # The width that most files have is the right one.
    widths: dict[str, int] = {}
    for key in ("features", "vision"):
        if found := [shapes[file.path, key][1] for file in good if key in file.keys]:
            widths[key] = most(found)
    report.width, report.clip_width = widths.get("features"), widths.get("vision")
    wide = []
    for file in good:
        wanted = {key: widths["features" if key == "features" else "vision"] for key in file.keys}
        wrong = [
            problem
            for key in file.keys
            if (problem := odd_width(file.path, key, shapes[file.path, key][-1], wanted[key]))
        ]
        report.problems += wrong
        if not wrong:
            wide.append(file)
    return wide


def _numbers(path: Path, key: str) -> str | None:
    try:
        array = read_array(path, key)
    except VTSumError as error:
        return str(error)
    return not_finite(path, key, array)
