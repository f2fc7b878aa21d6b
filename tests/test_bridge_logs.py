"""The bridge's log: one line a chat, nothing of what was asked, and no input that makes a line of its own."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator

import grpc
import httpx2
import pytest

from observability.logs import JsonFormatter, TextFormatter, fields
from tests.fake_upstream import FakeUpstream, fake_upstream
from tests.fakes import until
from tests.programs import Program, start_bridge
from tests.test_bridge_limits import HEAD, LENGTH
from tests.test_bridge_upstream import BODY, CHAT

LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) [\w.]+: [^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
FORGED = "11:11:11 INFO forged: line"
EVIL = [
    f"{end}{FORGED}{end}" for end in ("\n", "\r", "\r\n", "\x00", "\x1b[2K\x1b[1A", "\u2028", "\u2029", "\x85", "\x0b")
]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        yield fake


@pytest.fixture(params=["text", "json"])
def bridge(request: pytest.FixtureRequest, upstream: FakeUpstream) -> Iterator[tuple[Program, str, str]]:
    program, port = start_bridge(upstream.address, "--log-format", request.param)
    try:
        yield program, f"http://127.0.0.1:{port}", request.param
    finally:
        program.stop()


def chats(program: Program, log_format: str) -> list[dict[str, str]]:
    """The fields of the lines that tell of chats, as text."""
    found = []
    for line in program.lines:
        if log_format == "json":
            parsed = json.loads(line)
            if parsed["message"] == "chat":
                found.append({name: str(value) for name, value in parsed.items()})
        elif " http_bridge.accounting: chat " in line:
            found.append(dict(pair.split("=", 1) for pair in line.split(": chat ")[1].split()))
    return found


async def test_each_chat_is_one_line_and_probes_are_none(
    bridge: tuple[Program, str, str], upstream: FakeUpstream
) -> None:
    program, url, log_format = bridge
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        for path in ("/livez", "/health", "/v1/models", "/nope"):
            await client.get(path)
        await client.post(CHAT, json=BODY, headers={"X-Request-Id": "whole"})
        await client.post(CHAT, json=BODY | {"stream": True}, headers={"X-Request-Id": "streamed"})
        await client.post(CHAT, json=BODY | {"temperature": 9}, headers={"X-Request-Id": "bad"})
        await client.post(CHAT, content=b"{" * 100, headers={"X-Request-Id": "worse"})
        upstream.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 1.0)
        await client.post(CHAT, json=BODY | {"stream": True}, headers={"X-Request-Id": "refused"})
        upstream.refusal = None
        upstream.open.clear()
        late = {"X-Request-Id": "late", "X-Request-Timeout": "0.2"}
        await client.post(CHAT, json=BODY | {"stream": True}, headers=late)
        await until(lambda: upstream.running == 0)
        asking = asyncio.create_task(client.post(CHAT, json=BODY, headers={"X-Request-Id": "left"}))
        await until(lambda: upstream.running == 1)
        asking.cancel()
        await until(lambda: len(chats(program, log_format)) == 7)
        left = {"X-Request-Id": "left-streaming"}
        async with client.stream("POST", CHAT, json=BODY | {"stream": True}, headers=left) as response:
            await anext(response.aiter_lines())
    await until(lambda: len(chats(program, log_format)) == 8)
    assert program.stop() == 0
    logged = chats(program, log_format)
    assert [(one["request_id"], one["status"], one["reason"]) for one in logged] == [
        ("whole", "200", "stop"),
        ("streamed", "200", "stop"),
        ("bad", "400", "invalid_request_error"),
        ("worse", "415", "invalid_request_error"),
        ("refused", "429", "rate_limit_exceeded"),
        ("late", "200", "deadline_exceeded"),
        ("left", "499", "client_gone"),
        ("left-streaming", "200", "client_gone"),
    ]
    for one in logged[:2]:
        assert (one["prompt_tokens"], one["completion_tokens"]) == ("7", "3")
        assert 0 < float(one["first_byte_ms"]) <= float(one["total_ms"])
    assert all("prompt_tokens" not in one for one in logged[2:])
    assert logged[1]["stream"] == "True"
    assert len(program.lines) == 8 + 3  # the beginning, the drain and the end
    assert "Hello" not in program.output


async def test_no_input_makes_a_line_of_its_own(bridge: tuple[Program, str, str], upstream: FakeUpstream) -> None:
    program, url, log_format = bridge
    expected = 0
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        for evil in EVIL:
            for sent in ({"model": evil}, {"user": evil}, {evil: 1}, {"stop": [evil]}, {"metadata": {evil: evil}}):
                await client.post(CHAT, json=BODY | sent)
                expected += 1
            upstream.refusal = (grpc.StatusCode.INVALID_ARGUMENT, f"model: {evil}", None)
            await client.post(CHAT, json=BODY)
            expected += 1
            upstream.refusal = None
            for header in ("X-Request-Id", "X-Request-Timeout", "User-Agent", "Authorization", "Content-Type"):
                expected += await _send_raw(url, header, evil)
    await until(lambda: len(chats(program, log_format)) == expected)
    assert program.stop() == 0
    for line in program.lines:
        assert LINE.fullmatch(line.rstrip("\n")) or json.loads(line)["message"], program.output
    assert FORGED not in program.output
    others = [line for line in program.lines if "chat" not in line and "Invalid HTTP request" not in line]
    assert len(others) == 3, others  # the beginning, the drain and the end
    assert len(chats(program, log_format)) == expected


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_message_and_fields_do_not_make_a_line_of_their_own(formatter: logging.Formatter) -> None:
    for evil in EVIL:
        record = logging.LogRecord("name", logging.INFO, "", 0, "said %s", (evil,), None)
        record.__dict__ |= fields(reason=evil)
        [line] = formatter.format(record).splitlines()
        assert line.isprintable()


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_exception_does_not_make_a_line_of_its_own(formatter: logging.Formatter) -> None:
    for evil in EVIL:
        try:
            raise ValueError(evil)
        except ValueError:
            record = logging.LogRecord("name", logging.ERROR, "", 0, "failed", None, sys.exc_info())
        first, *more = formatter.format(record).splitlines()
        assert "failed" in first
        assert all(line.startswith("  ") for line in more)


async def _send_raw(url: str, header: str, evil: str) -> int:
    """Puts it into a path and a header as it is. Returns how many chats the bridge sees in it."""
    chats = 0
    port = int(url.rpartition(":")[2])
    for request in (
        f"GET /{evil} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET /{''.join(f'%{byte:02x}' for byte in evil.encode())} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        HEAD.replace(b"Host: x", b"Host: x\r\n" + f"{header}: {evil}".encode()) + LENGTH + json.dumps(BODY).encode(),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        status = int((await reader.readline()).split()[1])
        is_chat = request.startswith(b"POST") and b"x-request-id" in await reader.readuntil(b"\r\n\r\n")
        assert status in (200, 400, 404, 415)
        chats += is_chat
        writer.close()
    return chats
