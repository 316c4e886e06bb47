"""Every regular expression of the package takes time in proportion to the text: one that goes back and forth over a
long line would hold the process, deaf to signals, for hours."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "vtsum"
OUR_OWN = (
    "model/blip_vision.py",
    "evaluation/clip_score.py",
    "model/videoxum_checkpoint.py",
    "training/optimizers.py",
)
"""Files that take patterns from tables of theirs, anchored ones, or from the user's settings: for the names of
weights."""
PER_MB = 2.0  # seconds; linear ones need some 0.1 on an idle core, square ones minutes
SHORTEST = 0.15  # seconds for any text: a busy machine may keep a process waiting so long


def used() -> dict[tuple[str, str], str]:
    """(pattern, method) -> file of every use: compiled patterns of modules, which may be searched for, and those that
    are handed to `re` where they are used."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not any(isinstance(n, ast.Import) and any(a.name == "re" for a in n.names) for n in ast.walk(tree)):
            continue
        module = importlib.import_module("vtsum." + name.removesuffix(".py").replace("/", "."))
        for pattern in patterns_in(vars(module).values()):
            found.setdefault((pattern, "search"), name)
        top = {id(inner) for node in tree.body for inner in walk_outside_functions(node)}
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func).startswith("re.") and call.args):
                continue
            method, first = ast.unparse(call.func).removeprefix("re."), call.args[0]
            held = vars(module).get(first.id) if isinstance(first, ast.Name) else getattr(first, "value", None)
            if isinstance(held, str):
                found.setdefault((held, method if method in ("match", "fullmatch") else "search"), name)
            elif id(call) not in top and name not in OUR_OWN:
                raise AssertionError(f"{name}:{call.lineno}: a pattern that cannot be seen: have it in a module's name")
    return found


def walk_outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from walk_outside_functions(child)


def patterns_in(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, re.Pattern):
            yield value.pattern if isinstance(value.pattern, str) else value.pattern.decode("latin-1")
        elif isinstance(value, tuple | list):
            yield from patterns_in(value)
        elif isinstance(value, dict):
            yield from patterns_in(value.values())


def alphabet(pattern: str) -> str:
    """A sign of each kind that the pattern can tell apart: those written in it, and one of each class. A sign that is
    not in it is to it as any other."""
    written = dict.fromkeys(c for c in pattern if c.isprintable() and not c.isalnum() and c.isascii())
    return "".join({**written, **dict.fromkeys(" \n1aA,.é’")})


def seconds(pattern: re.Pattern[str], method: str, text: str) -> float:
    """The least of three tries, of which the first usually is enough."""
    best = float("inf")
    for _ in range(3):
        before = time.perf_counter()
        if method == "search":
            pattern.sub("", text)  # from every place on, to the end
        else:
            getattr(pattern, method)(text)
        best = min(best, time.perf_counter() - before)
        if best < SHORTEST:
            break
    return best


USED = used()


@pytest.mark.parametrize(("pattern", "method"), USED, ids=lambda part: part[:40].encode("ascii", "replace").decode())
def test_a_pattern_is_linear_in_the_text(pattern: str, method: str) -> None:
    compiled, signs = re.compile(pattern), alphabet(pattern)
    texts = [
        before + sign * (1 << 13) + after for sign in signs for before, after in (("", ""), ("a", "a"), ("[{(", "!"))
    ]
    texts += [(one + other) * (1 << 12) for one, other in itertools.permutations(signs, 2)]
    texts += ["".join(sign * ((1 << 20) // len(signs)) for sign in order) for order in (signs, signs[::-1])]
    for text in texts:
        took = seconds(compiled, method, text)
        assert took < max(SHORTEST, PER_MB * len(text) / (1 << 20)), (text[:20], len(text), took)


def test_the_patterns_are_found() -> None:
    files = set(USED.values())
    assert len(USED) > 60
    assert {"enhance/speech/subtitles.py", "enhance/speech/wer.py", "shown.py", "summary/text.py"} <= files
