"""The contract: the same requests over both transports get the same answers and the same refusals."""

import json
import math
from typing import Any

import grpc
import httpx2
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from http_bridge.schemas import ChatCompletionRequest, Resume
from http_bridge.translate import to_grpc
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from protos.chat.v1.ranges import MAX_LOGIT_BIASES, MAX_STOP_TOKEN_IDS, RANGES

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"
LAST_TOKEN_ID = 2525  # of the demo model's tokenizer
END_OF_TURN = 2502

GOOD: dict[str, dict[str, Any]] = {
    "greedy": {"messages": HELLO, "temperature": 0},
    "seeded": {"messages": HELLO, "temperature": 1.5, "top_p": 1, "top_k": 0, "seed": 7},
    "negative seed": {"messages": HELLO, "temperature": 1.2, "seed": -(2**63)},
    "smallest temperature": {"messages": HELLO, "temperature": 1e-320, "seed": 1},
    "top_p 0": {"messages": HELLO, "temperature": 2, "top_p": 0, "seed": 1},
    "top_k 1": {"messages": HELLO, "temperature": 2, "top_k": 1, "seed": 1},
    "length": {"messages": HELLO, "temperature": 0, "max_tokens": 3},
    "stop": {"messages": HELLO, "temperature": 0, "stop": ["!", "。"]},
    "token ids": {"messages": HELLO, "temperature": 0, "return_token_ids": True},
    "ignore_eos": {"messages": HELLO, "temperature": 0, "ignore_eos": True, "max_tokens": 40},
    "all roles": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "你好！"},
            {"role": "tool", "content": "{}"},
        ],
        "temperature": 0,
    },
    "odd characters": {
        "messages": [{"role": "user", "content": "\0\uffff\u202e👩‍👩‍👧e\u0301\ufeff"}],
        "temperature": 0,
    },
    "min_p": {"messages": HELLO, "temperature": 1.5, "min_p": 0.2, "seed": 3},
    "penalties": {"messages": HELLO, "temperature": 0, "presence_penalty": 1.5, "frequency_penalty": -0.5},
    "repetition_penalty": {"messages": HELLO, "temperature": 0, "repetition_penalty": 1.3},
    "logit_bias": {
        "messages": HELLO, "temperature": 0, "max_tokens": 5,
        "logit_bias": {"0": 0.5, "70": 100, str(LAST_TOKEN_ID): -100},
    },
    "as many biases as may be": {
        "messages": HELLO, "temperature": 0, "logit_bias": {str(token_id): 1 for token_id in range(MAX_LOGIT_BIASES)},
    },
    "min_tokens": {"messages": HELLO, "temperature": 0, "min_tokens": 40, "max_tokens": 40, "stop": ["!"]},
    "stop_token_ids": {
        "messages": HELLO, "temperature": 0, "ignore_eos": True, "max_tokens": 40,
        "stop_token_ids": [0, LAST_TOKEN_ID, END_OF_TURN, *range(MAX_STOP_TOKEN_IDS - 3)],
    },
    "logprobs": {"messages": HELLO, "temperature": 0, "logprobs": True},
    "top_logprobs 0 alone": {"messages": HELLO, "temperature": 0, "top_logprobs": 0},
    "longest name": {"messages": [{"role": "user", "content": "Hello", "name": "名" * 256}], "temperature": 0},
    "no top_logprobs": {"messages": HELLO, "temperature": 0, "logprobs": True, "top_logprobs": 0},
    "most top_logprobs": {"messages": HELLO, "temperature": 1, "seed": 1, "logprobs": True, "top_logprobs": 20},
    "resume": {
        "messages": HELLO, "temperature": 1.5, "resume": {"token_ids": [70, 71], "seed": 5}, "return_token_ids": True,
    },
    "resume with the same seed": {
        "messages": HELLO, "temperature": 1.5, "seed": 5, "resume": {"token_ids": [70], "seed": 5}, "logprobs": True,
    },
    "resume, greedy": {"messages": HELLO, "temperature": 0, "resume": {"token_ids": [0, LAST_TOKEN_ID]}},
    "resume after an end token": {
        "messages": HELLO, "temperature": 0, "resume": {"token_ids": [70, END_OF_TURN]}, "logprobs": True,
        "return_token_ids": True,
    },
    "resume at max_tokens": {"messages": HELLO, "temperature": 0, "max_tokens": 2, "resume": {"token_ids": [70, 71]}},
    "null for all": {
        "messages": HELLO, "temperature": 0, "min_p": None, "presence_penalty": None, "frequency_penalty": None,
        "repetition_penalty": None, "logit_bias": None, "min_tokens": None, "stop_token_ids": None, "logprobs": None,
        "top_logprobs": None, "resume": None,
    },
    "empty text": {"messages": [{"role": "user", "content": ""}], "temperature": 0},
}  # fmt: skip


