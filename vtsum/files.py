"""Files that stay whole: written at once or not at all, never over an input, removed only where they are ours."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vtsum.errors import VTSumError
from vtsum.shown import reason
from vtsum.signals import begun, is_begun, over

AnyPath = str | os.PathLike[str]
_KINDS = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a folder"))


def plain(path: AnyPath) -> str:
    """A path as it can be said in one line."""
    return os.fsdecode(path).encode("utf-8", "replace").decode("utf-8").replace("\n", " ")


OLD = ".old"
"""How the name of a folder ends for which another one is put in its place."""
_DIGITS = 8  # random bytes in a temporary file's name
_RANDOM = re.compile(rf"[0-9a-f]{{{2 * _DIGITS}}}\.part")
_ENDS = 2 * _DIGITS + len(".part")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_MOUNT = re.compile(r"^mnt_id:\s{0,8}(\d{1,20})$", re.MULTILINE)


def shortened(name: str, most: int) -> str:
    """A name, or as many letters of it as `most` bytes hold."""
    kept = os.fsencode(name)
    return name if len(kept) <= most else kept[:most].decode(errors="ignore")


class _Part:
    """A new file beside `path` under a name that nobody knows before, readable as any new file of the user's is. It is
    locked (shared) as long as this process lives and works on it, where the disk knows locks: see `sweep`."""

    def __init__(self, path: Path) -> None:
        check_possible(path)
        check_regular(path)
        self._made = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.final = path
        self.path = path.with_name(f"{_begins(path.name)}{secrets.token_hex(_DIGITS)}.part")
        begun(self.path)
        self._held = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._mode = stat.S_IMODE(os.fstat(self._held).st_mode)

    def take_place(self) -> None:
        check_regular(self.final)  # what was put there meanwhile is not lost either
        os.chmod(self.path, self._mode)  # some writers make their files private
        os.replace(self.path, self.final)

    def drop(self) -> None:
        over(self.path)
        os.close(self._held)
        if self._made:
            with suppress(OSError):  # there is something in it
                self.final.parent.rmdir()


@contextmanager
def written(path: AnyPath) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` when the block ends well; else nothing has changed.

    It lies in the same folder, which is made if need be. Its name does not end as `path` does: a writer that goes by
    the ending must be told the format.

    Raises:
        OSError: it cannot be written, or something other than a regular file is in its place; no link is followed.
    """
    part = _Part(Path(path))
    try:
        yield part.path
        part.take_place()
    finally:
        part.drop()


def _begins(name: str) -> str:
    return f".{name[:32]}."


def spot(error: OSError, folder: AnyPath) -> str:
    """What an error of writing into a folder is of, as it can be said: the file that it names; where that is a
    temporary one, or none, the folder."""
    for given in (error.filename2, error.filename):
        if isinstance(given, str | bytes | os.PathLike) and not _RANDOM.fullmatch(os.fsdecode(given)[-_ENDS:]):
            return plain(os.fsdecode(given))
    return plain(folder)


def unfinished(folder: Path, names: Iterable[str]) -> list[Path]:
    """What processes that were killed have left of files of these names in a folder, half-written, under the names that
    `written` and `replacing` give; and what others are at work on. Links are none."""
    begins = {_begins(name) for name in names}
    try:
        with os.scandir(folder) as found:
            files = [entry.name for entry in found if entry.is_file(follow_symlinks=False)]
    except OSError:  # there is no such folder
        return []
    return [folder / name for name in files if name[:-_ENDS] in begins and _RANDOM.fullmatch(name[-_ENDS:])]


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove what `unfinished` finds, but for what a living process holds. What this one is at may be another file by
    now than the one that it locked."""
    for path in unfinished(folder, names):
        if is_begun(path):
            continue
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def write_text(path: AnyPath, text: str) -> None:
    """Write a text file (UTF-8) through `written`."""
    with written(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replacing(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Several files of a folder at once: a function from a name to the file to write; all take their places, in the
    order in which they were asked for, when the block ends well; else none does.

    Raises:
        OSError: see `written`.
    """
    asked: dict[str, _Part] = {}

    def ask(name: str) -> Path:
        if name not in asked:
            asked[name] = _Part(folder / name)
        return asked[name].path

    try:
        yield ask
        for part in asked.values():
            check_regular(part.final)
        for part in asked.values():
            part.take_place()
    finally:
        for part in reversed(asked.values()):  # the first one has made the folder
            part.drop()


