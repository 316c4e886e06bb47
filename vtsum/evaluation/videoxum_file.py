"""Evaluation files, and the part files from which an interrupted evaluation resumes.

An evaluation file is JSON: {"format": "vtsum-evaluation/1", "protocol", "protocol_revision" (a number; see REVISIONS in
`vtsum.evaluation.videoxum_frames`; files from before there were any have none), "split", "data", "checkpoint", "clip",
"settings", "measures": {name: {"value", "low", "high"} or, where not computed, {"value": null, ..., "reason"}},
"baselines": {"random": ..., "uniform": ...}, "videos": [per-video values and texts], "software", "timings"}. Values are
as computed (F1 0..1, CIDEr 0..10); tables multiply.

A part file, FILE.part.jsonl or FILE.part-RANK.jsonl, holds the settings in its first line and a batch in each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vtsum.errors import VTSumError
from vtsum.evaluation.captions import ORDER
from vtsum.evaluation.java import COUNTS
from vtsum.evaluation.videoxum_scores import COUNTED, MAX_RESAMPLES, MEASURES, values_of
from vtsum.files import check_regular, make_folder, write_text
from vtsum.reading import parse_json, read_file, read_json, said_of
from vtsum.shown import cleaned, reason

FORMAT = "vtsum-evaluation/1"
PART = "vtsum-evaluation-part/1"
_HEAD = json.dumps({"format": PART})[:-1].encode()  # what a part file begins with
_FIELDS = ("protocol", "split", "data", "checkpoint", "clip", "settings", "measures", "baselines", "videos")
_KINDS: dict[str, dict[str, Any]] = {
    "": {"protocol": str, "split": str, "clip": dict | None, "videos": list},
    "data": {"path": str, "name": str, "annotations_sha256": str},
    "checkpoint": {"name": str},
    "settings": {"caption_tokenizer": str, "resamples": int, "seed": int},
    "measures": dict.fromkeys(MEASURES, dict),
    "baselines": {"random": dict, "uniform": dict},
}
_LARGEST = 1e12  # no measure, and no count of words, comes near; the sums and squares of such numbers are finite
_COUNTS = {"bleu4": 2 + 2 * ORDER, "meteor": COUNTS}  # of each video
_LIMIT = 1 << 30  # bytes: every frame's saliency of every video is in it


def write_evaluation(data: Mapping[str, Any], path: Path) -> None:
    """Write the file under a temporary name and rename it.

    Raises:
        VTSumError: the place cannot be written to.
    """
    try:
        write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise VTSumError(f"evaluate: output {path} must be writable: {reason(error)}") from None


def read_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation file, checked as far as its readers rely on it.

    Raises:
        VTSumError: it is missing, no JSON, or no evaluation.
    """
    data = read_json(path, dict, "read_evaluation", _LIMIT)
    if data.get("format") != FORMAT:
        raise VTSumError(f"read_evaluation: format of {path} must be {FORMAT!r}, got {said_of(data, 'format')}")
    missing = [name for name in _FIELDS if name not in data]
    if missing:
        raise VTSumError(f"read_evaluation: {path} must hold all fields, got none of {missing}")
    if wrong := _wrong_field(data):
        raise VTSumError(f"read_evaluation: {path} must be an evaluation, got {wrong} of another kind")
    return dict(cleaned(data))


def _wrong_field(data: Mapping[str, Any]) -> str | None:
    """The first field whose kind its readers cannot use; None where all are as `vtsum evaluate` writes them."""
    for name, fields in _KINDS.items():
        within = data if name == "" else data[name]
        if not isinstance(within, dict):
            return name
        for field, kind in fields.items():
            if not isinstance(within.get(field), kind):
                return f"{name}.{field}".lstrip(".")
    if type(data.get("protocol_revision", 1)) is not int:
        return "protocol_revision"
    settings = data["settings"]
    if not (0 < settings["resamples"] <= MAX_RESAMPLES and settings["seed"] >= 0):
        return "settings.resamples or settings.seed"
    baselines = {f"baselines.{name}": cells for name, cells in data["baselines"].items()}
    for name, cells in {"measures": data["measures"], **baselines}.items():
        if not isinstance(cells, dict) or set(cells) != set(MEASURES) or not all(map(_is_cell, cells.values())):
            return name
    named = [isinstance(video, dict) and isinstance(video.get("video_id"), str) for video in data["videos"]]
    if not named or not all(named):
        return "videos"
    for name in MEASURES:
        try:
            values = values_of(name, data["videos"])
        except (TypeError, ValueError):
            return f"videos[].{name}"
        if values is None:
            continue
        shape, least = ((_COUNTS[name],), 0.0) if name in COUNTED else ((), -_LARGEST)
        if values.shape[1:] != shape or not ((least <= values) & (values <= _LARGEST)).all():
            return f"videos[].{name}"
    return None


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or not {"value", "low", "high"} <= cell.keys():
        return False
    if cell["value"] is None:
        return isinstance(cell.get("reason"), str)
    return all(type(cell[part]) in (int, float) and abs(cell[part]) <= _LARGEST for part in ("value", "low", "high"))