def outside(name: str) -> list[float]:
    """The nearest values that are not in the field's range and that protobuf can hold."""
    low, high = RANGES[name].low, RANGES[name].high
    if isinstance(low, float):
        return [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    return [value for value in (low - 1, high + 1) if -(2**31) <= value < 2**31]


# what is sent, and the field that the refusal names
BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_p": 1.0001}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -2}, "max_tokens"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": [""]}, "stop[0]"),
    ({"stop": ["ok", "x" * 1025]}, "stop[1]"),
    ({"messages": []}, "messages"),
    ({"messages": HELLO * 1025}, "messages"),
    ({"max_tokens": 40_000}, "max_tokens"),
    ({"messages": [{"role": "user", "content": "x y " * 40_000}]}, "messages"),
    ({"model": "other"}, "model"),
    ({"model": "../../x\r\n"}, "model"),
    *(({"logprobs": True, name: value}, name) for name in RANGES for value in outside(name)),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias[5]"),
    ({"logit_bias": {"5": math.nextafter(-100, -math.inf)}}, "logit_bias[5]"),
    ({"logit_bias": {"7": 0, str(LAST_TOKEN_ID + 1): 0}}, f"logit_bias[{LAST_TOKEN_ID + 1}]"),
    ({"logit_bias": {str(2**31 - 1): 0}}, f"logit_bias[{2**31 - 1}]"),
    ({"logit_bias": {str(token_id): 0 for token_id in range(MAX_LOGIT_BIASES + 1)}}, "logit_bias"),
    ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
    ({"min_tokens": 32_768}, "min_tokens"),
    ({"min_tokens": 2**31 - 1}, "min_tokens"),
    ({"stop_token_ids": [0] * (MAX_STOP_TOKEN_IDS + 1)}, "stop_token_ids"),
    ({"stop_token_ids": [0, 1, 2, LAST_TOKEN_ID + 1]}, "stop_token_ids[3]"),
    ({"stop_token_ids": [0, -1]}, "stop_token_ids[1]"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"messages": [{"role": "user", "content": "Hello", "name": "x" * 257}]}, "messages[0].name"),
    ({"resume": {"token_ids": [], "seed": 1}}, "resume.token_ids"),
    ({"resume": {"token_ids": [1, LAST_TOKEN_ID + 1], "seed": 1}}, "resume.token_ids[1]"),
    ({"resume": {"token_ids": [-1], "seed": 1}}, "resume.token_ids[0]"),
    ({"resume": {"token_ids": [70] * 3, "seed": 1}, "max_tokens": 2}, "resume.token_ids"),
    ({"resume": {"token_ids": [70] * 32_768, "seed": 1}}, "resume.token_ids"),
    ({"resume": {"token_ids": [70]}}, "resume.seed"),
    ({"resume": {"token_ids": [70]}, "temperature": 0.1}, "resume.seed"),
    ({"resume": {"token_ids": [70], "seed": 1}, "seed": 2}, "resume.seed"),
    ({"resume": {"token_ids": [70], "seed": 0}, "seed": -1}, "resume.seed"),
]


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
async def test_http_answers_as_grpc_does(
    body: dict[str, Any], http: httpx2.AsyncClient, stub: "chat_pb2_grpc.ChatServiceAsyncStub"
) -> None:
    over_http = (await http.post(CHAT, json=body)).raise_for_status().json()
    over_grpc = await stub.CreateChatCompletion(to_grpc(ChatCompletionRequest.model_validate(body)))
    [choice], [grpc_choice] = over_http["choices"], over_grpc.choices
    assert over_http["response"] == choice["message"]["content"] == grpc_choice.message.content
    assert choice["finish_reason"] == chat_pb2.FinishReason.Name(grpc_choice.finish_reason)[14:].lower()
    assert choice.get("token_ids", []) == list(grpc_choice.token_ids)
    assert choice["logprobs"] == (openai_logprobs(grpc_choice) if body.get("logprobs") else None)
    assert _without_cached(over_http["usage"]) == _without_cached(openai_usage(over_grpc.usage))
    assert set(over_http["usage"]) == set(openai_usage(over_grpc.usage))
    assert ("seed" not in body) or over_http["seed"] == over_grpc.seed == body["seed"]


