"""Events written from a template are byte for byte those that are written whole."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_bridge.events import EventWriter, TextEvents, event
from http_bridge.schemas import ChatCompletionRequest
from http_bridge.translate import ChunkTranslator
from protos.chat.v1 import chat_pb2

AWKWARD = [
    "",
    '"',
    '"content":""',
    "\\",
    "\x00\x1f\x7f",
    "\n\r\t",
    "a\x85b\u2028c\u2029d",
    "你好🙂",
    "\ufeff",
    "</script>",
]

text = st.one_of(st.text(), st.sampled_from(AWKWARD), st.lists(st.sampled_from(AWKWARD)).map("".join))
delta = st.builds(
    lambda content, more: chat_pb2.ChoiceDelta(content=content, **more),
    text,
    st.sampled_from(
        [
            {},
            {"index": 1},
            {"token_ids": [7]},
            {"logprobs": [chat_pb2.TokenLogprob(token="a\u2028")]},
            {"finish_reason": chat_pb2.FINISH_REASON_STOP},
        ]
    ),
)
choices = st.one_of(delta.map(lambda one: [one]), st.lists(delta, max_size=2))
usage = st.one_of(st.none(), st.builds(chat_pb2.Usage, prompt_tokens=st.integers(0, 9)))
chunk = st.builds(chat_pb2.ChatCompletionChunk, choices=choices, usage=usage)
first = st.builds(chat_pb2.ChatCompletionChunk, id=text, model=text, created=st.integers(0, 2**40))
body = st.builds(
    lambda include_usage, return_token_ids: ChatCompletionRequest.model_validate(
        {
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": include_usage},
            "return_token_ids": return_token_ids,
        }
    ),
    st.booleans(),
    st.booleans(),
)


@given(first, body, text)
def test_text_from_the_template_is_the_event_written_whole(
    first: chat_pb2.ChatCompletionChunk, body: ChatCompletionRequest, text: str
) -> None:
    translator = ChunkTranslator(first, body)
    sent = TextEvents(translator.text("")).event(text)
    assert sent.encode() == event(translator.text(text)).encode()
    assert len(sent.splitlines()) == 2
    assert json.loads(sent.removeprefix("data: ")) == translator.text(text)


@given(first, body, chunk)
@settings(max_examples=500)
def test_any_chunk_is_sent_as_its_events_written_whole(
    first: chat_pb2.ChatCompletionChunk, body: ChatCompletionRequest, chunk: chat_pb2.ChatCompletionChunk
) -> None:
    translator, writer = ChunkTranslator(first, body), EventWriter(body)
    assert writer.written(first) == "".join(map(event, [translator.opening(), *translator.events(first)]))
    assert writer.written(chunk) == "".join(map(event, translator.events(chunk)))


@pytest.mark.parametrize("content", ["Hello", "你好"])
def test_text_alone_takes_the_template(content: str) -> None:
    plain = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "Hello"}]})
    alone = chat_pb2.ChatCompletionChunk(choices=[chat_pb2.ChoiceDelta(content=content)])
    assert ChunkTranslator(alone, plain).text_alone(alone) == content
