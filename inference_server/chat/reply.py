"""Generated token ids to text deltas: whole characters only, and nothing from a stop text on."""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from inference_server.errors import StartupError

_IN_NO_TOKEN = 0xFFFF


class Vocabulary:
    """The bytes behind each token id of a byte-level tokenizer. Shared by all replies; nothing changes in it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        characters = _byte_characters()
        to_latin = dict.fromkeys(range(256), _IN_NO_TOKEN) | {ord(one): byte for byte, one in enumerate(characters)}
        added = tokenizer.get_added_tokens_decoder()
        self._bytes: dict[int, bytes] = {}
        self._special_names: dict[int, bytes] = {}
        for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
            if token_id in added:
                self._bytes[token_id] = b"" if added[token_id].special else token.encode()
                if added[token_id].special:
                    self._special_names[token_id] = token.encode()
            else:
                try:
                    self._bytes[token_id] = token.translate(to_latin).encode("latin-1")
                except UnicodeEncodeError:
                    message = f"the tokenizer is not a byte-level one: token {token_id} is {token!r}"
                    raise StartupError(message) from None
        self.last_token_id = max(self._bytes)  # the model's logits may have more places

    def has_all(self, token_ids: Iterable[int]) -> bool:
        """Whether each id is a token's."""
        return all(map(self._bytes.__contains__, token_ids))

    def unknown_token_ids(self, count: int) -> frozenset[int]:
        """Of the model's first `count` ids, those that are no token's: most lie behind the last one."""
        return frozenset(range(count)) - self._bytes.keys()

    def bytes_of(self, token_id: int) -> bytes:
        """Empty for special tokens and for ids behind the tokenizer's last."""
        return self._bytes.get(token_id, b"")

    def shown_bytes_of(self, token_id: int) -> bytes:
        """As `bytes_of`, but a special token's name."""
        return self._special_names.get(token_id) or self.bytes_of(token_id)


@dataclass(frozen=True, slots=True)
class ReplyDelta:
    """Text that may be sent now; `stopped` when a stop text has been found and the reply is over."""

    text: str
    stopped: bool = False


class Reply:
    """One answer's text while it grows.

    The deltas joined are the whole answer. A character that is not complete is held back, and so is text that may
    be the beginning of a stop text. Stop texts are looked for behind the first `min_tokens` tokens: one may begin in
    their text but does not end in it.
    """

    def __init__(self, vocabulary: Vocabulary, stop: tuple[str, ...] = (), min_tokens: int = 0) -> None:
        self.vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = stop
        self._held = ""
        self._exempt_tokens = min_tokens  # still to come
        self._exempt_characters = 0  # of the held text, in which no stop text ends

    @property
    def has_stop_texts(self) -> bool:
        """Whether text may end the answer."""
        return bool(self._stop)

    def push(self, token_id: int) -> ReplyDelta:
        """Takes the next token. Not to be called after a delta with `stopped`."""
        text = self._decoder.decode(self.vocabulary.bytes_of(token_id))
        if not self._stop:  # nothing is ever held but bytes, which the decoder does
            return ReplyDelta(text)
        self._held += text
        if self._exempt_tokens:
            self._exempt_tokens -= 1
            self._exempt_characters = len(self._held)
        found = [place for place in map(self._find, self._stop) if place >= 0]
        if found:
            return ReplyDelta(self._release(min(found)), stopped=True)
        return ReplyDelta(self._release(len(self._held) - self._possible_stop_characters()))

    def end(self) -> str:
        """What was held back for a stop text that did not come. An incomplete character is left out."""
        return self._release(len(self._held))

    def _find(self, stop_text: str) -> int:
        return self._held.find(stop_text, max(self._exempt_characters - len(stop_text) + 1, 0))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self._exempt_characters = max(self._exempt_characters - count, 0)
        return text

    def _possible_stop_characters(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = min(len(self._held), max(map(len, self._stop)) - 1)
        ends = (self._held[-count:] for count in range(longest, 0, -1))
        return next((len(end) for end in ends if any(text.startswith(end) for text in self._stop)), 0)


def _byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary. Source: GPT-2's byte encoder."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
