"""An output folder that appears at once and whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from vtsum.errors import VTSumError
from vtsum.files import OLD, AnyPath, check_inputs, check_possible, make_folder, plain, replace_folder, strangers
from vtsum.shown import full, reason
from vtsum.signals import begun, over
from vtsum.summary.exports import FILES

# All that a finished output folder may hold; anything else in it belongs to the user and is never deleted.
OURS = re.compile(
    r"summary\.(mp4|vtt|txt|json)|report\.html|(analysis|live)\.npz|keyframes/(shot_[0-9]{4,}\.jpg)?|"
    + "|".join(map(re.escape, FILES))
)

_UNFINISHED = re.compile(rf"{OURS.pattern}|(keyframes/)?\.[^/]{{1,64}}\.[0-9a-f]{{16}}\.part")
"""What one may hold that a process was still writing."""

READ: list[Path] = []
"""Files that a command's options were read from: no summary takes their place either."""
_DIGITS = 8  # random bytes behind a temporary folder's name
_RANDOM = re.compile(rf"[0-9a-f]{{{2 * _DIGITS}}}")
_PART = ".part-"


def temporary(name: str) -> str:
    """A name that nobody knows before, for the temporary folder of a summary called `name`."""
    return f"{_begins(name)}{secrets.token_hex(_DIGITS)}"


def temporaries(folder: Path, names: Iterable[str]) -> list[tuple[Path, list[str]]]:
    """The folders in a folder whose names are such as `temporary` gives for these, links left out, each with the names
    that it may be for; among them what `replace_folder` makes of an older summary while a new one takes its place."""
    begins: dict[str, list[str]] = {}
    for name in names:
        begins.setdefault(_begins(name), []).append(name)
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            head, part, random = entry.name.rpartition(_PART)
            ours = head + part in begins and _RANDOM.fullmatch(random.removesuffix(OLD))
            if ours and entry.is_dir(follow_symlinks=False):
                found.append((folder / entry.name, begins[head + part]))
    return found


def _begins(name: str) -> str:
    return f".{name[:60]}{_PART}"


def sweep(outputs: Iterable[Path]) -> None:
    """Remove the temporary folders of summaries whose processes were killed, as the caller knows: what is called as
    they are and holds nothing but a summary's files, some half-written. An older summary stays until there is another
    in its place.

    Args:
        outputs: of the summaries, in one folder.
    """
    places = {output.name: output for output in outputs}
    for folder in {output.parent for output in places.values()}:
        for left, names in temporaries(folder, places):
            if not left.name.endswith(OLD) or all(places[name].is_dir() for name in names):
                _remove(left)


def _sweep_idle(folder: Path, name: str) -> None:
    """Remove the temporary folders of summaries called `name` that no living process holds; older summaries stay."""
    with contextlib.suppress(OSError):  # of a folder that may not be listed
        for left, _ in temporaries(folder, [name]):
            if left.name.endswith(OLD):
                continue
            with contextlib.suppress(OSError):
                handle = _opened(left)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(left)
                finally:
                    os.close(handle)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _remove(left: Path) -> None:
    with contextlib.suppress(OSError):
        if not strangers(left, _UNFINISHED.fullmatch):
            shutil.rmtree(left, ignore_errors=True)


def _restore(final: Path) -> None:
    """Put back an older summary that a process had renamed away to put another in its place, when it was killed."""
    if os.path.lexists(final) or not final.parent.is_dir():
        return
    with contextlib.suppress(OSError):
        found = [path for path, _ in temporaries(final.parent, [final.name]) if path.name.endswith(OLD)]
        # Of a longer name, or of several, nobody knows which one it is.
        if len(found) == 1 and _begins(final.name) == f".{final.name}{_PART}":
            os.rename(found[0], final)


def writing_failed(folder: Path, error: OSError) -> VTSumError:
    """The one-line error for a write below `folder` that failed."""
    if full(error):
        return VTSumError(f"summarize: output {plain(folder)} must have room for the summary, the disk is full")
    return VTSumError(f"summarize: output {plain(folder)} must be writable: {reason(error)}")


