"""Text to token ids without control tokens, in bounded memory. Added words have their own ids."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer

from inference_server.chat.added_tokens import AddedTokens
from inference_server.errors import InvalidField

# The library takes up to 400 bytes of memory a byte of a word while it works: 80 MB for the longest piece.
_PIECE_CHARACTERS, _MOST_PIECE_CHARACTERS = 4_096, 2**16
_MARKS = r"\0-/:-@\[-`{-\x7f\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_RULES = [
    {"type": "Split", "pattern": {"Regex": _QWEN_PATTERN}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
]


def _letters() -> str:
    """Those of the Basic Multilingual Plane, as ranges of a regular expression's class.

    Unicode 3.2's, which every later version has too: Python and the library may know different ones.
    """
    codes = [code for code in range(0x10000) if unicodedata.ucd_3_2_0.category(chr(code)).startswith("L")]
    starts = [code for code, before in zip(codes, [-1, *codes], strict=False) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code != after - 1]
    return "".join(f"\\u{start:04x}-\\u{end:04x}" for start, end in zip(starts, ends, strict=True))


# Matches what stands behind a place at which Qwen's rule always ends a piece, and at which NFC joins nothing:
# punctuation or space behind a letter or digit, a space behind no other, anything of ASCII behind a digit.
_CUT = re.compile(rf"[{_MARKS}](?<=[0-9{_letters()}].)| (?<=[^\s\u180e].)|[\0-\x7f](?<=[0-9].)", re.DOTALL)


class TextTokenizer:
    """Tokenises text in which every control token is text. Thread-safe: nothing changes after construction."""

    def __init__(self, tokenizer: Tokenizer, control: frozenset[str]) -> None:
        """control: the added tokens that are text here; the others are words."""
        self._normalizer = tokenizer.normalizer
        self._plain = _without_added_tokens(tokenizer)
        self._may_cut = _has_qwen_rules(tokenizer)
        added = tokenizer.get_added_tokens_decoder().items()
        words = [(token_id, token) for token_id, token in added if token.content not in control]
        as_written = [(token.content, (token_id, token)) for token_id, token in words if not token.normalized]
        normalized = [
            (self._normalize(token.content), (token_id, token)) for token_id, token in words if token.normalized
        ]
        self._words, self._normalized_words = AddedTokens(dict(as_written)), AddedTokens(dict(normalized))

    def encode(self, text: str) -> Iterator[list[int]]:
        """The text's ids, in lists to be joined. Raises InvalidField for a text without a place to cut it."""
        for part in split(text, self._words):
            yield from [[part]] if isinstance(part, int) else self._encode_normalized(part)

    def _encode_normalized(self, text: str) -> Iterator[list[int]]:
        if not self._normalized_words:  # the library normalises
            yield from self._encode_plain(text)
            return
        for part in split("".join(map(self._normalize, self._pieces(text))), self._normalized_words):
            yield from [[part]] if isinstance(part, int) else self._encode_plain(part)

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else str(self._normalizer.normalize_str(text))

    def _pieces(self, text: str) -> Iterable[str]:
        return map(_not_too_long, cut(text, _PIECE_CHARACTERS, _MOST_PIECE_CHARACTERS)) if self._may_cut else [text]

    def _encode_plain(self, text: str) -> Iterator[list[int]]:
        for piece in self._pieces(text):
            # the batch call releases the GIL, the single one holds it for seconds on long text
            [encoding] = self._plain.encode_batch_fast([piece], add_special_tokens=False)
            yield encoding.ids


def _not_too_long(piece: str) -> str:
    if len(piece) > _MOST_PIECE_CHARACTERS:
        raise InvalidField("messages", f"expected at most {_MOST_PIECE_CHARACTERS} letters, spaces or marks in a row")
    return piece


def split(text: str, tokens: AddedTokens) -> Iterator[str | int]:
    """The text with the id of each of the tokens in its place."""
    start = 0
    for span in tokens.spans(text) if tokens else ():
        if start < span.start:
            yield text[start : span.start]
        yield span.token_id
        start = span.stop
    if start < len(text):
        yield text[start:]


def cut(text: str, least: int, most: int = 2**31) -> Iterator[str]:
    """Pieces of at least so many characters that tokenise apart as they do together, by Qwen's rules.

    A piece without a place to cut it among the first `most` characters is the rest of the text.
    """
    start = 0
    while found := _CUT.search(text, start + least, start + most + 1):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """One over the same model that knows no added tokens: what looks like one is text. Nor does it cut or pad."""
    plain = Tokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    return plain


def _has_qwen_rules(tokenizer: Tokenizer) -> bool:
    if tokenizer.pre_tokenizer is None:
        return False
    state = json.loads(tokenizer.pre_tokenizer.__getstate__())
    rules = [
        {key: value for key, value in rule.items() if key != "trim_offsets"} for rule in state.get("pretokenizers", ())
    ]
    normalizer = tokenizer.normalizer and json.loads(tokenizer.normalizer.__getstate__())
    return rules == _QWEN_RULES and normalizer in (None, {"type": "NFC"})
