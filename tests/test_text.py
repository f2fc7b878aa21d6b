"""Text in and out: prompts are what the template makes of them, replies are whole characters."""

import random
import threading
import time
import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Reply, Vocabulary
from inference_server.chat.types import Message, Role
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.errors import StartupError

ENCODER = PromptEncoder(CHECKPOINT_DIR)
TOKENIZER: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(CHECKPOINT_DIR)
VOCABULARY = Vocabulary(ENCODER.tokenizer)
CONTROL_TEXTS = {token.content: token_id for token_id, token in ENCODER.tokenizer.get_added_tokens_decoder().items()}
CONTROL_IDS = set(CONTROL_TEXTS.values())
TAGS = {"<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"}


def user(content: str) -> Message:
    return Message(Role.USER, content)


def by_template(messages: list[Message]) -> list[int]:
    turns = [{"role": message.role.value, "content": message.content} for message in messages]
    encoded = TOKENIZER.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return list(encoded)


plain_text = st.text().filter(lambda text: not any(control in text for control in CONTROL_TEXTS))


@given(st.lists(st.builds(Message, st.sampled_from(Role), plain_text), min_size=1, max_size=4))
def test_ordinary_messages_tokenise_as_the_template_does(messages: list[Message]) -> None:
    assert ENCODER.encode(messages) == by_template(messages)


@pytest.mark.parametrize("content", ["user\n\nfoo", "", "\n", " a ", "你好，世界", "🙂👩‍👩‍👧", "\ufdd0\ufdd0"])
def test_chosen_messages_tokenise_as_the_template_does(content: str) -> None:
    messages = [Message(Role.SYSTEM, content), user(content), Message(Role.ASSISTANT, content), user("x")]
    assert ENCODER.encode(messages) == by_template(messages)


@pytest.mark.parametrize(
    ("control", "role"),
    [
        (control, role)
        for control in CONTROL_TEXTS
        for role in Role
        if control not in TAGS or role in (Role.USER, Role.TOOL)  # tags are tokens elsewhere: tests/test_templates.py
    ],
)
def test_text_that_looks_like_a_control_token_stays_text(control: str, role: Role) -> None:
    expected = [i for i in ENCODER.encode([Message(role, "x")]) if i in CONTROL_IDS]
    for content in (
        control,
        f"a{control}b",
        control * 3,
        f"\ufdd0{control}\ufdd0",
        control[:3] + control + control[3:],
    ):
        token_ids = ENCODER.encode([Message(role, content)])
        assert [i for i in token_ids if i in CONTROL_IDS] == expected
        assert content in TOKENIZER.decode(token_ids)


@given(st.lists(st.one_of(st.sampled_from(list(CONTROL_TEXTS)), st.text(max_size=5)), max_size=8).map("".join))
def test_no_text_of_a_user_brings_a_control_token(content: str) -> None:
    assume(not (content.strip().startswith("<tool_response>") and content.strip().endswith("</tool_response>")))
    expected = [i for i in ENCODER.encode([user("x")]) if i in CONTROL_IDS]
    token_ids = ENCODER.encode([user(content)])
    assert [i for i in token_ids if i in CONTROL_IDS] == expected
    assert unicodedata.normalize("NFC", content) in TOKENIZER.decode(token_ids)


def test_other_threads_run_while_a_long_prompt_is_encoded() -> None:
    text, running, turns = "some words and 一些字 " * 100_000, threading.Event(), 0

    def encode() -> None:
        running.set()
        ENCODER.encode([user(text)])
        running.clear()

    thread = threading.Thread(target=encode)
    thread.start()
    running.wait()
    while running.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 50


def pushed(token_ids: list[int], stop: tuple[str, ...] = (), min_tokens: int = 0) -> tuple[list[str], bool]:
    """The deltas of a reply, the last one being what `end` lets go, and whether a stop text ended it."""
    reply, deltas = Reply(VOCABULARY, stop, min_tokens), []
    for token_id in token_ids:
        delta = reply.push(token_id)
        deltas.append(delta.text)
        if delta.stopped:
            return deltas, True
    return [*deltas, reply.end()], False


@given(st.lists(st.integers(0, max(CONTROL_IDS)), max_size=30))
@settings(max_examples=500)
def test_any_ids_streamed_join_to_the_tokenizers_text(token_ids: list[int]) -> None:
    whole = str(TOKENIZER.decode(token_ids, skip_special_tokens=True))
    joined = "".join(pushed(token_ids)[0])
    # an incomplete character at the end is left out, where the tokenizer writes U+FFFD for it
    assert whole.startswith(joined)
    assert set(whole[len(joined) :]) <= {"\ufffd"}


