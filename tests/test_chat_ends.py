"""Every end of a chat is one line in the log and one count in the metrics, also where no handler was reached."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import pytest

from inference_server.metrics import OUTCOMES
from inference_server.service_state import Phase
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, InProcessService, in_process_service, until
from tests.raw_http2 import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    RST_STREAM,
    call_headers,
    connected,
    frame,
    grpc_message,
)  # fmt: skip
from tests.test_admission import ask
from tests.test_cancel import ASK
from tests.test_server_metrics import outcomes

METHODS = ["CreateChatCompletion", "StreamChatCompletion"]
MESSAGE = ASK.SerializeToString()
Stub: TypeAlias = "chat_pb2_grpc.ChatServiceAsyncStub"


@pytest.fixture
async def service(caplog: pytest.LogCaptureFixture) -> AsyncIterator[InProcessService]:
    caplog.set_level(logging.INFO, "inference_server.accounting")
    async with in_process_service(FakeRunner(gated=True), max_sequences=1) as service:
        yield service


async def expect_end(
    service: InProcessService, caplog: pytest.LogCaptureFixture, *possible: str, count: int = 1
) -> None:
    """As many lines and counts, and no more afterwards."""

    def reasons() -> list[str]:
        records = [record for record in caplog.records if record.name == "inference_server.accounting"]
        return [record.fields["reason"] for record in records]  # type: ignore[attr-defined]

    await until(lambda: len(reasons()) >= count)
    service.runner.allow(1000)
    await asyncio.wait_for(service.state.idle(), 10)
    await until(lambda: service.sequence_count == 0)
    await asyncio.sleep(0.05)
    [outcome] = set(reasons())
    assert outcome in possible
    assert outcome in OUTCOMES
    assert len(reasons()) == count
    assert outcomes(service) == {outcome: count}


WHOLE = frame(DATA, grpc_message(MESSAGE), END_STREAM)
COMPRESSED = frame(DATA, grpc_message(MESSAGE, compressed=True), END_STREAM)
# headers beside gRPC's own, flags of their frame, frames after it
UNREAD: dict[str, tuple[list[tuple[str, str]], int, bytes]] = {
    "no message": ([], END_HEADERS | END_STREAM, b""),
    "half a message": ([], END_HEADERS, frame(DATA, grpc_message(MESSAGE)[:-3], END_STREAM)),
    "cancelled before its message": ([], END_HEADERS, frame(RST_STREAM, struct.pack(">I", CANCEL))),
    "unknown compression": ([("grpc-encoding", "br")], END_HEADERS, COMPRESSED),
    "compression without a name": ([], END_HEADERS, COMPRESSED),
    "broken gzip": ([("grpc-encoding", "gzip")], END_HEADERS, COMPRESSED),
    "too large": ([], END_HEADERS, frame(DATA, b"\0" + struct.pack(">I", 5 * 2**20) + b"x")),
    "deadline before its message": ([("grpc-timeout", "20m")], END_HEADERS, b""),
    "deadline that has passed": ([("grpc-timeout", "1n")], END_HEADERS, WHOLE),
    "deadline that is none": ([("grpc-timeout", "soon")], END_HEADERS, WHOLE),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", UNREAD)
async def test_call_whose_message_never_arrives(
    service: InProcessService, caplog: pytest.LogCaptureFixture, method: str, name: str
) -> None:
    more, flags, after = UNREAD[name]
    async with connected(service.grpc_address) as (_, writer):
        writer.write(call_headers(f"/chat.v1.ChatService/{method}", more, flags) + after)
        reached = ["deadline"] if name == "deadline that has passed" else []  # or not: both are right
        await expect_end(service, caplog, "unread", *reached)


async def test_connection_that_closes_before_the_message(
    service: InProcessService, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(service.grpc_address) as (_, writer):
        writer.write(call_headers("/chat.v1.ChatService/CreateChatCompletion"))
        await writer.drain()
        await asyncio.sleep(0.1)
    await expect_end(service, caplog, "unread")


@pytest.mark.parametrize(
    ("method", "content", "outcome"),
    [
        ("CreateChatCompletion", b"\xff\xff\xff", "invalid"),
        ("StreamChatCompletion", b"\x12\x05\x08", "invalid"),
        ("CreateChatCompletion", b"\x0a\x02\xff\xff", "invalid"),  # a model that is not UTF-8
        ("CreateChatCompletions", MESSAGE, "unimplemented"),
        ("", b"", "unimplemented"),
    ],
)
async def test_call_whose_message_or_method_is_wrong(
    service: InProcessService, caplog: pytest.LogCaptureFixture, method: str, content: bytes, outcome: str
) -> None:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        call: Any = channel.unary_unary(f"/chat.v1.ChatService/{method}", request_serializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(content, metadata=(("x-request-id", "abc-7"),))
        await expect_end(service, caplog, outcome)
    [line] = [record for record in caplog.records if record.name == "inference_server.accounting"]
    assert line.fields["request_id"] == "abc-7"  # type: ignore[attr-defined]


async def failing(service: InProcessService, stub: Stub, asked: chat_pb2.ChatCompletionRequest) -> None:
    for call in (stub.CreateChatCompletion(asked), stub.StreamChatCompletion(asked).read()):
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def bad_field(service: InProcessService, stub: Stub) -> None:
    await failing(service, stub, chat_pb2.ChatCompletionRequest(temperature=9.0, messages=ASK.messages))


async def unknown_model(service: InProcessService, stub: Stub) -> None:
    await failing(service, stub, chat_pb2.ChatCompletionRequest(model="other", messages=ASK.messages))


async def prompt_too_long(service: InProcessService, stub: Stub) -> None:
    await failing(service, stub, ask(max_tokens=100_000))


async def draining(service: InProcessService, stub: Stub) -> None:
    service.state.enter(Phase.DRAINING)
    await failing(service, stub, ASK)


async def deadline_passes(service: InProcessService, stub: Stub) -> None:
    for call in (stub.CreateChatCompletion(ASK, timeout=0.1), stub.StreamChatCompletion(ASK, timeout=0.1).read()):
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def client_cancels(service: InProcessService, stub: Stub) -> None:
    calls = [stub.CreateChatCompletion(ASK), stub.StreamChatCompletion(ASK)]
    await until(lambda: service.state._chat_count == 2)
    for call in calls:
        call.cancel()


async def whole(service: InProcessService, stub: Stub) -> None:
    service.runner.allow(100)
    await stub.CreateChatCompletion(ask(5))
    assert len([chunk async for chunk in stub.StreamChatCompletion(ask(5))])


Doing = Callable[[InProcessService, Stub], Awaitable[None]]


@pytest.mark.parametrize(
    ("do", "outcome"),
    [
        (bad_field, "invalid"), (unknown_model, "invalid"), (prompt_too_long, "invalid"), (draining, "refused"),
        (deadline_passes, "deadline"), (client_cancels, "cancelled"), (whole, "length"),
    ],
)  # fmt: skip
async def test_each_of_two_calls_is_counted_once(
    service: InProcessService, caplog: pytest.LogCaptureFixture, do: Doing, outcome: str
) -> None:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        await do(service, chat_pb2_grpc.ChatServiceStub(channel))
        await expect_end(service, caplog, outcome, count=2)


async def test_what_is_no_chat_is_no_line(service: InProcessService, caplog: pytest.LogCaptureFixture) -> None:
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        await chat_pb2_grpc.ChatServiceStub(channel).GetModel(chat_pb2.GetModelRequest())
        for path in ("/other.Service/CreateChatCompletion", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(path, request_serializer=bytes)(b"\xff")
    assert not [record for record in caplog.records if record.name == "inference_server.accounting"]
    assert outcomes(service) == {}
