"""Bad input over HTTP: OpenAI's error body, the right status, the field's name, and nothing of what was sent."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from http_bridge.answers import ChatCompletion
from http_bridge.events import event

INSIDE = re.compile(r'Traceback|File "|0x[0-9a-f]{6,}|/usr/|/opt/|site-packages|<class|Error\b')
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]

# extra fields, and what the message says
BODIES: list[tuple[dict[str, Any], str]] = [
    ({"temperature": "1"}, "temperature: expected a number from 0.0 to 2.0, got a string"),
    ({"temperature": True}, "temperature: expected a number from 0.0 to 2.0, got true"),
    ({"max_tokens": 1.5}, "max_tokens: expected an integer from 1 to 2147483647, got 1.5"),
    ({"max_tokens": 2**31}, "max_tokens: expected an integer from 1 to 2147483647, got 2147483648"),
    ({"max_tokens": "16"}, "max_tokens: expected an integer from 1 to 2147483647, got a string"),
    ({"top_k": 2**31}, "top_k: expected an integer from -1 to 2147483647, got 2147483648"),
    ({"seed": 2**64}, "seed: expected an integer from"),
    ({"seed": 1.5}, "seed: expected an integer from"),
    ({"seed": 2.0**53}, "seed: expected an integer from"),
    ({"stream": "yes"}, "stream: expected true or false, got a string"),
    ({"stream_options": {"include_usage": True}}, "stream_options: only with stream true"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation: not supported; leave it out or send false",
    ),
    ({"stream": True, "stream_options": {"include_obfuscation": 0}}, "stream_options.include_obfuscation: not supp"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens: must equal max_tokens"),
    ({"messages": [{"role": "boss", "content": ""}]}, "messages[0].role: expected one of system, user, "),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content: expected a string, got null"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: expected a string, got 3"),
    ({"messages": [{"role": "user"}]}, "messages[0].content: required"),
    ({"messages": [{"role": "assistant", "content": None, "refusal": None}]}, "messages[0].content: expected a string"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content: expected at least 1 text part, got 0"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text: required"),
    ({"messages": [{"role": "user", "content": "", "name": 5}]}, "messages[0].name: expected a string, got 5"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls: not supported"),
    ({"messages": [{"role": "assistant", "content": "", "audio": {"id": "a"}}]}, "messages[0].audio: not supported"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}]},
        "messages[0].content[0].type: expected text",
    ),
    ({"messages": [{}] * 30_000}, "messages[0].role: required"),
    ({"messages": "hi"}, "messages: expected a list, got a string"),
    ({"stop": [0] * 60_000}, "stop[0]: expected a string, got 0"),
    ({"max_completion_tokens": 0}, "max_completion_tokens: expected an integer from 1 to 2147483647, got 0"),
    ({str(number): 1 for number in range(1000)}, "body: an object of more than 256 names"),
    ({str(number): 1 for number in range(10_000)}, "body: an object of more than 256 names"),
    ({"metadata": {"logit_bias": {str(n): 1 for n in range(1000)}}}, "body: an object of more than 256 names"),
    ({"logit_bias": {str(n): 1 for n in range(60_000)}}, "logit_bias: expected at most 1024 ids, got 60000"),
    *(({"logit_bias": {name: 1}}, "logit_bias: expected token ids as names") for name in (
        "abc", "-1", "1.5", "01", " 1", "1 ", "+1", "1e3", "1_0", "", "１", str(2**31), "9" * 100,
    )),
    ({"logit_bias": {"5": 101}}, "logit_bias[5]: expected a number from -100.0 to 100.0, got 101.0"),
    ({"logit_bias": {"5": "1"}}, "logit_bias[5]: expected a number from -100.0 to 100.0, got a string"),
    ({"logit_bias": {"5": None}}, "logit_bias[5]: expected a number from -100.0 to 100.0, got null"),
    ({"logit_bias": {"5": {str(n): 1 for n in range(300)}}}, "body: an object of more than 256 names"),
    ({"logit_bias": [[5, 1]]}, "logit_bias: expected an object, got a list"),
    ({"presence_penalty": 3}, "presence_penalty: expected a number from -2.0 to 2.0, got 3.0"),
    ({"min_p": "0.1"}, "min_p: expected a number from 0.0 to 1.0, got a string"),
    ({"min_tokens": 1.5}, "min_tokens: expected an integer from 0 to 2147483647, got 1.5"),
    ({"min_tokens": 2**31}, "min_tokens: expected an integer from 0 to 2147483647, got 2147483648"),
    ({"stop_token_ids": [1, 2**31]}, "stop_token_ids[1]: expected an integer from 0 to 2147483647, got 2147483648"),
    ({"stop_token_ids": ["1"]}, "stop_token_ids[0]: expected an integer from 0 to 2147483647, got a string"),
    ({"stop_token_ids": [True]}, "stop_token_ids[0]: expected an integer from 0 to 2147483647, got true"),
    ({"stop_token_ids": 5}, "stop_token_ids: expected a list, got 5"),
    ({"stop_token_ids": [0] * 60_000}, "stop_token_ids: expected at most 64 ids, got 60000"),
    ({"stop_token_ids": [0] * 70_000}, "body: more than 65536 values"),
    ({"logprobs": 5}, "logprobs: expected true or false, got 5"),
    ({"logprobs": True, "top_logprobs": True}, "top_logprobs: expected an integer from 0 to 20, got true"),
    ({"resume": [70]}, "resume: expected an object, got a list"),
    ({"resume": {"seed": 1}}, "resume.token_ids: required"),
    ({"resume": {"token_ids": "70"}}, "resume.token_ids: expected a list, got a string"),
    ({"resume": {"token_ids": [70, 1.5]}}, "resume.token_ids[1]: expected an integer from 0 to 2147483647, got 1.5"),
    ({"resume": {"token_ids": [70], "seed": 2**63}}, "resume.seed: expected an integer from -9223372036854775808 to"),
    ({"n": 2}, "n: not supported; leave it out or send 1"),
    ({"n": True}, "n: not supported"),
    ({"tools": [{}]}, "tools: not supported"),
    ({"response_format": {"type": "json_object"}}, "response_format: not supported"),
    ({"store": True}, "store: not supported"),
    ({"chat_template": "x"}, "chat_template: not supported"),
]  # fmt: skip

RAW: list[tuple[bytes, str]] = [
    (b"", "body: expected an object, got nothing"),
    (b"{", "body: not valid JSON"),
    (b"null", "body: expected an object, got null"),
    (b"[]", "body: expected an object, got a list"),
    (b'"x"', "expected an object, got a string"),
    (b"\xff\xfe", "body: not valid UTF-8"),
    (b"\xef\xbb\xbf", "body: not valid JSON"),
    ('{"messages": []}'.encode("utf-16"), "body: not valid UTF-8"),
    ('{"messages": []}'.encode("utf-32-le"), "body: not valid JSON"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "half of a surrogate pair"),
    (b'{"temperature": NaN}', "body: NaN is not JSON"),
    (b'{"temperature": -Infinity}', "body: -Infinity is not JSON"),
    (b'{"temperature": 1e400}', "body: a number is too large"),
    (b'{"logit_bias": {"5": 1, "5": 2}}', "same name twice"),
    (b'{"logit_bias": {"5": -Infinity}}', "body: -Infinity is not JSON"),
    (b'{"max_tokens": ' + b"9" * 5000 + b"}", "body: a number of more than 40 digits"),
    (b'{"stream": true, "stream": false}', "same name twice"),
    (b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}", "nested deeper than 64 levels"),
    (b'{"messages": ' + b"[" * 60_000, "nested deeper than 64 levels"),
    (b'{"a":' * 60_000, "nested deeper than 64 levels"),
    (b'{"a":' * 100_000, "body: more than 65536 values"),
]


def check(response: httpx2.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert len(response.content) <= 2048
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    assert not INSIDE.search(response.text)
    return str(error["message"])


@pytest.mark.parametrize(("fields", "message"), BODIES, ids=lambda value: str(value)[:40])
async def test_bad_field_is_named(fields: dict[str, Any], message: str, http: httpx2.AsyncClient) -> None:
    response = await http.post(CHAT, json={"messages": HELLO} | fields)
    assert message in check(response, 400)


@pytest.mark.parametrize(("body", "message"), RAW, ids=lambda value: str(value)[:30])
async def test_what_is_not_a_json_object_is_refused(body: bytes, message: str, http: httpx2.AsyncClient) -> None:
    response = await http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert message in check(response, 400)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/jsonx", "text/json", "application/x-www-form-urlencoded", ""]
)
async def test_other_content_types_are_refused(kind: str, http: httpx2.AsyncClient) -> None:
    response = await http.post(CHAT, content=json.dumps({"messages": HELLO}), headers={"Content-Type": kind})
    assert "application/json" in check(response, 415)
    squeezed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    check(await http.post(CHAT, content=b"\x1f\x8b", headers=squeezed), 415)


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_refused(chunked: bool, http: httpx2.AsyncClient) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * (4 * 2**20)}]}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    headers = {"Content-Type": "application/json"}
    response = await http.post(CHAT, content=pieces() if chunked else body, headers=headers)
    assert "4194304 bytes" in check(response, 413)


async def test_paths_and_methods_are_refused_in_the_same_form(http: httpx2.AsyncClient) -> None:
    assert check(await http.get("/nope"), 404) == "no such path"
    assert check(await http.get(CHAT), 405) == "this path does not take that method"
    assert check(await http.get("/v1/models/other"), 404).startswith("model:")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "1e9", "1_0", ""])
async def test_bad_timeout_header_is_refused(value: str, http: httpx2.AsyncClient) -> None:
    response = await http.post(CHAT, json={"messages": HELLO}, headers={"X-Request-Timeout": value})
    assert "X-Request-Timeout" in check(response, 400)


async def test_timeout_header_becomes_the_deadline(http: httpx2.AsyncClient) -> None:
    body = {"messages": HELLO, "ignore_eos": True, "max_tokens": 30_000}
    response = await http.post(CHAT, json=body, headers={"X-Request-Timeout": "0.3"})
    assert "longer than the request allowed" in check(response, 504)


async def test_error_after_the_first_event_is_an_event_without_done(http: httpx2.AsyncClient) -> None:
    body = {"messages": HELLO, "ignore_eos": True, "max_tokens": 30_000, "stream": True}
    response = await http.post(CHAT, json=body, headers={"X-Request-Timeout": "0.5"})
    assert response.status_code == 200
    *_, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert json.loads(last)["error"]["code"] == "deadline_exceeded"


async def test_request_id_is_returned_where_it_is_fit(http: httpx2.AsyncClient) -> None:
    sent = await http.get("/livez", headers={"X-Request-Id": "a.B-1_2"})
    assert sent.headers["x-request-id"] == "a.B-1_2"
    for unfit in ("x" * 200, "a b", "é"):
        response = await http.get("/livez", headers=[(b"X-Request-Id", unfit.encode())])
        assert len(response.headers["x-request-id"]) == 32


def test_text_with_other_line_ends_stays_within_its_event() -> None:
    sent = event({"content": "a\u2028b\u2029c\x85d\n你"})
    assert len(sent.splitlines()) == 2
    assert json.loads(sent.removeprefix("data: ")) == {"content": "a\u2028b\u2029c\x85d\n你"}


async def test_docs_show_examples_and_need_no_other_host(http: httpx2.AsyncClient) -> None:
    page = (await http.get("/docs")).raise_for_status().text
    links = [part.split('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
    assert links
    for link in links:
        assert link.startswith("/")
        (await http.get(link)).raise_for_status()
    schema = (await http.get("/openapi.json")).raise_for_status().json()
    [answer] = schema["components"]["schemas"]["ChatCompletion"]["examples"]
    assert ChatCompletion.model_validate(answer).response == answer["choices"][0]["message"]["content"]
    assert "你好" in json.dumps(
        schema["components"]["schemas"]["ChatCompletionRequest"]["examples"], ensure_ascii=False
    )


async def test_health_and_livez(http: httpx2.AsyncClient) -> None:
    health = (await http.get("/health")).raise_for_status().json()
    assert health["status"] == "ok"
    assert health["model"] == "demo"
    assert "demo" in health["notice"]
    assert (await http.get("/livez")).raise_for_status().json() == {"status": "ok"}