def check_regular(path: Path) -> None:
    """Raise FileExistsError where `path` is anything but a regular file or nothing at all."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = next((name for is_it, name in _KINDS if is_it(mode)), "no regular file")
        raise FileExistsError(errno.EEXIST, f"{kind} is in its place", str(path))


def check_possible(path: AnyPath) -> None:
    """Raise OSError where nothing can be put at `path`, also where that shows only once the folders on the way are
    made: a part of it is longer than the system's names, or it goes back (..) out of a folder that is not there. There
    nothing is to be seen before, and then another file, which nobody has looked at."""
    parts = Path(path).parts
    places = (Path(*parts[:index]) for index, part in enumerate(parts) if part == os.pardir and index)
    if (gone := next((place for place in places if not place.is_dir()), None)) is not None:
        raise FileNotFoundError(errno.ENOENT, f"it goes back (..) out of {plain(gone)}, which is no folder", str(path))
    absolute = Path(path).absolute()
    there = next((folder for folder in absolute.parents if os.path.lexists(folder)), Path("/"))
    longest = os.pathconf(there, "PC_NAME_MAX")
    if any(len(os.fsencode(part)) > longest for part in absolute.parts):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    with suppress(FileNotFoundError, NotADirectoryError):  # below a file: told in better words by who makes it
        os.lstat(absolute)


def check_path(op: str, output: AnyPath) -> None:
    """Raise VTSumError where `check_possible` raises."""
    try:
        check_possible(output)
    except OSError as error:
        raise VTSumError(f"{op}: output {plain(output)} must be writable: {reason(error)}") from None


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, where they are missing; none of them where that cannot be."""
    check_possible(folder)
    folder.mkdir(parents=True, exist_ok=True)


def check_new(op: str, output: Path, overwrite: bool) -> None:
    """Raise VTSumError where `output` exists and nobody said that it may be replaced, or is a link, a folder or the
    like, or no file may be made there. Where it may be written, what processes that were killed left of it half-written
    is swept."""
    check_path(op, output)
    if os.path.lexists(output) and not overwrite:
        raise VTSumError(f"{op}: output {plain(output)} must not exist yet (--overwrite replaces it)")
    try:
        check_regular(output)
    except OSError as error:
        raise VTSumError(f"{op}: output {plain(output)} must be writable: {reason(error)}") from None
    place = next((folder for folder in output.absolute().parents if os.path.lexists(folder)), output.parent)
    if os.path.isdir(place) and not os.access(place, os.W_OK | os.X_OK):
        raise VTSumError(f"{op}: output {plain(output)} must be writable, got a folder {plain(place)} that is not")
    sweep(output.parent, [output.name])


def check_no_links(op: str, *paths: Path) -> None:
    """Refuse work files and folders that are symbolic links: what is written or swept there would lie elsewhere.

    Raises:
        VTSumError: naming the first that is one.
    """
    for path in paths:
        if path.is_symlink():
            raise VTSumError(f"{op}: {plain(path)} must lie where it is named, got a symbolic link; remove the link")


def check_inputs(op: str, output: AnyPath, inputs: Iterable[AnyPath | None]) -> None:
    """Refuse to write over what is read, whatever links it is named through.

    Args:
        output: a file or a folder, there or not.
        inputs: files and folders; None and what does not exist are passed over, such as a hub's names.
    Raises:
        VTSumError: the output file is an input, or lies in an input folder; or an input lies in the output folder; or
            see `check_path`.
    """
    check_path(op, output)
    own = _identity(output)
    if own is None:
        return
    folder = os.path.isdir(output)

    def refuse(given: AnyPath) -> None:
        rule = "must not hold an input" if folder else "must not be an input"
        raise VTSumError(f"{op}: output {plain(output)} {rule}, got {plain(given)}; give another output")

    sought: dict[tuple[int, int] | None, AnyPath] = {}  # of all inputs in one look at what lies in the folder
    for given in inputs:
        if given is None or _identity(given) is None:
            continue
        for path in (given, *_links(given)):
            here, line = _place(path, output)
            if here:
                refuse(given)
            sought.update(dict.fromkeys(line, given))
        if not folder and _lies_in(output, given):
            refuse(given)
    for found in _inside(output) if sought else ():
        if found in sought:
            refuse(sought[found])


