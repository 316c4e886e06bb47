"""What a stranger's tokenizer.json may make of a text: not so much of each letter that memory, or time, ends."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from vtsum.errors import VTSumError

MOST_GROWTH = 1000
"""By what a tokenizer's rules may lengthen a text; published ones have some 200 at most, as they are counted here."""
LONGEST_WORD = 10_000
"""Letters; tokenizers ends the process where one of a Unigram's has a million, and a text is as long as its words."""
_TOKEN_MAP = "special_tokens_map.json"
_WORDS = ("vocab", "merges", "init_inputs", "tokenizer_object")
