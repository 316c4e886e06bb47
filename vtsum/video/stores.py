"""Videos in object stores (s3://BUCKET/KEY), through fsspec's file systems. Where a store is and who may read it, the
packages' own settings say (AWS_PROFILE, AWS_ENDPOINT_URL ...)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vtsum.errors import VTSumError
from vtsum.shown import clean, reason

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
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
        # A pattern's brackets and question marks stand for themselves: names in stores have them.
        pattern = path.replace("[", "[[]").replace("?", "[?]")
        ask = partial(store.glob, pattern) if "*" in path else partial(store.find, path)
        try:
            listed = ask(detail=True, timeout=_LISTED)  # a store may go on telling for ever
        except TimeoutError:
            raise VTSumError(
                f"{where} must be listed within {_LISTED} s, got more and more; name a part of it"
            ) from None
        names = sorted(name for name, told in listed.items() if told["type"] == "file")
    if "*" not in address:
        names = [name for name in names if name[name.rfind(".") :].lower() in endings]
    if not names:
        raise VTSumError(f"{where} must hold videos, got none there")
    if len(names) > _MOST:
        raise VTSumError(f"{where} must hold at most {_MOST:,} videos, got more")
    scheme = address.partition("://")[0].lower()
    return [f"{scheme}://{name}" for name in names]


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
