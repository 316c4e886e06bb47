"""An output folder that appears at once and whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from vtsum.errors import VTSumError

# All that a finished output folder may hold; anything else in it belongs to the user and is never deleted.
OWN_FILES = frozenset({"summary.mp4", "summary.txt", "summary.json", "report.html", "keyframes"})
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _plain(path: Path) -> str:
    return os.fsdecode(path).encode("utf-8", "replace").decode("utf-8").replace("\n", " ")


def writing_failed(folder: Path, error: OSError) -> VTSumError:
    """The one-line error for a write below `folder` that failed."""
    if error.errno in _FULL:
        return VTSumError(f"summarize: output {_plain(folder)} must have room for the summary, the disk is full")
    return VTSumError(f"summarize: output {_plain(folder)} must be writable: {error.strerror or error}")


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse an output folder that would destroy something.

    Raises:
        VTSumError: it is a file, or a folder that is not empty (without overwrite), or one that holds anything but an
            older summary (even with overwrite).
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise VTSumError(f"summarize: output must be a folder, got the file {_plain(folder)}")
    try:
        inside = sorted(os.listdir(folder))
    except OSError as error:
        raise writing_failed(folder, error) from None
    foreign = [name for name in inside if name not in OWN_FILES]
    if foreign:
        raise VTSumError(
            f"summarize: output must be a new or empty folder or an older summary, "
            f"got {_plain(folder)} with {_plain(Path(foreign[0]))} in it"
        )
    if inside and not overwrite:
        raise VTSumError(f"summarize: output {_plain(folder)} must not exist yet (--overwrite replaces it)")


class StagedFolder:
    """A temporary folder beside `final`, renamed to it by `commit`; removed, with all in it, if that is not reached.

    Missing parents are made at the very end, so that a failure leaves nothing. An older summary is renamed away before
    and deleted after the new one is in place.

    Raises:
        VTSumError: the place cannot be written to, or would be destroyed (see check_output).
    """

    def __init__(self, final: Path, overwrite: bool) -> None:
        self.final = Path(os.path.realpath(final))
        self.overwrite = overwrite
        check_output(self.final, overwrite)
        base = self.final.parent
        while not base.exists():
            base = base.parent
        if not base.is_dir():
            raise VTSumError(f"summarize: output must lie in a folder, got {_plain(self.final)} below a file")
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f".{self.final.name[:60]}.part-", dir=base))
            os.chmod(self.path, 0o777 & ~_umask())
        except OSError as error:
            raise writing_failed(self.final, error) from None

    def commit(self) -> None:
        """Put the folder in its place."""
        check_output(self.final, self.overwrite)
        old: Path | None = None
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            if self.final.is_dir() and any(self.final.iterdir()):
                old = self.path.with_name(self.path.name + ".old")
                os.rename(self.final, old)
            try:
                os.rename(self.path, self.final)
            except OSError:
                if old is not None:
                    os.rename(old, self.final)
                raise
        except OSError as error:
            raise writing_failed(self.final, error) from None
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            shutil.rmtree(self.path, ignore_errors=True)


def _umask() -> int:
    """The process's umask; mkdtemp makes folders private, a summary should be as public as any new folder."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
