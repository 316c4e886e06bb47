"""YAML of a stranger's, read strictly.

A few lines of YAML can stand for more than any memory holds (aliases), and tags for values that are none: what is read
here has use for neither.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from vtsum.errors import VTSumError
from vtsum.reading import read_file

_LIMIT = 1 << 16  # bytes
_DEPTH = 16  # lists and mappings in one another; settings have three
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")  # "\0" and "\ud800", which no file's name and no other text can hold
_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?i:inf|nan)")
_PLAIN = 1000  # characters of a value without quotes: Python shows no whole number of more than 4,300 digits


def read_yaml(path: str | Path, op: str, where: str, *, words: bool = False) -> Any:
    """What a YAML file holds.

    Args:
        op: begins the message of a file that cannot be read. where: begins the others. words: values are the words
            that stand there: YAML would take 1:30 for the number 90.
    Raises:
        VTSumError: it is not readable or no plain YAML, a name stands twice in one mapping, or a number is one to YAML
            alone: 010 is 8, and 1:30 is 90.
    """
    content = read_file(path, op, _LIMIT)
    depth = 0
    try:
        text = content.decode("utf-8")
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
                line = event.start_mark.line + 1
                raise VTSumError(f"{where}: line {line}: must be plain YAML without aliases (*) and tags (!)")
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > _PLAIN:
                line = event.start_mark.line + 1
                raise VTSumError(f"{where}: line {line}: must be at most {_PLAIN} characters, or stand in quotes")
            if isinstance(event, yaml.ScalarEvent) and _NO_TEXT.search(event.value):
                line = event.start_mark.line + 1
                raise VTSumError(f"{where}: line {line}: must be text, got a NUL or half a surrogate pair")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise VTSumError(f"{where} must be YAML of at most {_DEPTH} levels, got more")
        tree = yaml.compose(text, yaml.SafeLoader)
        _check_once(tree, where)
        if not words:
            _check_numbers(tree, where)
        return yaml.load(text, yaml.BaseLoader if words else yaml.SafeLoader)
    except VTSumError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of 5,000 digits, a 99th of the month
        raise VTSumError(f"{where} must be YAML, got: {error}") from None


def _check_once(node: Any, where: str) -> None:
    """Refuse a name that stands in a mapping twice, of which YAML's reader would take the last one in silence, and a
    merge key, by which one could: of two that are merged it would take the first."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.tag == _MERGE:
                raise VTSumError(f"{where}: line {key.start_mark.line + 1}: must be plain YAML without merge keys (<<)")
            if (name := str(key.value)) in seen:
                raise VTSumError(f"{where}: line {key.start_mark.line + 1}: must set {name} once, got it again")
            seen.add(name)
            _check_once(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_once(value, where)


def _check_numbers(node: Any, where: str) -> None:
    """Refuse numbers that are not what a reader takes them for."""
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            _check_numbers(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_numbers(value, where)
    elif isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and not _DECIMAL.fullmatch(node.value):
        line = node.start_mark.line + 1
        raise VTSumError(f"{where}: line {line}: must be a decimal number, or stand in quotes, got {node.value}")
