"""Breaks lines where Chinese and Japanese may break: between characters, but not before a full stop.

rich breaks at spaces alone, which leaves a line nearly empty where a sentence without spaces follows a word.
"""

import re
from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

_OPENING = "（《「『【〈〔“‘"
_CLOSING = "，。、！？；：）》」』】〉〕”’…—"
_CHARACTER = "\u3005\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
_UNIT = re.compile(rf"[{_OPENING}]*(?:[{_CHARACTER}]|[^\s{_OPENING}{_CLOSING}{_CHARACTER}]+)?[{_CLOSING}]*\s*")


def wrapped(text: Text, width: int) -> Text:
    """The same text and styles in lines of at most `width` cells."""
    lines = []
    for line in text.split("\n", allow_blank=True):
        for part in line.divide(line_starts(line.plain, width)):
            part.rstrip()
            lines.append(part)
    result = Text("\n").join(lines)
    result.no_wrap = True
    return result


def line_starts(line: str, width: int) -> list[int]:
    """Where the second line and all later ones begin, as indices into `line`."""
    starts: list[int] = []
    column = 0
    for start, unit in _pieces(line, width):
        if column and column + cell_len(unit.rstrip()) > width:
            starts.append(start)
            column = 0
        column += cell_len(unit)
    return starts


def _pieces(line: str, width: int) -> Iterator[tuple[int, str]]:
    """What stays together, with its place. What is wider than a line comes character by character."""
    for match in _UNIT.finditer(line):
        if cell_len(match.group().rstrip()) <= width:
            yield match.start(), match.group()
        else:
            yield from enumerate(match.group(), match.start())
