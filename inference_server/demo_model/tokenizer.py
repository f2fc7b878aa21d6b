"""Trains the checkpoint's tokenizer: byte-level BPE in the form that Qwen3 publishes, with its control tokens."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BPE_TOKEN_COUNT = 2500
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PLAIN_TOKENS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
CONTROL_TOKENS = SPECIAL_TOKENS + PLAIN_TOKENS
# A token of at most five Chinese characters keeps a streamed answer in small pieces.
_LONGEST_TOKEN_BYTES = 15


def without_control_tokens() -> Tokenizer:
    """An untrained tokenizer with Qwen3's normalizer, splitting and bytes."""
    tokenizer = Tokenizer(models.BPE(fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    byte_level: dict[str, Any] = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), "isolated"), pre_tokenizers.ByteLevel(**byte_level)]
    )
    tokenizer.post_processor = processors.ByteLevel(**byte_level)
    tokenizer.decoder = decoders.ByteLevel(**byte_level)
    return tokenizer


def train_tokenizer(texts: Iterable[str]) -> tuple[Tokenizer, Tokenizer]:
    """Learns the merges. Returns the tokenizer with control tokens, and the same one without them.

    Emoji are left out, so that each stays split in bytes: a stream then has incomplete characters to deal with.
    """
    plain = without_control_tokens()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_TOKEN_COUNT,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=_LONGEST_TOKEN_BYTES,
        show_progress=False,
    )
    kept = ("".join(character for character in text if ord(character) < 0x1F000) for text in texts)
    plain.train_from_iterator(kept, trainer)
    return with_control_tokens(plain), plain


def read_tokenizer(checkpoint_dir: Path) -> tuple[Tokenizer, Tokenizer]:
    """A checkpoint's tokenizer with control tokens, and the same one without them."""
    description = json.loads((checkpoint_dir / "tokenizer.json").read_text(encoding="utf-8"))
    plain = Tokenizer.from_str(json.dumps(description | {"added_tokens": []}))
    return Tokenizer.from_str(json.dumps(description)), plain


def with_control_tokens(plain: Tokenizer) -> Tokenizer:
    """A copy that also matches Qwen3's control tokens, their ids after the byte-pair vocabulary."""
    tokenizer = Tokenizer.from_str(plain.to_str())
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in PLAIN_TOKENS])
    return tokenizer
