"""A client that goes away stops the work on its answer within two steps, and frees what it held."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import httpx2
import pytest

from http_bridge.drain import Drain
from http_bridge.exchange import Exchange
from http_bridge.metrics import Metrics
from http_bridge.overload import Overload
from http_bridge.upstream import Upstream
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.fakes import FakeRunner, InProcessService, in_process_service, until

ASK = chat_pb2.ChatCompletionRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hello")])
BODY = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture
async def gated() -> AsyncIterator[InProcessService]:
    async with in_process_service(FakeRunner(gated=True)) as service:
        yield service


async def expect_the_work_to_stop(service: InProcessService, steps_before: int) -> None:
    """To be called when the client has gone: the server has to notice, and then two steps must be enough."""
    await asyncio.wait_for(service.state.idle(), 10)
    service.runner.allow(100)
    await until(lambda: service.sequence_count == 0)
    await asyncio.sleep(0.05)
    assert service.runner.step_count - steps_before <= 2


async def start_over_grpc(service: InProcessService, channel: grpc.aio.Channel) -> "grpc.aio.UnaryStreamCall":  # type: ignore[type-arg]
    call = chat_pb2_grpc.ChatServiceStub(channel).StreamChatCompletion(ASK)
    service.runner.allow(3)
    await call.read()
    await until(lambda: service.runner.step_count == 3)
    return call


async def test_grpc_stream_that_is_cancelled(gated: InProcessService) -> None:
    async with grpc.aio.insecure_channel(gated.grpc_address) as channel:
        call = await start_over_grpc(gated, channel)
        call.cancel()
        await expect_the_work_to_stop(gated, 3)


async def test_grpc_client_whose_connection_closes(gated: InProcessService) -> None:
    channel = grpc.aio.insecure_channel(gated.grpc_address)
    await start_over_grpc(gated, channel)
    await channel.close()
    await expect_the_work_to_stop(gated, 3)


@pytest.mark.parametrize("streaming", [False, True])
async def test_grpc_call_whose_deadline_passes(gated: InProcessService, streaming: bool) -> None:
    async with grpc.aio.insecure_channel(gated.grpc_address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        gated.runner.allow(3)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (_read_all(stub) if streaming else stub.CreateChatCompletion(ASK, timeout=0.5))
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await expect_the_work_to_stop(gated, 3)


async def _read_all(stub: "chat_pb2_grpc.ChatServiceAsyncStub") -> None:
    async for _ in stub.StreamChatCompletion(ASK, timeout=0.5):
        pass


async def test_http_stream_whose_client_leaves(gated: InProcessService) -> None:
    gated.runner.allow(3)
    async with (
        httpx2.AsyncClient(base_url=gated.url) as client,
        client.stream("POST", CHAT, json=BODY | {"stream": True}) as response,
    ):
        lines = response.aiter_lines()  # kept: an iterator that is forgotten closes the response
        await anext(lines)
        await until(lambda: gated.runner.step_count == 3)
    await expect_the_work_to_stop(gated, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_http_client_that_leaves_before_the_first_token(gated: InProcessService, stream: bool) -> None:
    async with httpx2.AsyncClient(base_url=gated.url) as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY | {"stream": stream}))
        await until(lambda: gated.sequence_count == 1)
        asking.cancel()
        await expect_the_work_to_stop(gated, 0)


async def test_whole_http_answer_whose_client_leaves(gated: InProcessService) -> None:
    async with httpx2.AsyncClient(base_url=gated.url) as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        gated.runner.allow(3)
        await until(lambda: gated.runner.step_count == 3)
        asking.cancel()
        await expect_the_work_to_stop(gated, 3)


async def test_stream_that_the_bridge_closes_between_two_reads(gated: InProcessService) -> None:
    upstream = Upstream(gated.grpc_address, Drain(1), Metrics(), Overload())
    gated.runner.allow(3)
    chunks = upstream.stream(ASK, Exchange("id"), None)
    await anext(chunks)
    await until(lambda: gated.runner.step_count == 3)
    await chunks.aclose()
    await expect_the_work_to_stop(gated, 3)
    await upstream.close()


async def test_request_that_waits_is_dropped_without_a_step() -> None:
    async with (
        in_process_service(FakeRunner(gated=True), max_sequences=1) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        first = await start_over_grpc(service, channel)
        second = chat_pb2_grpc.ChatServiceStub(channel).StreamChatCompletion(ASK)
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.sleep(0.1)
        service.runner.allow(1)
        await until(lambda: service.sequence_count == 1 and service.engine.use.counts.cancelled == 1)
        assert service.engine.use.counts.started == 2
        first.cancel()
        await expect_the_work_to_stop(service, 4)


async def test_neighbour_of_a_cancelled_request_is_answered() -> None:
    async with in_process_service(FakeRunner()) as service, grpc.aio.insecure_channel(service.grpc_address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        cancelled = stub.StreamChatCompletion(ASK)
        await cancelled.read()
        neighbour = asyncio.ensure_future(stub.CreateChatCompletion(_ask(max_tokens=5)))
        cancelled.cancel()
        assert (await neighbour).usage.completion_tokens == 5


async def test_tasks_are_back_at_the_baseline_after_many_cancels() -> None:
    async with (
        in_process_service(FakeRunner()) as service,
        httpx2.AsyncClient(base_url=service.url, timeout=10) as client,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        await stub.CreateChatCompletion(_ask(max_tokens=1))
        await client.post(CHAT, json=BODY | {"max_tokens": 1})
        baseline = len(asyncio.all_tasks())
        for _ in range(20):
            call = stub.StreamChatCompletion(ASK)
            await call.read()
            call.cancel()
            async with client.stream("POST", CHAT, json=BODY | {"stream": True}) as response:
                await anext(response.aiter_lines())
        await asyncio.wait_for(service.state.idle(), 10)
        await until(lambda: service.sequence_count == 0)
        await until(lambda: len(asyncio.all_tasks()) <= baseline + 1)


def _ask(max_tokens: int) -> chat_pb2.ChatCompletionRequest:
    asked = chat_pb2.ChatCompletionRequest(max_tokens=max_tokens)
    asked.MergeFrom(ASK)
    return asked
