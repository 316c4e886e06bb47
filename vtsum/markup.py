"""Text from elsewhere put into Markdown, LaTeX and CSV as text: no link, picture, tag or formula."""

from __future__ import annotations

import re
from typing import TypeVar

from vtsum.shown import one_line

_T = TypeVar("_T")
# What means something within a line, a table's cell included; and the sign in a bare address without which GitHub makes
# no link of it.
_MARKDOWN = re.compile(r"[\\`*_\[\]<&|~$]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {sign: "\\" + sign for sign in "&%$#_{}"}
_TEX |= {"[": "{[}", "*": "{*}"}  # as the first of a row they would belong to the row's end before it
_RUN = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are those of full width


def markdown(text: str) -> str:
    """A line's part in Markdown, GitHub's and CommonMark's, that shows the text as it is."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def tex(text: str) -> str:
    """The text in LaTeX."""
    return "".join(_TEX.get(sign, sign) for sign in one_line(text))


def csv_cell(value: _T) -> _T | str:
    """A cell of a CSV file: text that a spreadsheet would take for a formula gets an apostrophe in front; a number
    stays what it is.

    Source: OWASP, "CSV Injection".
    """
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_RUN) else text