def openai_logprobs(choice: chat_pb2.Choice) -> dict[str, Any]:
    def told(one: chat_pb2.TokenLogprob | chat_pb2.TopLogprob) -> dict[str, Any]:
        return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token_bytes)}

    content = [told(one) | {"top_logprobs": [told(top) for top in one.top_logprobs]} for one in choice.logprobs]
    return {"content": content, "refusal": None}


def openai_usage(usage: chat_pb2.Usage) -> dict[str, Any]:
    counts = json_format.MessageToDict(usage, preserving_proto_field_name=True)
    return counts | {"prompt_tokens_details": {"cached_tokens": counts.pop("cached_tokens", 0)}}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
async def test_streamed_answers_are_the_whole_ones(body: dict[str, Any], http: httpx2.AsyncClient) -> None:
    whole = (await http.post(CHAT, json=body | {"seed": 5})).json()
    streamed = await http.post(CHAT, json=body | {"seed": 5, "stream": True, "stream_options": {"include_usage": True}})
    *events, done = [line.removeprefix("data: ") for line in streamed.text.split("\n\n") if line]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == whole["response"]
    token_ids = [token_id for choice in choices for token_id in choice.get("token_ids", [])]
    assert token_ids == whole["choices"][0].get("token_ids", [])
    logprobs = [one for choice in choices if choice["logprobs"] for one in choice["logprobs"]["content"]]
    assert logprobs == (whole["choices"][0]["logprobs"] or {"content": []})["content"]
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == [whole["choices"][0]["finish_reason"]]
    assert _without_cached(chunks[-1]["usage"]) == _without_cached(whole["usage"])
    assert chunks[0]["seed"] == 5


def _without_cached(usage: dict[str, Any]) -> dict[str, Any]:
    """The second of two equal requests may find its prompt in the cache."""
    return {name: count for name, count in usage.items() if name != "prompt_tokens_details"}