def check_apart(op: str, **outputs: AnyPath) -> None:
    """Refuse two outputs that are one file: the later would take the place of the other.

    Args:
        outputs: files that the command will write, there or not, by what they are called on the command line.
    Raises:
        VTSumError: two of them lead to one place.
    """
    places: dict[str, str] = {}
    for name, path in outputs.items():
        other = places.setdefault(os.path.realpath(path), name)
        if other != name:
            raise VTSumError(f"{op}: --{name} must be another file than --{other}, got {plain(path)} for both")


def check_outside(op: str, folder: AnyPath, **outputs: AnyPath) -> None:
    """Refuse outputs that would be lost with a folder in whose place another one will be.

    Args:
        folder: there or not. outputs: by what they are called on the command line, there or not.
    Raises:
        VTSumError: one of them lies in it, whatever links it is named through.
    """
    for name, path in outputs.items():
        if os.path.isdir(folder) and _lies_in(path, folder):
            raise VTSumError(f"{op}: --{name} must lie outside the output that is replaced, got {plain(path)}")


def _status(path: AnyPath, *, follow: bool = True) -> os.stat_result | None:
    """What a path leads to; None where that is nothing."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except (OSError, ValueError):
        return None


def _identity(path: AnyPath, *, follow: bool = True) -> tuple[int, int] | None:
    """Device and inode of what a path leads to; None where that is nothing."""
    found = _status(path, follow=follow)
    return None if found is None else (found.st_dev, found.st_ino)


def _line(path: AnyPath) -> set[tuple[int, int] | None]:
    """The identities of what a path leads to and of every folder that lies in."""
    real = Path(os.path.realpath(path))
    return {_identity(place) for place in (real, *real.parents)}


def _links(folder: AnyPath) -> Iterator[Path]:
    """The symbolic links in a folder, at any depth: what a model hub keeps is full of them."""
    for place, folders, files in os.walk(folder):
        yield from (path for name in (*folders, *files) if (path := Path(place, name)).is_symlink())


def _lies_in(path: AnyPath, place: AnyPath) -> bool:
    """Whether a path is a file or folder, or lies in it, be it under another name: a hard link, or what is mounted."""
    here, line = _place(path, place)
    return here or (bool(line) and any(found in line for found in _inside(place)))


def _place(path: AnyPath, place: AnyPath) -> tuple[bool, set[tuple[int, int] | None]]:
    """Whether a path is a file or folder or lies in it by its name; and where it does not, but may under another name,
    the identities of which one is then that of something in there."""
    line, found, there = _line(path), _status(path), _status(place)
    here = _identity(place) in line
    if found is None or there is None or not os.path.isdir(place) or here:
        return here, set()
    linked = not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1
    mounted = found.st_dev == there.st_dev and _mount(path) != _mount(place)
    # Mostly without a look at all that lies in a folder, a million summaries perhaps.
    return False, line if linked or mounted else set()


def _inside(place: AnyPath) -> Iterator[tuple[int, int] | None]:
    """The identities of all that lies in a folder, at any depth."""
    for at, folders, files in os.walk(place):
        yield from (_identity(Path(at, name), follow=False) for name in (*folders, *files))


def _mount(path: AnyPath) -> str | None:
    """The number of what is mounted where a path leads to; None where the system does not tell."""
    with suppress(OSError, ValueError, AttributeError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            told = _MOUNT.search(Path(f"/proc/self/fdinfo/{handle}").read_text())
            return told and told[1]
        finally:
            os.close(handle)
    return None


def strangers(folder: AnyPath, ours: Callable[[str], object]) -> list[str]:
    """What lies in a folder and is not ours, by its path below it.

    Args:
        ours: true of the path of each file that is ours, "a/b.txt", and "a/" for the folders on the way. A link,
            what is mounted or anything else under such a name is not ours.
    """
    return sorted(name for name, known in _entries(folder, ours) if not known)


def _entries(
    folder: AnyPath, ours: Callable[[str], object], below: str = "", mounted: Collection[str] | None = None
) -> Iterator[tuple[str, bool]]:
    """Path and whether it is ours, of each file, and of each folder ("a/") after what is in it."""
    mounted = _mounted(folder) if mounted is None else mounted
    with os.scandir(Path(folder, below)) as found:
        entries = list(found)
    for entry in entries:
        path = below + entry.name
        if path in mounted:
            yield path, False
        elif entry.is_dir(follow_symlinks=False) and ours(path + "/"):
            yield from _entries(folder, ours, path + "/", mounted)
            yield path + "/", True
        else:
            yield path, entry.is_file(follow_symlinks=False) and bool(ours(path))


def _mount_points() -> Iterator[bytes]:
    """Where something is mounted; nothing on a system that does not tell."""
    with suppress(OSError):
        places = (line.split(b" ")[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines())
        yield from (_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), place) for place in places)


def _mounted(folder: AnyPath) -> set[str]:
    """The files and folders in a folder, at any depth, where something else is mounted, by their paths below it."""
    begin = os.path.realpath(os.fsencode(folder)) + b"/"
    return {os.fsdecode(place.removeprefix(begin)) for place in _mount_points() if place.startswith(begin)}


def is_mounted(folder: AnyPath) -> bool:
    """Whether something else is mounted at a folder itself, be it of the same disk."""
    return os.path.realpath(os.fsencode(folder)) in _mount_points()


def replace_folder(made: Path, final: Path, ours: Callable[[str], object]) -> None:
    """Put the folder `made` in the place of `final`, on the same disk; an older one is removed file by file. Who may
    look into it stays as it was.

    Args:
        ours: see `strangers`.
    Raises:
        FileExistsError: `final` holds what is not ours, and is left as it is; or it was laid in at the very last, the
            new folder is in place, and the message says where the older one is kept.
        OSError: the disk's own complaint; `final` is as it was.
    """
    old: Path | None = None
    if final.is_symlink():
        raise FileExistsError(errno.EEXIST, "a symbolic link is in its place", str(final))
    if os.path.lexists(final) and (mode := os.stat(final).st_mode) != os.stat(made).st_mode:
        os.chmod(made, stat.S_IMODE(mode))
    if os.path.lexists(final) and os.listdir(final):
        _refuse_strangers(final, ours)
        old = made.with_name(made.name + OLD)
        os.rename(final, old)
    try:
        if old is not None:
            _refuse_strangers(old, ours)
        os.rename(made, final)
    except BaseException:
        if old is not None:
            os.rename(old, final)
        raise
    if old is not None and not remove_folder(old, ours):
        raise FileExistsError(errno.EEXIST, f"the new one is in place, what is left of the older one is in {old}")


def remove_folder(folder: Path, ours: Callable[[str], object]) -> bool:
    """Remove a folder file by file; what is not ours stays, and the folder with it. What is mounted there stays whole.

    Args:
        ours: see `strangers`.
    Returns:
        bool: nothing is left.
    """
    with suppress(OSError):
        for name, known in [] if folder.is_symlink() or is_mounted(folder) else list(_entries(folder, ours)):
            if known:
                with suppress(OSError):  # a folder in which something else lies
                    (os.rmdir if name.endswith("/") else os.unlink)(folder / name)
        os.rmdir(folder)
    return not os.path.lexists(folder)


def _refuse_strangers(folder: Path, ours: Callable[[str], object]) -> None:
    if foreign := strangers(folder, ours):
        raise FileExistsError(errno.EEXIST, f"{plain(foreign[0])} in it would be lost", str(folder))
