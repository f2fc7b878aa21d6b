"""A streamed answer's first bytes: headers when the request is admitted, comments while no event comes."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx2
import openai
import pytest

from clients.http_transport import HttpTransport
from clients.transports import AnswerOptions
from protos.chat.v1 import chat_pb2_grpc
from tests.fake_upstream import FakeUpstream, fake_upstream
from tests.fakes import FakeRunner, in_process_bridge, in_process_service, until
from tests.test_cancel import ASK

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
COMMENT = b": keep-alive\n\n"


@dataclass(frozen=True)
class Waiting:
    """A server that has admitted and says nothing until it is opened, and the bridge before it."""

    upstream: FakeUpstream
    url: str


@pytest.fixture
async def waiting() -> AsyncIterator[Waiting]:
    async with fake_upstream() as upstream:
        upstream.tells_admission = True
        upstream.open.clear()
        async with in_process_bridge(upstream.address, sse_keepalive_s=0.05) as bridge:
            yield Waiting(upstream, bridge.url)


async def read_raw(url: str, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    payload = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    return reader, writer


async def test_headers_come_when_the_request_is_admitted_and_comments_until_there_are_events(waiting: Waiting) -> None:
    reader, writer = await read_raw(waiting.url, BODY)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: text/event-stream" in head.lower()
    for _ in range(3):
        await asyncio.wait_for(reader.readuntil(COMMENT), 10)
    waiting.upstream.open.set()
    rest = await asyncio.wait_for(reader.readuntil(b"data: [DONE]\n\n"), 10)
    assert rest.count(b'"content":"x"') == 3
    writer.close()


async def test_a_failure_after_admission_is_an_event_and_before_it_a_status(waiting: Waiting) -> None:
    waiting.upstream.failure_at_start = grpc.StatusCode.RESOURCE_EXHAUSTED
    async with httpx2.AsyncClient(base_url=waiting.url, timeout=10) as client:
        async with client.stream("POST", CHAT, json=BODY) as response:
            assert response.status_code == 200
            waiting.upstream.open.set()
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
        assert len(lines) == 1
        assert json.loads(lines[0].removeprefix("data: "))["error"]["type"]
        waiting.upstream.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", 1.0)
        assert (await client.post(CHAT, json=BODY)).status_code == 429


async def test_a_deadline_after_admission_is_an_event(waiting: Waiting) -> None:
    async with httpx2.AsyncClient(base_url=waiting.url, timeout=10) as client:
        answer = await client.post(CHAT, json=BODY, headers={"X-Request-Timeout": "0.2"})
    assert answer.status_code == 200
    assert '"code":"deadline_exceeded"' in answer.text
    assert "[DONE]" not in answer.text


async def test_a_client_that_leaves_before_the_first_event_ends_the_call(waiting: Waiting) -> None:
    async with (
        httpx2.AsyncClient(base_url=waiting.url, timeout=10) as client,
        client.stream("POST", CHAT, json=BODY) as response,
    ):
        assert response.status_code == 200
        assert waiting.upstream.running == 1
    await until(lambda: waiting.upstream.running == 0)


async def test_clients_read_past_comments(waiting: Waiting) -> None:
    async def open_later() -> None:
        await asyncio.sleep(0.3)
        waiting.upstream.open.set()

    opening = asyncio.create_task(open_later())
    async with openai.AsyncOpenAI(base_url=f"{waiting.url}/v1", api_key="any") as sdk:
        stream = await sdk.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "a"}], stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "xxx"
    waiting.upstream.open.clear()
    opening = asyncio.create_task(open_later())
    transport = HttpTransport(waiting.url, AnswerOptions(None, None, None, None, None))
    assert "".join([piece async for piece in transport.answer([]) if isinstance(piece, str)]) == "xxx"
    await transport.close()
    await opening


async def test_a_server_that_does_not_tell_admission_is_waited_for_until_its_first_chunk() -> None:
    async with fake_upstream() as upstream, in_process_bridge(upstream.address) as bridge:
        upstream.failure_at_start = grpc.StatusCode.UNAVAILABLE
        async with httpx2.AsyncClient(base_url=bridge.url, timeout=10) as client:
            assert (await client.post(CHAT, json=BODY)).status_code == 503
            upstream.failure_at_start = None
            assert (await client.post(CHAT, json=BODY)).text.endswith("data: [DONE]\n\n")


async def test_the_server_tells_admission_while_a_request_waits_for_its_turn() -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_sequences=1) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        calls = [stub.StreamChatCompletion(ASK) for _ in range(2)]
        for call in calls:
            assert dict(await asyncio.wait_for(call.initial_metadata(), 10))["chat-admitted"] == "1"
        for call in calls:
            call.cancel()


def test_comments_never_come_into_an_event() -> None:
    """A socket that is read slowly: events and comments share a connection, and each is whole."""

    async def run() -> bytes:
        async with fake_upstream() as upstream:
            upstream.chunk_count, upstream.chunk_text = 60, "y" * 4000
            async with in_process_bridge(upstream.address, sse_keepalive_s=0.001) as bridge:
                reader, writer = await read_raw(bridge.url, BODY)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                received = b""
                while b"[DONE]" not in received:
                    received += await asyncio.wait_for(reader.read(20_000), 30)
                    await asyncio.sleep(0.002)
                writer.close()
                return received

    received = asyncio.run(run())
    body = received.partition(b"\r\n\r\n")[2]
    text = b""
    while body and (size := body.partition(b"\r\n")[0]) != b"0":
        start = len(size) + 2
        text += body[start : start + int(size, 16)]
        body = body[start + int(size, 16) + 2 :]
    pieces = [piece for piece in text.split(b"\n\n") if piece]
    assert {piece[:1] for piece in pieces} <= {b"d", b":"}
    assert sum(b"y" * 4000 in piece for piece in pieces) == 60
