"""Words as they are compared: plain, and apart from those that tell nothing of a topic."""

from __future__ import annotations

import re

_EDGES = re.compile(r"^\W+|(?<=\w)\W+$")


def plain(word: str) -> str:
    """A word in lowercase, with a straight apostrophe and no punctuation at its edges ("" for a sign)."""
    return _EDGES.sub("", word.replace("’", "'").lower())


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written with spaces."""
    return frozenset(text.split())


#: Words that hold a sentence together and tell nothing of its topic: half of any English text.
FUNCTION_WORDS = word_set(
    "a an the and or but nor if then than so as because while although though until unless of to in on at by for from "
    "with without into onto upon over under up down out off about above below after before between through during "
    "against among around is are was were be been being am have has had having do does did doing done will would can "
    "could shall should may might must i you he she it we they me him her us them my your his its our their mine "
    "yours hers ours theirs myself yourself himself herself itself ourselves themselves this that these those there "
    "here who whom whose which what when where why how all any both each few more most other some such no not only "
    "own same too very just now again also ever never once let get got go going gone come one i'm i've i'll i'd "
    "you're you've you'll he's she's it's we're we've we'll they're they've that's there's what's who's let's don't "
    "doesn't didn't isn't aren't wasn't weren't can't couldn't won't wouldn't shouldn't haven't hasn't hadn't ll ve re"
)
