"""What real clients send beside what the service needs: accepted where it asks for nothing, else named."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from http_bridge.ignored_fields import MAX_FIELDS
from http_bridge.schemas import ChatCompletionRequest
from http_bridge.translate import to_grpc
from tests.fake_upstream import fake_upstream
from tests.fakes import in_process_bridge

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
JSON = {"Content-Type": "application/json"}
IGNORED = "x-ignored-fields"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fake() -> AsyncIterator[httpx2.AsyncClient]:
    """A bridge as it is by default."""
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address) as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def refusing() -> AsyncIterator[httpx2.AsyncClient]:
    """One with --unknown-fields refuse."""
    async with (
        fake_upstream() as upstream,
        in_process_bridge(upstream.address, unknown_fields="refuse") as bridge,
        httpx2.AsyncClient(base_url=bridge.url, timeout=30) as client,
    ):
        yield client


OWN_OPTIONAL = sorted(ChatCompletionRequest.model_fields.keys() - {"messages"})
NEUTRAL_TEXTS: tuple[Any, ...] = (False, "", [], {}, None)
# what clients send by default, or where a form is left empty
ASKS_FOR_NOTHING: list[dict[str, Any]] = [
    {"function_call": "none"}, {"function_call": "auto"}, {"functions": []}, {"reasoning_effort": "none"},
    {"verbosity": "medium"}, {"n": 1}, {"n": 1.0}, {"tools": [], "tool_choice": "auto"}, {"parallel_tool_calls": False},
    {"response_format": {"type": "text"}}, {"modalities": ["text"]}, {"store": False}, {"web_search_options": None},
    {"user": "u", "metadata": {"a": {"b": []}}, "service_tier": "auto", "safety_identifier": "s",
     "prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}},
    {"logit_bias": []}, {"logit_bias": {}}, {"top_logprobs": 0}, {"stop": ""}, {"stop": []}, {"stop": None},
    {"max_tokens": None, "max_completion_tokens": None, "temperature": None, "seed": None, "stream": None},
    {"stream_options": None}, {"stream_options": {}}, {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_obfuscation": False}, "stream": True},
    # vLLM's
    {"skip_special_tokens": True, "spaces_between_special_tokens": False, "add_generation_prompt": True,
     "continue_final_message": False, "echo": False, "add_special_tokens": False, "include_stop_str_in_output": False,
     "best_of": 1, "use_beam_search": False, "length_penalty": 1.0, "priority": 0, "early_stopping": False,
     "stop_token_ids": [], "bad_words": [], "truncate_prompt_tokens": None, "chat_template_kwargs": {},
     "guided_json": None, "guided_choice": None, "documents": None, "mm_processor_kwargs": None, "cache_salt": None,
     "prompt_logprobs": None, "min_tokens": 0, "repetition_penalty": 1.0, "min_p": 0.0, "top_k": -1,
     "logits_processors": None, "include_reasoning": True, "thinking_token_budget": None, "vllm_xargs": None},
    # SGLang's
    {"regex": None, "ebnf": None, "json_schema": None, "no_stop_trim": False, "lora_path": None,
     "return_hidden_states": False, "custom_logit_processor": None, "input_ids": None, "rid": "r"},
    # TGI's
    {"do_sample": True, "max_new_tokens": None, "return_full_text": False, "truncate": None, "watermark": False,
     "top_n_tokens": None, "decoder_input_details": False, "adapter_id": None, "guideline": None},
    # llama.cpp's
    {"cache_prompt": True, "id_slot": -1, "n_predict": -1, "n_keep": 0, "n_probs": 0, "min_keep": 0, "typical_p": 1.0,
     "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "grammar": "", "repeat_penalty": 1.0, "repeat_last_n": 64,
     "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1,
     "xtc_probability": 0.0, "xtc_threshold": 0.1, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "tfs_z": 1.0,
     "top_n_sigma": -1, "samplers": [], "lora": [], "reasoning_format": "none", "t_max_predict_ms": 0},
    # forms that are left empty, and languages without an empty object
    *({field: value} for field in OWN_OPTIONAL for value in NEUTRAL_TEXTS),
    *({field: "none"} for field in OWN_OPTIONAL if field != "model"),
    {"max_tokens": -1}, {"max_completion_tokens": -1}, {"max_tokens": -1, "max_completion_tokens": 5},
    {"stream_options": {"include_usage": [], "include_obfuscation": ""}},
    {"resume": {"token_ids": [70], "seed": False}, "seed": 1},
    {"messages": [{"role": "user", "name": value, "content": "Hello"} for value in (*NEUTRAL_TEXTS, "none")]},
    *({field: False} for field in ("priority", "n", "best_of", "truncate_prompt_tokens", "prompt_logprobs")),
    {"guided_json": []}, {"guided_json": "none"}, {"web_search_options": []}, {"web_search_options": "none"},
    {"response_format": {"type": "text", "json_schema": None}}, {"response_format": {"type": None}},
    {"reasoning": False}, {"do_sample": ""}, {"skip_special_tokens": []}, {"n_predict": ""}, {"repeat_penalty": "none"},
    # unknown ones
    {"one": None, "two": False, "three": [], "four": {}, "five": "", "six": "none"},
    {"messages": [{"role": "user", "content": "Hello", "x": None}]},
    # replayed answers, as OpenAI's SDK, LiteLLM and vLLM give them
    {"messages": [*HELLO, {
        "role": "assistant", "content": "Hi", "refusal": None, "annotations": [], "audio": None, "function_call": None,
        "tool_calls": None, "id": "msg_1", "reasoning_content": "hm", "reasoning": None, "name": None,
        "provider_specific_fields": {"refusal": None}, "thinking_blocks": None}, *HELLO]},
    {"messages": [*HELLO, {"role": "assistant", "content": "Hi", "tool_calls": []}, *HELLO]},
    {"messages": [*HELLO, {"role": "assistant", "content": None, "refusal": "I cannot."}, *HELLO]},
    {"messages": [*HELLO, {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}, *HELLO]},
    {"messages": [{"role": "tool", "content": "{}", "tool_call_id": "call_1"}]},
    {"messages": [{"role": "user", "name": "alice", "content": "Hello", "cache_control": {"type": "ephemeral"}}]},
    {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}, "annotations": []}]}]},
    # tools that must not be called
    {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
    {"functions": [{"name": "f"}], "function_call": "none"},
]  # fmt: skip


@pytest.mark.parametrize("fields", ASKS_FOR_NOTHING, ids=lambda fields: str(fields)[:50])
async def test_what_asks_for_nothing_is_accepted_and_not_told_of(
    fields: dict[str, Any], fake: httpx2.AsyncClient, refusing: httpx2.AsyncClient
) -> None:
    for client in (fake, refusing):
        response = await client.post(CHAT, json={"messages": HELLO} | fields)
        assert response.status_code == 200, response.text
        assert IGNORED not in response.headers


CHANGES_THE_ANSWER: list[dict[str, Any]] = [
    {"audio": {"voice": "a", "format": "wav"}}, {"functions": [{"name": "f"}]}, {"function_call": {"name": "f"}},
    {"images": ["x"]}, {"options": {"num_ctx": 1}}, {"system": "Be brief."}, {"max_output_tokens": 9},
    {"stop_sequences": ["x"]}, {"random_seed": 1}, {"min_new_tokens": 3}, {"no_repeat_ngram_size": 2},
    {"suppress_tokens": [1]}, {"response_schema": {"type": "object"}}, {"typical": 0.5}, {"data_sources": [{}]},
    {"best_of": 3}, {"best_of": True}, {"n": 2}, {"n": True}, {"tools": [{"type": "function"}]},
    {"tool_choice": "required"}, {"response_format": {"type": "json_object"}}, {"modalities": ["text", "audio"]},
    {"web_search_options": {}}, {"reasoning_effort": "high"}, {"verbosity": "low"}, {"store": True},
    {"prediction": {"type": "content", "content": "x"}},
    {"skip_special_tokens": False}, {"skip_special_tokens": 1}, {"add_generation_prompt": False},
    {"continue_final_message": True}, {"echo": True}, {"include_stop_str_in_output": True}, {"guided_json": {}},
    {"guided_regex": "a"}, {"use_beam_search": True}, {"length_penalty": 2}, {"prompt_logprobs": 0},
    {"truncate_prompt_tokens": 5}, {"chat_template": "x"}, {"chat_template_kwargs": {"enable_thinking": False}},
    {"response_format": {"json_schema": {}}}, {"response_format": {"type": "text", "x": 1}}, {"n": 0}, {"best_of": 0},
    {"guided_json": {"a": None}}, {"think": False},
    {"priority": 1}, {"cache_salt": "s"}, {"documents": [{}]}, {"enable_thinking": False},
    {"regex": "a"}, {"json_schema": {}}, {"do_sample": False}, {"max_new_tokens": 5}, {"n_predict": 5},
    {"mirostat": 2}, {"grammar": "root ::= x"}, {"typical_p": 0.5}, {"dry_multiplier": 0.8}, {"repeat_penalty": 1.1},
    {"format": "json"}, {"bad_words": ["x"]}, {"allowed_token_ids": [1]}, {"structured_outputs": {"regex": "a"}},
]  # fmt: skip


@pytest.mark.parametrize("fields", CHANGES_THE_ANSWER, ids=lambda fields: str(fields)[:50])
async def test_what_changes_the_answer_is_refused_by_name(fields: dict[str, Any], fake: httpx2.AsyncClient) -> None:
    response = await fake.post(CHAT, json={"messages": HELLO} | fields)
    error = response.json()["error"]
    [name] = fields
    assert (response.status_code, error["param"]) == (400, name)
    assert error["message"].startswith(f"{name}: not supported; ")


async def test_a_value_that_asks_for_nothing_leaves_the_field_unset() -> None:
    plain = to_grpc(ChatCompletionRequest.model_validate({"messages": HELLO}))
    for field in OWN_OPTIONAL:
        for value in NEUTRAL_TEXTS:
            assert to_grpc(ChatCompletionRequest.model_validate({"messages": HELLO, field: value})) == plain, field
    zero = to_grpc(ChatCompletionRequest.model_validate({"messages": HELLO, "temperature": 0, "seed": 0, "top_k": 0}))
    assert all(zero.HasField(field) for field in ("temperature", "seed", "top_k"))


async def test_a_part_that_is_a_refusal_is_text() -> None:
    parts = [{"type": "text", "text": "Sorry. "}, {"type": "refusal", "refusal": "I cannot."}]
    message = {"role": "assistant", "content": parts}
    [asked] = to_grpc(ChatCompletionRequest.model_validate({"messages": [message]})).messages
    assert asked.content == "Sorry. I cannot."


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"foo": 1}, "foo"),
    ({"foo": 1, "bar": 0, "baz": None}, "foo, bar"),
    ({"messages": [*HELLO, {"role": "user", "content": "", "color": "red"}] * 5}, "messages[1].color"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}, "messages[0].content[0].x"),
    ({"stream_options": {"x": 1}}, "stream_options.x"),
    ({"stream": True, "stream_options": {"include_usage": True, "x": 1}}, "stream_options.x"),
    ({"resume": {"token_ids": [70], "seed": 1, "text": "x"}}, "resume.text"),
    ({"__class__": 1}, "__class__"),
    ({"a\r\nX-Evil: 1": 1}, "a%0D%0AX-Evil%3A%201"),
    ({"é, 你": 1}, "%C3%A9%2C%20%E4%BD%A0"),
    ({"": 1}, '""'),
    ({"a": 1, "": 1, " ": 1, "\t": 1}, 'a, "", %20, %09'),
    ({"messages": [{"role": "user", "content": "", "": 1}]}, 'messages[0].""'),
    ({"x" * 10_000: 1}, f"{'x' * 64}..."),
]


@pytest.mark.parametrize(("fields", "told"), UNKNOWN, ids=lambda value: str(value)[:40])
async def test_unknown_field_is_ignored_and_named_or_refused(
    fields: dict[str, Any], told: str, fake: httpx2.AsyncClient, refusing: httpx2.AsyncClient
) -> None:
    body = {"messages": HELLO} | fields
    response = await fake.post(CHAT, json=body)
    assert response.status_code == 200
    assert response.headers[IGNORED] == told
    refused = await refusing.post(CHAT, json=body)
    assert refused.status_code == 400
    first = told.split(", ")[0]
    assert refused.json()["error"]["message"] == f"{first}: not a field of this service"


async def test_what_is_told_is_bounded_whatever_is_sent(fake: httpx2.AsyncClient) -> None:
    body = {"messages": HELLO} | {f"{number}{'你' * 100}": 1 for number in range(250)}
    response = await fake.post(CHAT, json=body)
    names = response.headers[IGNORED].split(", ")
    assert len(names) == MAX_FIELDS
    assert all(len(name) < 1000 for name in names)
    many = {"messages": [{"role": "user", "content": "", f"f{number}": 1} for number in range(1024)]}
    assert len((await fake.post(CHAT, json=many)).headers[IGNORED].split(", ")) == MAX_FIELDS


async def test_each_name_is_logged_once_an_hour(fake: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "http_bridge.ignored_fields")
    for index in range(3):
        messages = HELLO * index + [{"role": "user", "content": "", "told_once": 1}]
        await fake.post(CHAT, json={"messages": messages, "told\nonce": 1})
    told = [record.getMessage() for record in caplog.records if record.name == "http_bridge.ignored_fields"]
    assert len(told) == 2
    assert "told%0Aonce" in told[0]
    assert "messages[].told_once" in told[1]


@pytest.mark.parametrize("digits", ["100.0", "1e2", "100", "0.1e3", "1000e-1"])
async def test_an_integer_may_be_written_with_a_point_or_an_exponent(digits: str, fake: httpx2.AsyncClient) -> None:
    for name in ("max_tokens", "seed", "top_k", "min_tokens", "max_completion_tokens"):
        body = f'{{"messages": {json.dumps(HELLO)}, "{name}": {digits}, "stop_token_ids": [{digits}]}}'
        assert (await fake.post(CHAT, content=body, headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json;charset=utf-8", "Application/JSON ; a=b; charset=latin-1",
     "application/json; profile=\"x;y\"", "application/vnd.api+json"],
)  # fmt: skip
async def test_json_with_any_parameters_and_a_byte_order_mark_is_json(kind: str, fake: httpx2.AsyncClient) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        content = mark + json.dumps({"messages": HELLO}).encode()
        assert (await fake.post(CHAT, content=content, headers={"Content-Type": kind})).status_code == 200


@pytest.mark.parametrize(
    "path", ["/health", "/livez", "/v1/models", "/v1/models/fake", "/openapi.json", "/docs", "/nope"]
)
async def test_a_slash_at_the_end_and_head_reach_the_same(path: str, fake: httpx2.AsyncClient) -> None:
    plain = await fake.get(path)
    assert (await fake.get(f"{path}/")).content == plain.content
    for asked in (path, f"{path}/", f"{path}///"):
        head = await fake.head(asked)
        assert (head.status_code, head.content) == (plain.status_code, b"")
        assert head.headers["content-length"] == str(len(plain.content))
        assert head.headers["content-type"] == plain.headers["content-type"]


async def test_chats_too_are_reached_with_a_slash_at_the_end(fake: httpx2.AsyncClient) -> None:
    assert (await fake.post(f"{CHAT}/", json={"messages": HELLO})).status_code == 200
    head = await fake.head(CHAT)
    assert (head.status_code, head.headers["allow"], head.content) == (405, "POST", b"")
    other = await fake.post("/health")
    assert (other.status_code, other.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("field", ["prefix", "partial"])
async def test_a_turn_to_be_continued_is_refused_by_name(field: str, fake: httpx2.AsyncClient) -> None:
    turns = [*HELLO, {"role": "assistant", "content": "The", field: True}]
    response = await fake.post(CHAT, json={"messages": turns})
    assert response.status_code == 400
    assert f"messages[{len(HELLO)}].{field}: not supported" in response.json()["error"]["message"]


@pytest.mark.parametrize("switch", ["function_call", "tool_choice"])
async def test_functions_that_must_not_be_called_are_as_good_as_none(switch: str, fake: httpx2.AsyncClient) -> None:
    body = {"messages": HELLO, "functions": [{"name": "f"}], switch: "none"}
    assert (await fake.post(CHAT, json=body)).status_code == 200


@pytest.mark.parametrize(("coding", "status"), [("Identity", 200), ("", 200), ("gzip", 415), ("identity, gzip", 415)])
async def test_the_content_coding_is_none_in_any_spelling(coding: str, status: int, fake: httpx2.AsyncClient) -> None:
    """RFC 9110, 8.4.1: codings are case-insensitive."""
    content = json.dumps({"messages": HELLO}).encode()
    response = await fake.post(CHAT, content=content, headers=JSON | {"Content-Encoding": coding})
    assert response.status_code == status