def check_output(folder: Path, overwrite: bool, inputs: Sequence[AnyPath | None] = ()) -> None:
    """Refuse an output folder that would destroy something.

    Raises:
        VTSumError: it is a file, a mounted disk, a folder in which an input lies, one that is not empty (without
            overwrite), one that may not be written to, or one that holds anything but an older summary (even with
            overwrite).
    """
    try:
        check_possible(folder)
    except OSError as error:
        raise writing_failed(folder, error) from None
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise VTSumError(f"summarize: output must be a folder, got the file {plain(folder)}")
    if os.path.ismount(folder):  # nothing can be renamed to it
        raise VTSumError(f"summarize: output must be no mounted disk, got {plain(folder)}; give a folder in it")
    try:
        foreign = strangers(folder, OURS.fullmatch)
        empty = not os.listdir(folder)
    except OSError as error:
        raise writing_failed(folder, error) from None
    # The folder itself could be replaced all the same, which nobody expects; the other one not be removed.
    for place in (folder, folder / "keyframes"):
        if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
            raise VTSumError(f"summarize: output {plain(place)} must be writable: Permission denied")
    if foreign:
        raise VTSumError(
            f"summarize: output must be a new or empty folder or an older summary, "
            f"got {plain(folder)} with {plain(foreign[0])} in it"
        )
    check_inputs("summarize", folder, [*inputs, *READ])
    if not empty and not overwrite:
        raise VTSumError(
            f"summarize: output {plain(folder)} must not exist yet (-o names another, --overwrite replaces it)"
        )


class StagedFolder:
    """A temporary folder beside `final`, renamed to it by `commit`; removed, with all in it, if that is not reached.

    Missing parents are made at the very end, so that a failure leaves nothing. An older summary is renamed away before
    and deleted, by its files' names, after the new one is in place. The temporary folder is locked (shared) as long as
    this process lives and works on it, where the disk knows locks; those that killed ones have left are removed.

    Args:
        inputs: what is read meanwhile, and must not lie in `final`.
        dry (bool): make nothing; only refuse what would be refused.
    Raises:
        VTSumError: the place cannot be written to, or would be destroyed (see check_output).
    """

    def __init__(
        self, final: Path, overwrite: bool, inputs: Sequence[AnyPath | None] = (), *, dry: bool = False
    ) -> None:
        self.final = Path(os.path.realpath(final))
        self.overwrite, self.inputs, self.dry = overwrite, inputs, dry
        if not dry:
            _restore(self.final)
        check_output(self.final, overwrite, inputs)
        base = self.final.parent
        while not base.exists():
            base = base.parent
        if not base.is_dir():
            raise VTSumError(f"summarize: output must lie in a folder, got {plain(self.final)} below a file")
        if dry:
            self.path = self.final
            return
        _sweep_idle(base, self.final.name)
        self.path = base / temporary(self.final.name)
        begun(self.path)
        try:
            self.path.mkdir()
            self._held = _opened(self.path)
        except OSError as error:
            raise writing_failed(self.final, error) from None
        with contextlib.suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def commit(self) -> None:
        """Put the folder in its place.

        Raises:
            VTSumError: it cannot be; where somebody put something there meanwhile, the message says under which name
                the new folder was kept.
        """
        try:
            check_output(self.final, self.overwrite, self.inputs)
            make_folder(self.final.parent)
            replace_folder(self.path, self.final, OURS.fullmatch)
        except VTSumError as error:
            raise VTSumError(f"{error}; the new summary is {self._kept()}") from None
        except OSError as error:
            failed = writing_failed(self.final, error)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and self.path.exists():
                failed = VTSumError(f"{failed}; the new summary is {self._kept()}")
            raise failed from None

    def _kept(self) -> str:
        """Rename the folder to a free name that the user sees; returns it."""
        number = 2
        while os.path.lexists(place := self.path.with_name(f"{self.final.name[:60]}_{number}")):
            number += 1
        os.rename(self.path, place)
        return plain(place)

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.dry:
            over(self.path)
            os.close(self._held)