@pytest.mark.parametrize(("fields", "param"), BAD, ids=lambda value: str(value)[:40])
async def test_http_refuses_as_grpc_does(
    fields: dict[str, Any], param: str, http: httpx2.AsyncClient, stub: "chat_pb2_grpc.ChatServiceAsyncStub"
) -> None:
    body = {"messages": HELLO} | fields
    response = await http.post(CHAT, json=body)
    error = response.json()["error"]
    asked = to_grpc(ChatCompletionRequest.model_construct(**_constructed(body)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(asked)
    assert error["message"] == raised.value.details()
    assert error["param"] == param == field_of(raised.value)
    unknown = raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert response.status_code == (404 if unknown else 400)
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"resume": {"token_ids": [70] * (2**20 + 1)}, "temperature": 0}, "resume.token_ids"),
        ({"messages": HELLO * 20_000}, "messages"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_grpc_refuses_what_the_bridge_takes_for_nothing_or_never_passes_on(
    fields: dict[str, Any], param: str, stub: "chat_pb2_grpc.ChatServiceAsyncStub"
) -> None:
    asked = to_grpc(ChatCompletionRequest.model_construct(**_constructed({"messages": HELLO} | fields)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(asked)
    assert field_of(raised.value) == param


def _constructed(body: dict[str, Any]) -> dict[str, Any]:
    """The body as the bridge's schema holds it, without its checks, so that the server has to refuse by itself."""
    good = ChatCompletionRequest.model_validate({"messages": HELLO * len(body["messages"]) or HELLO})
    for message, given in zip(good.messages, body["messages"], strict=False):
        message.content, message.name = given["content"], given.get("name")
    fields = dict(good) | body | {"messages": good.messages[: len(body["messages"])]}
    if "resume" in body:
        fields["resume"] = Resume.model_construct(**body["resume"])
    if "logit_bias" in body:
        fields["logit_bias"] = {int(name): bias for name, bias in body["logit_bias"].items()}
    return fields


def field_of(error: grpc.aio.AioRpcError) -> str:
    """The field that the status names."""
    metadata = dict(error.trailing_metadata())
    violations = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details:
        detail.Unpack(violations)
    return str(violations.field_violations[0].field)


async def test_server_tells_that_it_honours_the_new_fields(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    told = (await stub.GetModel(chat_pb2.GetModelRequest())).request_fields
    assert {"min_p", "logit_bias", "min_tokens", "stop_token_ids", "logprobs", "resume"} <= set(told)


async def test_the_old_apps_request_gets_response_and_usage(http: httpx2.AsyncClient) -> None:
    body = {
        "messages": [{"role": "user", "content": "你好，介绍一下你自己"}],
        "temperature": 0.7, "top_p": 0.8, "max_tokens": 1024, "stream": False,
    }  # fmt: skip
    answer = (await http.post(CHAT, json=body)).raise_for_status().json()
    assert answer["response"]
    assert answer["response"] == answer["choices"][0]["message"]["content"]
    assert set(answer["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_text_parts_are_joined_with_nothing_between(http: httpx2.AsyncClient) -> None:
    whole = await http.post(CHAT, json={"messages": [{"role": "user", "content": "你好"}], "temperature": 0})
    parts = [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]
    joined = await http.post(CHAT, json={"messages": [{"role": "user", "content": parts}], "temperature": 0})
    assert joined.json()["response"] == whole.json()["response"]
    assert joined.json()["usage"] == whole.json()["usage"]


def test_developer_is_system_and_names_are_passed_on() -> None:
    asked = [{"role": "developer", "content": "a", "name": "n"}, {"role": "system", "content": "b"}]
    developer, system = to_grpc(ChatCompletionRequest.model_validate({"messages": asked})).messages
    assert developer.role == system.role == chat_pb2.ROLE_SYSTEM
    assert (developer.name, system.HasField("name")) == ("n", False)


async def test_stream_that_asks_for_it_counts_tokens_in_each_message(
    stub: "chat_pb2_grpc.ChatServiceAsyncStub",
) -> None:
    request = to_grpc(ChatCompletionRequest.model_validate({"messages": HELLO, "temperature": 0}))
    request.continuous_usage = request.return_token_ids = True
    count = 0
    async for chunk in stub.StreamChatCompletion(request):
        count += len(chunk.choices[0].token_ids)
        assert chunk.running_usage.completion_tokens == count
        assert chunk.running_usage.total_tokens == chunk.running_usage.prompt_tokens + count
    assert chunk.running_usage == chunk.usage
    request.continuous_usage = False
    assert not any([chunk.HasField("running_usage") async for chunk in stub.StreamChatCompletion(request)])


@pytest.mark.parametrize("stream", [False, True])
async def test_overflow_is_told_in_the_words_that_clients_match(stream: bool, http: httpx2.AsyncClient) -> None:
    for fields, asked in (
        ({"max_tokens": 40_000}, 40_009),
        ({"messages": [{"role": "user", "content": "x " * 40_000}]}, None),
    ):
        response = await http.post(CHAT, json={"messages": HELLO, "stream": stream} | fields)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 32768 tokens" in error["message"]
        assert asked is None or f"you requested {asked} tokens" in error["message"]


async def test_usage_comes_with_each_event_that_asks_for_it(http: httpx2.AsyncClient) -> None:
    """As vLLM has it: https://docs.vllm.ai/en/latest/api/vllm/entrypoints/openai/protocol/#StreamOptions"""
    for options, last_is_usage in (({"include_usage": True}, True), ({}, False)):
        body = {
            "messages": HELLO, "temperature": 0, "stream": True, "return_token_ids": True,
            "stream_options": options | {"continuous_usage_stats": True},
        }  # fmt: skip
        response = await http.post(CHAT, json=body)
        chunks = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n")[:-2]]
        count = 0
        for chunk in chunks:
            count += sum(len(choice.get("token_ids", ())) for choice in chunk["choices"])
            assert chunk["usage"]["completion_tokens"] == count
            assert chunk["usage"]["total_tokens"] == chunk["usage"]["prompt_tokens"] + count
        assert count > 0
        assert (chunks[-1]["choices"] == []) == last_is_usage


async def test_name_reaches_the_server(stub: "chat_pb2_grpc.ChatServiceAsyncStub", http: httpx2.AsyncClient) -> None:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hello", name="")
    answer = await stub.CreateChatCompletion(chat_pb2.ChatCompletionRequest(messages=[message], temperature=0))
    over_http = await http.post(CHAT, json={"messages": [HELLO[0] | {"name": ""}], "temperature": 0})
    assert over_http.json()["response"] == answer.choices[0].message.content