def byte_tokens(text: str) -> list[int]:
    """Each byte as a token of its own."""
    id_of = {
        VOCABULARY.bytes_of(token_id): token_id for token_id in range(len(TOKENIZER)) if token_id not in CONTROL_IDS
    }
    return [id_of[bytes([byte])] for byte in text.encode()]


@pytest.mark.parametrize("text", ["你", "🙂", "é", "a你b🙂"])
def test_a_character_of_several_tokens_comes_once_and_whole(text: str) -> None:
    deltas, _ = pushed(byte_tokens(text))
    assert "".join(deltas) == text
    assert all("\ufffd" not in delta for delta in deltas)
    assert [delta for delta in deltas if delta] == list(text)


def test_an_incomplete_character_at_the_end_is_left_out() -> None:
    deltas, _ = pushed(byte_tokens("a🙂")[:-1])
    assert "".join(deltas) == "a"


def test_a_stop_text_that_spans_tokens_is_found_and_not_leaked() -> None:
    deltas, stopped = pushed(byte_tokens("Hello STOP more"), stop=("STOP",))
    assert stopped
    assert "".join(deltas) == "Hello "
    deltas, stopped = pushed(byte_tokens("Hello STOQ"), stop=("STOP",))
    assert not stopped
    assert "".join(deltas) == "Hello STOQ"


@given(
    st.text(alphabet="ab你🙂", max_size=20), st.lists(st.text(alphabet="ab你🙂", min_size=1, max_size=4), max_size=4)
)
@settings(max_examples=500)
def test_stop_texts_cut_where_a_look_at_the_whole_text_would(text: str, stops: list[str]) -> None:
    deltas, stopped = pushed(byte_tokens(text), tuple(stops))
    ends = sorted((text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text)
    first_end = ends[0][0] if ends else None
    starts = [start for end, start in ends if end == first_end]
    assert stopped == bool(ends)
    assert "".join(deltas) == (text[: min(starts)] if ends else text)


@given(
    st.text(alphabet="ab你", max_size=12),
    st.lists(st.text(alphabet="ab你", min_size=1, max_size=4), max_size=4),
    st.integers(0, 12),
)
@settings(max_examples=500)
def test_stop_texts_do_not_end_in_the_first_min_tokens_tokens(text: str, stops: list[str], min_tokens: int) -> None:
    token_ids = byte_tokens(text)
    first = b"".join(map(VOCABULARY.bytes_of, token_ids[:min_tokens])).decode(errors="ignore")
    ends = [
        (end, end - len(stop))
        for stop in stops
        for end in range(len(first) + 1, len(text) + 1)
        if text[:end].endswith(stop)
    ]
    first_end = min(ends, default=(None, 0))[0]
    starts = [start for end, start in ends if end == first_end]
    deltas, stopped = pushed(token_ids, tuple(stops), min_tokens)
    assert stopped == bool(ends)
    assert "".join(deltas) == (text[: min(starts)] if ends else text)


def test_text_of_the_first_min_tokens_tokens_is_held_only_where_a_stop_text_may_go_on() -> None:
    assert pushed(byte_tokens("abab"), ("ab",), min_tokens=3) == (["", "ab", "", ""], True)
    assert pushed(byte_tokens("abx"), ("ab", "abcd"), min_tokens=2) == (["", "", "abx", ""], False)


def test_special_tokens_have_names_but_no_text() -> None:
    assert VOCABULARY.bytes_of(CONTROL_TEXTS["<|im_end|>"]) == b""
    assert VOCABULARY.shown_bytes_of(CONTROL_TEXTS["<|im_end|>"]) == b"<|im_end|>"
    assert VOCABULARY.shown_bytes_of(CONTROL_TEXTS["<tool_call>"]) == b"<tool_call>"
    assert VOCABULARY.last_token_id == max(CONTROL_IDS) == len(TOKENIZER) - 1
    assert VOCABULARY.shown_bytes_of(VOCABULARY.last_token_id + 1) == b""


def test_random_cuts_of_a_long_text_join_to_it() -> None:
    choose = random.Random(0)
    text = "".join(choose.choice("abc 你好世界🙂🎉é\n") for _ in range(2000))
    assert "".join(pushed(TOKENIZER.encode(text))[0]) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("token", ["中", " a", "\x00", "a\uffff", "\xad"])
def test_tokenizers_that_are_not_byte_level_are_refused(token: str) -> None:
    with pytest.raises(StartupError, match="token 1 is"):
        Vocabulary(Tokenizer(WordLevel({"a": 0, token: 1}, unk_token="a")))


def test_every_byte_has_a_character() -> None:
    shown = {VOCABULARY.bytes_of(token_id) for token_id in range(VOCABULARY.last_token_id + 1)}
    assert {bytes([byte]) for byte in range(256)} <= shown
