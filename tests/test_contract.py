"""The contract: the same requests over both transports get the same answers and the same refusals."""

import json
from typing import Any

import grpc
import httpx2
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from http_bridge.schemas import ChatCompletionRequest
from http_bridge.translate import to_grpc
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from protos.chat.v1.ranges import RANGES

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"

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
    "empty text": {"messages": [{"role": "user", "content": ""}], "temperature": 0},
}

# what is sent, and the field that the refusal names
BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_p": 1.0001}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": [""]}, "stop[0]"),
    ({"stop": ["ok", "x" * 1025]}, "stop[1]"),
    ({"messages": []}, "messages"),
    ({"messages": HELLO * 1025}, "messages"),
    ({"max_tokens": 40_000}, "max_tokens"),
    ({"messages": [{"role": "user", "content": "x y " * 40_000}]}, "messages"),
    ({"model": "other"}, "model"),
    ({"model": ""}, "model"),
    ({"model": "../../x\r\n"}, "model"),
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
    assert over_http["usage"] == json_format.MessageToDict(over_grpc.usage, preserving_proto_field_name=True)
    assert ("seed" not in body) or over_http["seed"] == over_grpc.seed == body["seed"]


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
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == [whole["choices"][0]["finish_reason"]]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[0]["seed"] == 5


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
    assert error["param"] == param == _field(raised.value)
    unknown = raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert response.status_code == (404 if unknown else 400)
    assert error["message"].startswith(param)


def _constructed(body: dict[str, Any]) -> dict[str, Any]:
    """The body as the bridge's schema holds it, without its checks, so that the server has to refuse by itself."""
    good = ChatCompletionRequest.model_validate({"messages": HELLO * len(body["messages"]) or HELLO})
    for message, given in zip(good.messages, body["messages"], strict=False):
        message.content = given["content"]
    return dict(good) | {k: v for k, v in body.items() if k != "messages"} | {
        "messages": good.messages[: len(body["messages"])]
    }  # fmt: skip


def _field(error: grpc.aio.AioRpcError) -> str:
    metadata = dict(error.trailing_metadata())
    violations = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details:
        detail.Unpack(violations)
    return str(violations.field_violations[0].field)


@pytest.mark.parametrize("field", RANGES)
async def test_ends_of_every_range_are_allowed(field: str, http: httpx2.AsyncClient) -> None:
    low, high = RANGES[field].low, RANGES[field].high
    for value in (low, high):
        body = {"messages": HELLO, "max_tokens": 1} | {field: value}
        response = await http.post(CHAT, json=body)
        too_long = field == "max_tokens" and value == high
        assert response.status_code == (400 if too_long else 200), response.text


async def test_documented_ranges_are_the_ones_that_are_enforced(http: httpx2.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()["components"]["schemas"]["ChatCompletionRequest"]
    for field, allowed in RANGES.items():
        documented = next(kind for kind in schema["properties"][field]["anyOf"] if kind["type"] != "null")
        assert (documented["minimum"], documented["maximum"]) == (float(allowed.low), float(allowed.high))


async def test_the_old_apps_request_gets_response_and_usage(http: httpx2.AsyncClient) -> None:
    body = {
        "messages": [{"role": "user", "content": "你好，介绍一下你自己"}],
        "temperature": 0.7, "top_p": 0.8, "max_tokens": 1024, "stream": False,
    }  # fmt: skip
    answer = (await http.post(CHAT, json=body)).raise_for_status().json()
    assert answer["response"]
    assert answer["response"] == answer["choices"][0]["message"]["content"]
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_text_parts_are_joined_with_nothing_between(http: httpx2.AsyncClient) -> None:
    whole = await http.post(CHAT, json={"messages": [{"role": "user", "content": "你好"}], "temperature": 0})
    parts = [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]
    joined = await http.post(CHAT, json={"messages": [{"role": "user", "content": parts}], "temperature": 0})
    assert joined.json()["response"] == whole.json()["response"]
    assert joined.json()["usage"] == whole.json()["usage"]


async def test_neutral_values_of_unsupported_fields_are_accepted(http: httpx2.AsyncClient) -> None:
    body = {
        "messages": HELLO, "max_tokens": 1, "n": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "logprobs": False,
        "tools": None, "response_format": {"type": "text"}, "user": "u", "metadata": {"a": "b"}, "service_tier": "auto",
        "safety_identifier": "s", "prompt_cache_key": "k", "stop": "x", "max_completion_tokens": 1,
    }  # fmt: skip
    (await http.post(CHAT, json=body)).raise_for_status()
