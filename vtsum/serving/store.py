"""The folder that is served: videos as they were given, and a summary's folder each time one was made of them.

    DIR/videos/NAME.mp4     a video
    DIR/NAME/               its summary, as `vtsum summarize` writes it; NAME_2 is the next one

Everything is found by looking: names that come from a browser are only ever compared with what was found.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.files import check_no_links, make_folder, plain, shortened, written
from vtsum.reading import read_json
from vtsum.shown import clean, one_line, reason

VIDEOS = "videos"
SPARE = 1 << 30  # bytes of the disk that uploads leave free
_NAME = 100  # bytes of a name without its ending
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}")
_ASKABLE = re.compile("(?!\\.)[^\n\ud800-\udfff]+")  # a folder's name that an address can hold, and that is not hidden
_PART = re.compile(r"\..{1,32}\.[0-9a-f]{16}\.part")  # as `vtsum.files.written` names it
_LARGEST = 256 << 20  # bytes of a summary.json
_SHOTS = 100_000  # of a day, some second each
_SENTENCES = 100
_FILES = re.compile(
    r"report\.html|summary\.(mp4|txt|json|vtt|edl|otio|fcpxml|csv|srt|ffmetadata)|keyframes/shot_[0-9]{4,6}\.jpg"
)


class Store:
    """The folder.

    Raises:
        VTSumError: it cannot be made, or is a link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.videos = folder / VIDEOS
        check_no_links("serve", folder, self.videos)
        try:
            make_folder(self.videos)
        except OSError as error:
            raise VTSumError(f"serve: folder {plain(folder)} must be one to write to: {reason(error)}") from None
        self._sweep()
        self._read: dict[str, tuple[int, dict[str, Any] | None]] = {}  # None: what cannot be shown is not read again
        self._coming: set[Path] = set()  # places of videos that are being sent

    def _sweep(self) -> None:
        """Remove videos of which the end never came: a server was killed while they were sent."""
        for path in self.videos.iterdir():
            if _PART.fullmatch(path.name) and _is_regular(path):
                with suppress(OSError), path.open("rb") as file:  # another server's, which is at it and holds it, stays
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()

    def video(self, name: str) -> Path | None:
        """A video by its name, or None."""
        return next((path for path in _regular(self.videos) if path.name == name), None)

    def summary(self, name: str) -> Path | None:
        """A summary's folder by its name, or None."""
        return next((path for path in self._summaries() if path.name == name), None)

    def file(self, summary: str, name: str) -> Path | None:
        """A file of a summary, or None where there is no such one."""
        folder = self.summary(summary)
        if folder is None or not _FILES.fullmatch(name):
            return None
        path = folder / name
        return path if not path.parent.is_symlink() and _is_regular(path) else None

    def video_of(self, summary: Path) -> str:
        """The name of the video of a summary."""
        return next((str(told["video"]) for told in self.listed() if told["name"] == summary.name), "")

    def new_summary(self, video: str) -> Path:
        """Where the next summary of a video goes."""
        stem = Path(video).stem
        names = (stem, *(f"{stem}_{n}" for n in range(2, 100_000)))
        return next(p for name in names if name != VIDEOS and not os.path.lexists(p := self.folder / name))

    async def take(self, name: str, pieces: AsyncIterator[bytes], most: int) -> Path:
        """Keep a video that is being sent; it appears whole or not at all.

        Args:
            name: as the browser has it. most: bytes.
        Raises:
            VTSumError: it is too large, empty, or the disk is full.
        """
        size = 0
        target = self._place(name)
        self._coming.add(target)
        try:
            with written(target) as part, part.open("wb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > most:
                        raise VTSumError(f"serve: a video must have at most {most:,} bytes, got more")
                    if shutil.disk_usage(self.folder).free - len(piece) < SPARE:
                        raise VTSumError("serve: the disk must keep 1 GiB free, this video is too large for that")
                    file.write(piece)
                if not size:
                    raise VTSumError("serve: a video must not be empty")
        except OSError as error:
            raise VTSumError(f"serve: the video cannot be kept: {reason(error)}") from None
        finally:
            self._coming.discard(target)
        return target

    def _place(self, name: str) -> Path:
        name = unicodedata.normalize("NFC", one_line(name)).replace("\\", "/").rpartition("/")[2]
        stem, ending = os.path.splitext(name)
        if not _ENDING.fullmatch(ending):
            stem, ending = name, ""
        stem = shortened(stem, _NAME).strip().lstrip(".-") or "video"
        names = (f"{stem}{ending}", *(f"{stem}_{n}{ending}" for n in range(2, 100_000)))
        places = (self.videos / name for name in names)
        return next(path for path in places if path not in self._coming and not os.path.lexists(path))

    def listed(self) -> list[dict[str, Any]]:
        """What there is of each summary, the newest first."""
        found = []
        for folder in self._summaries():
            try:
                found.append(self._described(folder))
            except (VTSumError, OSError, KeyError, TypeError, ValueError, AttributeError):
                continue  # none of ours, or just being replaced
        return sorted(found, key=lambda summary: -summary["made"])

    def _described(self, folder: Path) -> dict[str, Any]:
        path = folder / "summary.json"
        changed = path.stat().st_mtime_ns
        if self._read.get(folder.name, (0,))[0] != changed:
            self._read[folder.name] = changed, None
            self._read[folder.name] = changed, _told(read_json(path, dict, "serve", _LARGEST))
        told = self._read[folder.name][1]
        if told is None:
            raise ValueError(folder.name)
        files = [p.name for p in sorted(folder.iterdir()) if _FILES.fullmatch(p.name) and _is_regular(p)]
        again = _is_regular(folder / "analysis.npz") and self.video(told["video"]) is not None
        own = {"name": folder.name, "shown": clean(folder.name), "made": changed, "files": files, "recut": again}
        return {**told, **own}

    def _summaries(self) -> Iterator[Path]:
        for path in self.folder.iterdir():
            if not _ASKABLE.fullmatch(path.name) or path.is_symlink():
                continue
            if _is_regular(path / "summary.json"):
                yield path


def _told(data: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a summary.json; all of it is sent again and again."""
    if len(data["shots"]) > _SHOTS:
        raise ValueError(len(data["shots"]))
    shots = [
        {
            "start": _number(shot["start"]),
            "end": _number(shot["end"]),
            "chosen": shot["clip"] is not None,
            "picture": str(shot["clip"]["keyframe"]) if shot["clip"] and shot["clip"]["keyframe"] else None,
        }
        for shot in data["shots"]
    ]
    return {
        "title": one_line(str(data["title"]["text"])),
        "video": str(data["source"]["name"]),
        "seconds": _number(data["source"]["duration"]),
        "lasts": _number(data["summary"]["duration"]),
        "budget": one_line(str(data["settings"]["budget"])),
        "text": [one_line(str(sentence["text"])) for sentence in data["text"][:_SENTENCES]],
        "shots": shots,
    }


def _number(value: Any) -> float:
    """A number of JSON's; "nan" in a text would be one, too, and no answer could hold it."""
    if type(value) not in (int, float):
        raise TypeError(value)
    return float(value)


def _regular(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith(".") and _is_regular(path))


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
