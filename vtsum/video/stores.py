"""Videos in object stores (s3://BUCKET/KEY), through fsspec's file systems. Where a store is and who may read it, the
packages' own settings say (AWS_PROFILE, AWS_ENDPOINT_URL ...)."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vtsum.errors import VTSumError
from vtsum.shown import clean, reason

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
"""Schemes of addresses, and the package that reads each."""

_ADDRESS = re.compile(f"({'|'.join(PACKAGES)})://", re.IGNORECASE)
_PIECE = 16 << 20  # bytes of one request
_MOST = 1 << 20  # videos under one address
_LISTED = 600  # seconds in which a store has told what it has under one address


def in_store(path: object) -> bool:
    """Whether a path is an address in an object store."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


def pieces(address: str, where: str) -> Iterator[tuple[bytes, int]]:
    """An object's bytes, piece by piece, each with the whole object's size.

    Args:
        where: begins messages.
    Raises:
        VTSumError: there is none, or it cannot be read, or the store's package is not installed.
    """
    with _store(address, where) as (store, path), store.open(path, "rb", block_size=_PIECE) as source:
        while piece := source.read(_PIECE):
            yield piece, source.size


def objects(address: str, where: str, endings: frozenset[str]) -> list[str]:
    """Addresses of the objects that an address means: itself; those under one that ends in "/", at any depth, which end
    as videos do; or those that match one with "*" in it.

    Raises:
        VTSumError: there is none, or the store cannot be read.
    """
    if not address.endswith("/") and "*" not in address:
        return [address]
    with _store(address, where) as (store, path):
        # fsspec's own patterns take for ever where they have many asterisks.
        wanted = path.split("/") if "*" in path else []
        fixed = next((at for at, part in enumerate(wanted) if "*" in part), 0)
        depth = len(wanted) - fixed if wanted and "**" not in wanted else None
        folder = "/".join(wanted[:fixed]) or path
        try:
            # A store may go on telling for ever.
            listed = store.find(folder, maxdepth=depth, detail=True, timeout=_LISTED)
        except TimeoutError:
            raise VTSumError(
                f"{where} must be listed within {_LISTED} s, got more and more; name a part of it"
            ) from None
        names = sorted(name for name, told in listed.items() if told["type"] == "file")
    if wanted:
        names = [name for name in names if _fits(name.split("/"), wanted)]
    else:
        names = [name for name in names if name[name.rfind(".") :].lower() in endings]
    if not names:
        raise VTSumError(f"{where} must hold videos, got none there")
    if len(names) > _MOST:
        raise VTSumError(f"{where} must hold at most {_MOST:,} videos, got more")
    scheme = address.partition("://")[0].lower()
    return [f"{scheme}://{name}" for name in names]


def _fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a name's parts are a pattern's: "*" is anything within a part, "**" parts as many as there are; brackets
    and question marks stand for themselves, names in stores have them."""
    at = {0}  # how many parts of the pattern may be behind what was read of the name
    for part in (*name, None):
        for n, wanted in enumerate(pattern):  # "**" may be no part at all
            if wanted == "**" and n in at:
                at.add(n + 1)
        if part is not None:
            stay = {n for n in at if n < len(pattern) and pattern[n] == "**"}
            at = stay | {n + 1 for n in at - stay if n < len(pattern) and _matches(part, pattern[n])}
    return len(pattern) in at


def _matches(part: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(part, pattern.replace("[", "[[]").replace("?", "[?]"))


@contextmanager
def _store(address: str, where: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the object's path in it; what goes wrong with it is told in one line."""
    scheme, _, path = address.partition("://")
    package = PACKAGES[scheme.lower()]
    try:
        importlib.import_module(package)
    except ImportError:
        raise VTSumError(f"{where}: {package} must be installed: pip install {package}") from None
    import fsspec

    try:
        # The path as it is: fsspec's own reading of addresses would follow "::" to other file systems. What was listed
        # once is not believed later: an object that became longer would be cut short.
        yield fsspec.filesystem(scheme.lower(), use_listings_cache=False), path
    except VTSumError:
        raise
    except Exception as error:  # each store's package has errors of its own
        # s3fs looks into an error for what a time that ran out does not have, and so tells of a tuple's index.
        why = clean(reason((isinstance(error, LookupError) and error.__context__) or error))[:300]
        if isinstance(error, FileNotFoundError) and why.endswith(path):
            why = "no such object"
        raise VTSumError(f"{where} must be an address that can be read, got: {why}") from None