class PartFile:
    """Batches that are done, one JSON line each, so that a killed evaluation loses one batch at most.

    Args:
        output: the final file; the part file stands beside it.
        rank, world: of the process that writes.
        settings: what the batches depend on; another evaluation's part file is refused.
    """

    def __init__(self, output: Path, rank: int, world: int, settings: Mapping[str, Any]) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.part{f'-{rank}' if world > 1 else ''}.jsonl")
        self.settings = dict(settings)
        self._file: BinaryIO | None = None

    def read(self) -> dict[int, list[dict[str, Any]]]:
        """Batch number -> its videos, from every part file of the output that this process can see.

        Raises:
            VTSumError: a part file of an evaluation with other settings, or another file under the name of one.
        """
        self.check()
        done: dict[int, list[dict[str, Any]]] = {}
        for path in part_files(self.output):
            lines, _ = _whole_lines(path)
            self._check_head(path, lines)
            done.update({line["batch"]: line["videos"] for line in lines[1:]})
        return done

    def _check_head(self, path: Path, lines: list[dict[str, Any]]) -> None:
        """Raise VTSumError where the lines of a part file are those of an evaluation with other settings."""
        if not lines:
            return
        old = lines[0].get("settings") if lines[0].get("format") == PART else None
        old = old if isinstance(old, dict) else {}
        other = sorted(k for k in {*old, *self.settings} if old.get(k) != self.settings.get(k))
        if other:
            raise VTSumError(
                f"evaluate: {path} is what is left of an evaluation with another {' and '.join(other)}: "
                "give the same again to resume it, or --overwrite to begin anew"
            )

    def check(self) -> None:
        """Raise VTSumError where something under a part file's name is none: it would be cut off, or removed."""
        for path in part_files(self.output):
            try:
                check_regular(path)
                with open(path, "rb") as file:
                    begin = file.read(len(_HEAD))
            except FileNotFoundError:  # another process has removed it meanwhile
                continue
            except OSError as error:
                raise VTSumError(f"evaluate: {path} must be writable: {reason(error)}") from None
            if not _HEAD.startswith(begin):
                raise VTSumError(
                    f"evaluate: {path} must be what is left of an evaluation, got another file; move it away"
                )

    def append(self, batch: int, videos: list[dict[str, Any]]) -> None:
        """Keep a batch.

        Raises:
            VTSumError: the disk is full or the place cannot be written to; or another process writes there.
        """
        try:
            if self._file is None:
                make_folder(self.path.parent)
                self._file = open(self.path, "ab")  # noqa: SIM115 (kept open until close)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lines, whole = _whole_lines(self.path)
                self._check_head(self.path, lines)  # it may have come after `read`
                self._file.truncate(whole)  # a line broken off by a crash is not continued
                if not whole:
                    self._write({"format": PART, "settings": self.settings})
            self._write({"batch": batch, "videos": videos})
        except BlockingIOError:
            raise _busy(self.path) from None
        except OSError as error:
            raise VTSumError(f"evaluate: {self.path} must be writable: {reason(error)}") from None

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None  # append opened it
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def remove(self, *, anew: bool = False) -> None:
        """Remove every part file of the output but those that another evaluation has begun to write.

        Args:
            anew: to begin anew; one that another evaluation is at is a mistake then.
        Raises:
            VTSumError: another file under the name of one.
        """
        self.close()
        self.check()
        for path in part_files(self.output):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: all processes of a run come by here
                except BlockingIOError:
                    if anew:
                        raise _busy(path) from None
                    continue
                path.unlink()


def part_files(output: Path) -> list[Path]:
    """The part files of an output: an evaluation that has not come to its end."""
    start = f"{output.name}.part"
    if not output.parent.is_dir():
        return []
    found = (p for p in output.parent.iterdir() if p.name.startswith(start) and p.suffix == ".jsonl")
    return sorted(p for p in found if p.name[len(start) : -6].lstrip("-").isdigit() or p.name == start + ".jsonl")


def _busy(path: Path) -> VTSumError:
    return VTSumError(
        f"evaluate: {path} must be written by one evaluation at a time, got another at work; wait for it, or give "
        "another output"
    )


def is_written(data: Mapping[str, Any], path: Path) -> bool:
    """Whether an evaluation file holds these very figures, whatever time they took."""
    try:
        found = read_evaluation(path)
    except VTSumError:
        return False
    return found | {"timings": None} == cleaned(json.loads(json.dumps({**data, "timings": None})))


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a part file up to the first that is broken, and their length in bytes."""
    lines: list[dict[str, Any]] = []
    length = 0
    content = read_file(path, "evaluate", _LIMIT) if path.exists() else b""
    for line in content.split(b"\n")[:-1]:
        try:
            value: dict[str, Any] = parse_json(line, dict, str(path))
        except VTSumError:
            break
        if lines and not (type(value.get("batch")) is int and isinstance(value.get("videos"), list)):
            break
        lines.append(value)
        length += len(line) + 1
    return lines, length
