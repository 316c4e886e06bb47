"""What Python hashes as a pickle is read: keys of dictionaries and members of sets, whose hashes are the file's choice.

A tuple's hash is that of all that is in it, anew each time: of tuples in tuples a thousand bytes ask for years, and a
million of them, one in the other, for more of the stack than there is. A number's hash is its rest by 2**61 - 1: of
60,000 multiples of that each is compared with all that came before, and so are others that are chosen for it. Of one
long list, a set can be made again and again.
"""

from __future__ import annotations

from typing import Any

MOST_PARTS = 10_000_000
"""Of all tuples, those in them counted again; a model's have some twenty for each of its tensors. So many members, too,
may lists and dictionaries have together that something is made of by a call."""
MOST_ODD = 1_000
"""Numbers beyond the hash's rest, and keys that are neither text nor numbers."""
MOST_CHOSEN = 20_000
"""Keys whose hashes can be chosen: fractions and numbers of more than 32 bits."""
_REST, _NARROW = 2**61 - 1, 2**31
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"}
_EMPTY = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT", "FROZENSET"}
_GETS, _PUTS = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
# Of what is taken from the stack for one result; those with a mark take all above it, and so many below.
_TAKES = {
    **{"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "STACK_GLOBAL": 2},
    **{"BINPERSID": 1, "BUILD": 2, "APPEND": 2, "SETITEM": 3, "STOP": 1, "POP": 1},
}
_MARKED = {
    **dict.fromkeys(("TUPLE", "LIST", "DICT", "FROZENSET", "INST", "OBJ", "POP_MARK"), 0),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), 1),
}
_GROWS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}
_PAIRS = {"SETITEM", "SETITEMS", "DICT"}
_NONE = {"PROTO", "FRAME", "STOP", "POP", "POP_MARK"}


class EndlessKeys(ValueError):
    """More to be hashed, or compared, than an honest pickle has."""


class _Value:
    """One on the stack. `parts`: that are hashed where it is a tuple. `members`, `chosen`: of a list, a dictionary or a
    set, all, and those whose hashes can be chosen. `held`: what a tuple is of, for a call whose arguments it is."""

    __slots__ = ("chosen", "held", "members", "parts")

    def __init__(self, parts: int = 1, held: tuple[_Value, ...] = ()) -> None:
        self.parts, self.held = parts, held
        self.members = self.chosen = 0


_PLAIN, _CHOSEN = _Value(), _Value()


class Keys:
    """Follows a pickle step by step, as the parts that its values have when they are hashed.

    Raises:
        EndlessKeys: from `see`.
    """

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Value] = {}
        self._parts = self._members = self._odd = self._chosen = 0

    def see(self, name: str, argument: Any) -> None:
        """Take the next step, of an opcode as pickletools calls it."""
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in _PUTS or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in _GETS:
            self._stack.append(self._memo.get(argument, _PLAIN))
        elif name == "DUP":
            self._stack.append(self._top())
        elif name in _NONE:
            self._take(name)
        elif name in _EMPTY or name in _GROWS:
            self._gather(name)
        elif name in _TUPLES or name in _CALLS or name == "BUILD":
            self._join(name)
        else:
            self._take(name)
            self._stack.append(self._number(argument) if isinstance(argument, int | float) else _PLAIN)

    def _top(self) -> _Value:
        return self._stack[-1] if self._stack else _PLAIN

    def _number(self, value: float) -> _Value:
        if isinstance(value, int) and abs(value) >= _REST:
            self._count(odd=1)
        return _PLAIN if isinstance(value, int) and abs(value) < _NARROW else _CHOSEN

    def _gather(self, name: str) -> None:
        """Make a list, a dictionary or a set, or have it grow."""
        taken = self._take(name)
        grown = taken.pop(0) if name in _GROWS and taken else _Value()
        grown = (
            _Value() if grown in (_PLAIN, _CHOSEN) else grown
        )  # no list, which torch refuses: those are of all files
        keys = taken[::2] if name in _PAIRS else taken
        odd = sum(key.parts > 1 for key in keys)
        chosen = odd + sum(key is _CHOSEN for key in keys)
        grown.members += len(keys)
        grown.chosen += chosen
        if name not in ("APPEND", "APPENDS", "LIST"):
            self._count(odd=odd, chosen=chosen)
        else:  # of pairs in lists, a dictionary may be made
            grown.chosen += sum(bool(key.held) or key.members > 0 or key.chosen > 0 for key in keys) - odd
        self._stack.append(grown)

    def _join(self, name: str) -> None:
        """Make a tuple, or what a call makes: that may be hashed as what it is of is."""
        taken = self._take(name)
        parts = sum(value.parts for value in taken)
        if name == "BUILD" and taken and taken[0] not in (_PLAIN, _CHOSEN):  # it stays what it is
            made = taken[0]
            made.parts = 1 + parts
        else:
            made = _Value(1 + parts, tuple(taken) if name in _TUPLES else ())
        if name in _CALLS:
            given = [each for value in taken for each in (value, *value.held)]
            made.members, made.chosen = (sum(getattr(e, n) for e in given) for n in ("members", "chosen"))
            self._count(members=made.members, chosen=made.chosen)
        self._count(parts=parts)
        self._stack.append(made)

    def _take(self, name: str) -> list[_Value]:
        count = _TAKES.get(name, 0)
        if name in _MARKED:
            count = len(self._stack) - (self._marks.pop() if self._marks else 0) + _MARKED[name]
        taken = self._stack[-count:] if count > 0 else []
        del self._stack[len(self._stack) - len(taken) :]
        return taken

    def _count(self, parts: int = 0, members: int = 0, odd: int = 0, chosen: int = 0) -> None:
        self._parts += parts
        self._members += members
        self._odd += odd
        self._chosen += chosen
        if self._parts > MOST_PARTS:
            raise EndlessKeys(f"tuples of more than {MOST_PARTS} parts")
        if self._members > MOST_PARTS:
            raise EndlessKeys(f"calls that take more than {MOST_PARTS} members of lists and dictionaries")
        if self._odd > MOST_ODD:
            raise EndlessKeys(f"more than {MOST_ODD} keys or numbers of odd kinds")
        if self._chosen > MOST_CHOSEN:
            raise EndlessKeys(f"more than {MOST_CHOSEN} keys of hashes that can be chosen")
