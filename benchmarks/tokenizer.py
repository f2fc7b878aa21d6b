"""A tokenizer as wide as Qwen3's, made without a download, in which every word of the load is one token.

Byte-level BPE whose tokens, but for the single bytes, are words and their beginnings; merges go from left to right.
So a text that was made of its words is split into the same words again.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, count, product
from string import ascii_lowercase

from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.load import WORDS
from inference_server.demo_model.tokenizer import with_control_tokens, without_control_tokens

ORDINARY_TOKEN_COUNT = 151_643  # Qwen3's control tokens have the ids behind them
_SPACE = "Ġ"  # how a byte-level vocabulary writes it
_TEMPLATE_WORDS = ("user", "assistant", "system")


def make_tokenizer() -> Tokenizer:
    """With Qwen3's splitting and control tokens, which have their published ids."""
    vocabulary = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    at_the_start = _grow(vocabulary, chain(WORDS, _TEMPLATE_WORDS))
    spaced = _grow(vocabulary, (_SPACE + word for word in chain(WORDS, _strings_of_letters())))
    plain = without_control_tokens()
    # Spaced words come first: no merge of the others may begin in the middle of them.
    plain.model = models.BPE(vocab=vocabulary, merges=spaced + at_the_start, fuse_unk=False, byte_fallback=False)
    return with_control_tokens(plain)


def _grow(vocabulary: dict[str, int], words: Iterable[str]) -> list[tuple[str, str]]:
    """Adds words and their beginnings until the vocabulary is full. Returns their merges."""
    merges = []
    for beginning in (word[:end] for word in words for end in range(2, len(word) + 1)):
        if len(vocabulary) == ORDINARY_TOKEN_COUNT:
            break
        if beginning not in vocabulary:
            vocabulary[beginning] = len(vocabulary)
            merges.append((beginning[:-1], beginning[-1]))
    return merges


def _strings_of_letters() -> Iterator[str]:
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
