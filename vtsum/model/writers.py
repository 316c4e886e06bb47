"""Who writes the text: instruct checkpoints of transformers, or a part of the user's own."""

from __future__ import annotations

from pathlib import Path

from vtsum import plugins
from vtsum.errors import VTSumError
from vtsum.model.chat import Chat, Turn
from vtsum.model.pretrained import files_sha256
from vtsum.protocols import Writer
from vtsum.reuse import reused

LONGEST = 400  # tokens that it writes
OP = "writer"


class ChatWriter:
    """An instruct checkpoint (AutoModelForCausalLM with a chat template), as a `Writer`.

    Args:
        source: a folder, or a name on the hub or in its local cache. device: as for `Chat`.
    Attributes:
        device (str): where it runs.
    Raises:
        VTSumError: see `Chat`.
    """

    def __init__(self, source: str, device: str = "auto") -> None:
        self._chat = Chat(source, pictures=False, op=OP, device=device)
        self.name = source
        self.device = str(self._chat.device)
        self.sha256 = files_sha256(self._chat.folder)

    def write(self, request: str) -> str:
        """See `Writer`."""
        return self._chat.write(Turn(self._chat.data(request)), LONGEST)


@reused
def make_writer(name: str, device: str = "auto") -> Writer:
    """The writer of that name.

    Args:
        name: the folder or hub name of an instruct checkpoint, or one of the user's own (`vtsum.plugins`).
        device: as for `Chat`; the user's own knows by itself.
    Raises:
        VTSumError: there is none of that name.
    """
    if not Path(name).is_dir():
        own: Writer | None = plugins.find("writer", name)
        if own is not None:
            return own
        if "/" not in name:
            raise VTSumError(f"writer must be none, a folder, a hub name or module:Class, got {name!r}")
    return ChatWriter(name, device)
