"""What Python hashes as a pickle is read: keys of dictionaries, whose hashes are of the file's choice.

A tuple's hash is that of all that is in it, anew each time: of tuples in tuples a thousand bytes ask for years, and a
million of them, one in the other, for more of the stack than there is. The hash of a whole number is its rest by
2**61 - 1: of 60,000 multiples of that each is compared with all that came before.
"""

from __future__ import annotations

from typing import Any

MOST_PARTS = 10_000_000
"""Of all tuples, those in them counted again; a model's have some twenty for each of its tensors."""
MOST_ODD = 1_000
"""Numbers beyond the hash's rest, and keys that are neither text nor numbers."""
_REST = 2**61 - 1
_ODD = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_GETS, _PUTS = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
# Of what is taken from the stack for one result; those with a mark take all above it, and so many below.
_TAKES = {
    **{"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "STACK_GLOBAL": 2},
    **{"BINPERSID": 1, "BUILD": 2, "APPEND": 2, "SETITEM": 3, "STOP": 1},
}
_MARKED = {
    **dict.fromkeys(("TUPLE", "LIST", "DICT", "FROZENSET", "INST", "OBJ"), 0),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), 1),
}
_NONE = {"PROTO", "FRAME", "MARK", "POP", "POP_MARK", "STOP", *_PUTS, "MEMOIZE"}


class EndlessKeys(ValueError):
    """More to be hashed, or compared, than an honest pickle has."""


class Keys:
    """Follows a pickle step by step, as the parts that its values have when they are hashed.

    Raises:
        EndlessKeys: from `see`.
    """

    def __init__(self) -> None:
        self._stack: list[int] = []  # parts of each value; what has none that are hashed is one
        self._marks: list[int] = []
        self._memo: dict[int, int] = {}
        self._parts = self._odd = 0

    def see(self, name: str, argument: Any) -> None:
        """Take the next step, of an opcode as pickletools calls it."""
        if isinstance(argument, int) and abs(argument) >= _REST:
            self._count_odd(1)
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in _PUTS:
            self._memo[argument] = self._stack[-1] if self._stack else 1
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1] if self._stack else 1
        elif name in ("POP", "POP_MARK"):
            self._take(name)
        elif name == "DUP":
            self._push(self._stack[-1] if self._stack else 1)
        elif name in _GETS:
            self._push(self._memo.get(argument, 1))
        elif name not in _NONE:
            self._make(name)

    def _make(self, name: str) -> None:
        taken = self._take(name)
        if name in ("SETITEM", "SETITEMS", "DICT"):
            keys = taken[name != "DICT" :: 2]
            self._count_odd(sum(key > 1 for key in keys))
        elif name == "ADDITEMS":
            self._count_odd(sum(each > 1 for each in taken[1:]))
        # What a function makes of a tuple may be hashed as that is; a list or a dictionary is never.
        parts = 1 + sum(taken) if name in (*_ODD, "FROZENSET", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD") else 1
        self._push(parts)

    def _take(self, name: str) -> list[int]:
        count = _TAKES.get(name, int(name == "POP"))
        if name in _MARKED or name == "POP_MARK":
            at = self._marks.pop() if self._marks else 0
            count = len(self._stack) - at + _MARKED.get(name, 0)
        taken = self._stack[-count:] if count > 0 else []
        del self._stack[len(self._stack) - len(taken) :]
        return taken

    def _push(self, parts: int) -> None:
        self._stack.append(parts)
        self._parts += parts - 1
        if self._parts > MOST_PARTS:
            raise EndlessKeys(f"tuples of more than {MOST_PARTS} parts")

    def _count_odd(self, count: int) -> None:
        self._odd += count
        if self._odd > MOST_ODD:
            raise EndlessKeys(f"more than {MOST_ODD} keys or numbers of odd kinds")
