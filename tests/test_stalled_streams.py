"""A client that reads nothing holds little, holds nobody up and is let go; one that reads slowly is served."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference_server.servicer import ChatServicer
from protos.chat.v1 import chat_pb2
from tests.fakes import FakeRunner, InProcessService, in_process_bridge, in_process_service, until
from tests.raw_http2 import DATA, call_headers, connected, frame, grpc_message, next_frame

STREAM = f"/{chat_pb2.DESCRIPTOR.services_by_name['ChatService'].full_name}/StreamChatCompletion"
ENDLESS = 6_000
BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": ENDLESS, "stream": True,
        "logprobs": True, "top_logprobs": 20}  # fmt: skip


def ask() -> bytes:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hi")
    request = chat_pb2.ChatCompletionRequest(messages=[message], max_tokens=ENDLESS, logprobs=True, top_logprobs=20)
    return grpc_message(request.SerializeToString())


def outcome(service: InProcessService, name: str) -> float | None:
    return service.metrics.registry.get_sample_value("chat_requests_total", {"outcome": name})


async def rests(service: InProcessService) -> None:
    """Waits until the engine makes no more tokens for the only stream, which holds no blocks."""
    await until(lambda: service.engine.use.running_count == 0 and service.engine.use.waiting_count == 1)
    assert service.engine.use.cache.used_blocks == 0
    assert service.engine.use.counts.generated_tokens < ENDLESS / 2


async def test_a_grpc_client_that_opens_no_window_is_let_go() -> None:
    async with (
        in_process_service(FakeRunner(), write_timeout_s=2) as service,
        connected(service.grpc_address) as (reader, writer),
    ):
        writer.write(call_headers(STREAM) + frame(DATA, ask(), flags=1))
        await next_frame(reader, DATA)
        await rests(service)
        await until(lambda: outcome(service, "stalled") == 1, timeout_s=20)
        await until(lambda: service.engine.use.counts.cancelled == 1)
        await until(lambda: not [one for one in asyncio.all_tasks() if ChatServicer.__name__ in repr(one)])
        assert service.sequence_count == 0


@asynccontextmanager
async def http_stream(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A streamed chat whose client has room for little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    payload = json.dumps(BODY).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_an_http_client_that_reads_nothing_is_let_go() -> None:
    async with (
        in_process_service(FakeRunner()) as service,
        in_process_bridge(service.grpc_address, write_timeout_s=2) as bridge,
        http_stream(bridge.port),
    ):
        await rests(service)
        await until(lambda: service.engine.use.counts.cancelled == 1, timeout_s=20)
        assert service.sequence_count == 0


async def test_a_client_that_reads_slowly_is_served_on() -> None:
    """For longer than one that reads nothing."""
    async with (
        in_process_service(FakeRunner(), write_timeout_s=2) as service,
        in_process_bridge(service.grpc_address, write_timeout_s=2) as bridge,
        http_stream(bridge.port) as (reader, _),
    ):
        await rests(service)
        for _ in range(8):
            await asyncio.sleep(0.5)
            assert await reader.readexactly(200_000)
        assert service.engine.use.counts.cancelled == 0
        assert service.sequence_count == 1


async def test_a_stream_that_rested_goes_on_as_if_it_had_not() -> None:
    async with (
        in_process_service(FakeRunner()) as service,
        in_process_bridge(service.grpc_address) as bridge,
        http_stream(bridge.port) as (reader, _),
    ):
        await rests(service)
        received = bytearray()
        while not received.endswith(b"0\r\n\r\n"):
            received += await reader.read(2**20)
        events = [json.loads(line[6:]) for line in received.split(b"\n") if line.startswith(b"data: {")]
        told = [choice["logprobs"]["content"] for event in events for choice in event["choices"] if choice["logprobs"]]
        assert sum(map(len, told)) == ENDLESS
