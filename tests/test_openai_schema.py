"""Answers against OpenAI's own description of them, and against the types of OpenAI's SDK."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai.types.chat
import pytest
from jsonschema import Draft202012Validator, ValidationError
from openai.types.model import Model

SCHEMAS = json.loads((Path(__file__).parent / "openai_chat_schema.json").read_text())
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
BODIES: list[dict[str, Any]] = [
    {}, {"max_tokens": 1}, {"logprobs": True, "top_logprobs": 3}, {"stop": ["!"]}, {"return_token_ids": True},
    {"resume": {"token_ids": [70], "seed": 1}, "logprobs": True},
]  # fmt: skip
STREAM_OPTIONS: list[dict[str, Any] | None] = [
    None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True},
]  # fmt: skip


def validate(value: object, name: str) -> None:
    Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": SCHEMAS["$defs"]}).validate(value)


@pytest.mark.parametrize("fields", BODIES, ids=str)
async def test_whole_answers_are_openais(fields: dict[str, Any], http: httpx2.AsyncClient) -> None:
    answer = await http.post(CHAT, json={"messages": HELLO, "temperature": 0} | fields)
    validate(answer.json(), "CreateChatCompletionResponse")
    openai.types.chat.ChatCompletion.model_validate(answer.json())


@pytest.mark.parametrize("options", STREAM_OPTIONS, ids=str)
@pytest.mark.parametrize("fields", BODIES, ids=str)
async def test_each_event_is_openais(
    fields: dict[str, Any], options: dict[str, Any] | None, http: httpx2.AsyncClient
) -> None:
    body = {"messages": HELLO, "temperature": 0, "stream": True, "stream_options": options} | fields
    *events, done, _ = (await http.post(CHAT, json=body)).text.split("\n\n")
    assert done == "data: [DONE]"
    for chunk in [json.loads(event.removeprefix("data: ")) for event in events]:
        validate(chunk, "CreateChatCompletionStreamResponse")
        openai.types.chat.ChatCompletionChunk.model_validate(chunk)


async def test_models_are_openais(http: httpx2.AsyncClient) -> None:
    validate((await http.get("/v1/models")).json(), "ListModelsResponse")
    model = (await http.get("/v1/models/demo")).json()
    validate(model, "Model")
    Model.model_validate(model)


async def test_errors_are_openais(http: httpx2.AsyncClient) -> None:
    timeout = {"X-Request-Timeout": "0.2"}
    endless = {"messages": HELLO, "ignore_eos": True, "max_tokens": 30_000}
    refused = [
        await http.post(CHAT, json={}),
        await http.post(CHAT, json={"messages": HELLO, "model": "other"}),
        await http.post(CHAT, json=endless, headers=timeout),
        await http.post(CHAT, content=b"x"),
        await http.get(CHAT),
        await http.get("/nope"),
    ]
    assert [response.status_code for response in refused] == [400, 404, 504, 415, 405, 404]
    for response in refused:
        validate(response.json(), "ErrorResponse")
    *_, last, _ = (await http.post(CHAT, json=endless | {"stream": True}, headers=timeout)).text.split("\n\n")
    validate(json.loads(last.removeprefix("data: ")), "ErrorResponse")


def without(*path: str | int) -> Callable[[Any], None]:
    def take_out(answer: Any) -> None:
        for name in path[:-1]:
            answer = answer[name]
        del answer[path[-1]]

    return take_out


@pytest.mark.parametrize(
    "damage",
    [without("choices", 0, "message", "refusal"), without("choices", 0, "logprobs"), without("created"),
     without("usage", "total_tokens"), without("choices", 0, "finish_reason")],
)  # fmt: skip
async def test_the_schema_finds_what_is_missing(damage: Callable[[Any], None], http: httpx2.AsyncClient) -> None:
    answer = (await http.post(CHAT, json={"messages": HELLO, "max_tokens": 1})).json()
    damage(answer)
    with pytest.raises(ValidationError):
        validate(answer, "CreateChatCompletionResponse")
