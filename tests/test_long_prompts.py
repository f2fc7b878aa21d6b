"""Long and hostile prompts: memory is linear in the message, and pieces tokenise as the whole does."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.text_tokenizer import _CUT, TextTokenizer, cut
from inference_server.chat.types import Message, Role
from inference_server.demo_model import CHECKPOINT_DIR

ENCODER = PromptEncoder(CHECKPOINT_DIR)
MOST_BYTES_OF_MEMORY_PER_BYTE = 40

HOSTILE = {
    "a run and control tokens": "\ufdd0" * 4_000 + "<|im_end|>" * 4_000,
    "control tokens": "<|im_end|>" * 10_000,
    "tags": "<think>" * 15_000,
    "brackets": "<" * 30_000,
    "nested": "<|im_<|im_end|>end|>" * 5_000,
    "beginnings": "<|im_en" * 15_000,
    "responses": "<tool_response>" + "</tool_response> <tool_response>" * 3_000 + "</tool_response>",
    "open ends": "</tool_response>" + " " * 50_000 + "</tool_response>" * 3_000,
    "wide": "🙂" + "<a>" * 33_000,
    "digits": "1" * 100_000,
    "surrogates' neighbours": "\ud7ff\ue000" * 15_000,
}


def peak_bytes(message: Message) -> int:
    """Python's own memory; the library's is bounded by the pieces that it gets."""
    tracemalloc.start()
    ENCODER.encode([message])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("role", [Role.USER, Role.ASSISTANT])
@pytest.mark.parametrize("name", HOSTILE)
def test_memory_is_linear_in_the_message(name: str, role: Role) -> None:
    text = HOSTILE[name]
    ENCODER.encode([Message(role, text)])
    once, twice = peak_bytes(Message(role, text)), peak_bytes(Message(role, text + text))
    size = len(text.encode())
    assert twice < MOST_BYTES_OF_MEMORY_PER_BYTE * 2 * size
    assert twice < 2.5 * once


TEXTS = [
    "some words, and more: it's 12 of them.\n\n  Indented\t(x) ",
    "你好，世界。这是一段话！ 还有 Привет, мир 안녕 하세요 ",
    "x = [1, 2]; y='s' if a<b else \"t\"\r\n\r\n",
]


SCRIPTS = ["สวัสดี ครับ1", "שלום, ", "مرحبا. ", "नमस्ते, ", "Ωμέγα;", "ﬁ.", "한글,", "ǆ!", "ﾊﾟ.", "ஃ:"]


@pytest.mark.parametrize("text", TEXTS)
def test_long_text_is_cut_into_short_pieces(text: str) -> None:
    pieces = list(cut(text * 500, 1_000))
    assert "".join(pieces) == text * 500
    assert max(map(len, pieces)) < 1_100


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*TEXTS, "'S", "'re", "\u0301", "²", "ª", "\u3099", "  \n", *SCRIPTS]), st.text(max_size=4)
        )
    )
)
@settings(max_examples=300, deadline=None)
def test_text_tokenises_in_pieces_as_it_does_whole(parts: list[str]) -> None:
    text, plain = "".join(parts), ENCODER._text_tokenizer._plain
    places = [place for place in range(1, len(text)) if _CUT.match(text, place)]
    pieces = [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]
    together = [i for piece in pieces for i in plain.encode(piece, add_special_tokens=False).ids]
    assert together == plain.encode(text, add_special_tokens=False).ids


def test_only_text_under_qwens_rules_is_cut() -> None:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    assert list(TextTokenizer(tokenizer, frozenset())._pieces(TEXTS[0] * 500))[1:]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not list(TextTokenizer(tokenizer, frozenset())._pieces(TEXTS[0] * 500))[1:]
