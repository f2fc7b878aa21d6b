"""Finds a tokenizer's added tokens in text, by the rules of the tokenizers library. Knows no roles and no templates."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tokenizers import AddedToken

_WHITESPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(c) for c in range(0x2000, 0x200B)
}
_WORD_CATEGORIES = frozenset(["Lu", "Ll", "Lt", "Lm", "Lo", "Nl", "Nd", "Mn", "Mc", "Me", "Pc"])


@dataclass(frozen=True, slots=True)
class Span:
    """One added token in a text, by character offsets, with the whitespace that its flags take along."""

    start: int
    stop: int
    token_id: int


@dataclass(frozen=True, slots=True)
class _Found:
    token_id: int
    lstrip: bool
    rstrip: bool
    single_word: bool


class AddedTokens:
    """Leftmost first, then longest. Time and memory are linear in the text, whatever the number of tokens."""

    def __init__(self, tokens: Mapping[str, tuple[int, AddedToken]]) -> None:
        """tokens: what to look for in the text, with the id and the flags of the token that it stands for."""
        self._pattern = re.compile(any_of(tokens))
        self._tokens = {
            content: _Found(token_id, token.lstrip, token.rstrip, token.single_word)
            for content, (token_id, token) in tokens.items()
        }

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def spans(self, text: str) -> Iterator[Span]:
        """The tokens in the text, in order. They do not overlap."""
        end = 0
        for match in self._pattern.finditer(text):
            token, (start, stop) = self._tokens[match.group()], match.span()
            if token.single_word and (_is_word(text[start - 1 : start]) or _is_word(text[stop : stop + 1])):
                continue
            while token.lstrip and start > end and text[start - 1] in _WHITESPACE:
                start -= 1
            while token.rstrip and stop < len(text) and text[stop] in _WHITESPACE:
                stop += 1
            yield Span(max(start, end), stop, token.token_id)
            end = stop


def any_of(words: Iterable[str]) -> str:
    """Return a pattern that matches the longest of the words at a place. Each character is looked at once.

    An ordinary alternation would try thousands of words one by one at each place where one may begin.
    """
    suffixes = sorted({word for word in words if word})
    return _branches(suffixes) if suffixes else "(?!)"


def _branches(suffixes: list[str]) -> str:
    prefix = _common_prefix(suffixes[0], suffixes[-1])  # they are sorted, so that the others have it too
    by_character: defaultdict[str, list[str]] = defaultdict(list)
    for suffix in suffixes:
        if rest := suffix[len(prefix) :]:
            by_character[rest[0]].append(rest)
    if not by_character:
        return re.escape(prefix)
    may_end_here = prefix in suffixes
    return f"{re.escape(prefix)}(?:{'|'.join(map(_branches, by_character.values()))}){'?' if may_end_here else ''}"


def _common_prefix(one: str, other: str) -> str:
    differs = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(differs, min(len(one), len(other)))]


def _is_word(character: str) -> bool:
    return bool(character) and unicodedata.category(character) in _WORD_CATEGORIES
