"""What a hub says of a file becomes the names under which the hub's client keeps it: they lead out of no folder.

The client takes the ETag and the revision that are in an answer's head for a path's parts, as they are: with dots and
slashes in it, a file of anybody's could be put anywhere.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from vtsum.errors import VTSumError
from vtsum.model.hub_bounds import bound

_NAME = re.compile(r"[\w+=:,-][\w.+=:,-]{0,199}", re.ASCII)


def check_name(value: object, what: str, op: str) -> None:
    """Raise VTSumError where it is no name of a file without its folder."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise VTSumError(f"{op}: {what} must be a plain name, got {value!r:.120} of the hub")


@functools.cache
def guard() -> None:
    """From now on the hub's client refuses others, whoever has it fetch something."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    bound(_http, file_download)
    inner = getattr(file_download, "_get_metadata_or_catch_error", None)
    if inner is None:  # a version that does this elsewhere
        return

    @functools.wraps(inner)
    def checked(*words: Any, **options: Any) -> Any:
        found = inner(*words, **options)
        for what, value in (("the ETag of a file", found[1]), ("the revision of a file", found[2])):
            if value is not None:
                check_name(value, what, "hub")
        return found

    file_download._get_metadata_or_catch_error = checked
