"""The output folder of a stream: written anew as the stream goes on, each file by a temporary name and renamed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from vtsum.errors import VTSumError
from vtsum.files import AnyPath, make_folder, plain, remove_folder, write_text, written
from vtsum.shown import escaped
from vtsum.summary.live import state
from vtsum.summary.live.document import LiveDocument
from vtsum.summary.staging import OURS, check_output, writing_failed

KEYFRAMES = "keyframes"


class LiveFolder:
    """A folder that one stream at a time writes to.

    Key frames are there before summary.json names them, and go after it names them no more, so that who reads it finds
    them; the state comes last.

    Args:
        path: of the folder. overwrite: begin anew, whatever is there. inputs: what is read meanwhile.
    Attributes:
        found: the facts and arrays of a run that was stopped; None: there is none.
    Raises:
        VTSumError: it would destroy something (`check_output`), cannot be written to, another run writes to it, or the
            state in it is damaged.
    """

    def __init__(self, path: Path, overwrite: bool, inputs: Sequence[AnyPath | None] = ()) -> None:
        self.path = Path(os.path.realpath(path))
        self._state = self.path / state.FILE
        goes_on = self._state.is_file() and not self._state.is_symlink() and not overwrite
        check_output(self.path, overwrite or goes_on, inputs)
        self._made = not self.path.exists()
        try:
            make_folder(self.path)
            self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise VTSumError(f"stream: output {plain(path)} must be of no run at work, got one") from None
        except OSError as error:
            raise writing_failed(self.path, error) from None
        try:
            if overwrite:
                self._clear()
            self.found = state.load(self._state) if goes_on else None
        except BaseException:
            self.close()
            raise

    def _clear(self) -> None:
        for name in os.listdir(self.path):
            if name == KEYFRAMES:
                self._clear_pictures()
            elif OURS.fullmatch(name):
                (self.path / name).unlink()

    def _clear_pictures(self) -> None:
        remove_folder(self.path / KEYFRAMES, lambda found: OURS.fullmatch(f"{KEYFRAMES}/{found}"))

    def close(self) -> None:
        """Let another run have it; one in which no summary was written goes, if it was not there before."""
        os.close(self._handle)
        if self._made and not os.path.lexists(self.path / "summary.json"):
            self._clear_pictures()  # the disk was full, say
            with suppress(OSError):
                self.path.rmdir()

    def write(
        self,
        document: LiveDocument,
        pictures: Mapping[str, bytes],
        facts: state.Facts | None,
        arrays: Callable[[], Mapping[str, np.ndarray]],
    ) -> None:
        """Write a summary.

        Args:
            pictures: by the names that the document has. facts, arrays: the state; None: none is needed any more.
        Raises:
            VTSumError: it cannot be written.
        """
        try:
            (self.path / KEYFRAMES).mkdir(exist_ok=True)
            for name, data in pictures.items():
                if not (self.path / name).is_file():
                    with written(self.path / name) as part:
                        part.write_bytes(data)
            content = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
            write_text(self.path / "summary.json", escaped(content) + "\n")
            for entry in os.listdir(self.path / KEYFRAMES):
                name = f"{KEYFRAMES}/{entry}"
                if OURS.fullmatch(name) and name not in pictures:
                    (self.path / name).unlink()
            if facts is None:
                self._state.unlink(missing_ok=True)
            else:
                state.save(self._state, facts, arrays())
        except OSError as error:
            raise writing_failed(self.path, error) from None
